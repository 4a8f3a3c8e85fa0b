"""A comet node in both ways to call it, against the one suite."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.comet.comet_suite import CometSuite, Open
from tests.comet.nodes import running_core, running_remote_core


class TestCometNode(CometSuite):
    """Called directly, the only one, as in `encke serve`."""

    @pytest.fixture
    def opened(self, tmp_path: Path) -> Open:
        return partial(running_core, tmp_path)


class TestCometNodeOverRpc(CometSuite):
    """Called by another process of a cluster."""

    @pytest.fixture
    def opened(self, tmp_path: Path) -> Open:
        return partial(running_remote_core, tmp_path)
