"""What every store must do: cluster/contracts/message.py and message/storage/base.py in tests.

test_conformance.py runs it over all backends. It knows nothing of a backend but
its harness.
"""

from __future__ import annotations

from tests.message.storage.store_suite.bounds import Bounds
from tests.message.storage.store_suite.changing import Changing
from tests.message.storage.store_suite.ground import Harness, Limits, unreadable
from tests.message.storage.store_suite.ids import Ids
from tests.message.storage.store_suite.lasting import Lasting
from tests.message.storage.store_suite.reading import Reading
from tests.message.storage.store_suite.saving import Saving

__all__ = ["Harness", "Limits", "StoreSuite", "unreadable"]


class StoreSuite(Saving, Ids, Reading, Bounds, Changing, Lasting):
    """The tests; a backend's class adds the fixture `harness`."""
