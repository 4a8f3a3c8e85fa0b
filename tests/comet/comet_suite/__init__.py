"""What a comet node answers: cluster/contracts/comet.py and handover.py in tests.

test_conformance.py runs it over a node that is called directly, as in `encke serve`,
and over one that is called over RPC, as in a cluster.
"""

from __future__ import annotations

from tests.comet.comet_suite.deleting import Deleting
from tests.comet.comet_suite.failing import Failing
from tests.comet.comet_suite.following import Following
from tests.comet.comet_suite.ground import Open
from tests.comet.comet_suite.handing_over import HandingOver
from tests.comet.comet_suite.ids import Ids
from tests.comet.comet_suite.owning import Owning
from tests.comet.comet_suite.pushing import Pushing
from tests.comet.comet_suite.stopping import Stopping
from tests.comet.comet_suite.telling import Telling

__all__ = ["CometSuite", "Open"]


class CometSuite(Pushing, Ids, Following, Failing, Owning, Deleting, Telling, Stopping, HandingOver):
    """The tests; a subclass adds the fixture `opened`."""
