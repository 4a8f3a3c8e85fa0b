"""A web node in front of a scripted comet node, or of a real one with the embedded store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from cluster.contracts.message import MessageService
from tests.support.services import ScriptedComet
from tests.support.web import Web, running_system, running_web
from tests.web.pushing.pusher import Pushing


@pytest.fixture
def comet() -> ScriptedComet:
    return ScriptedComet()


@pytest.fixture
async def web(comet: ScriptedComet) -> AsyncIterator[Web]:
    """In front of `comet`; nothing is stored anywhere."""
    async with running_web({"comet-1": comet}, no_messages()) as running:
        yield running


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[Web]:
    async with running_system(tmp_path / "data") as running:
        yield running


@pytest.fixture
async def pushing() -> AsyncIterator[Pushing]:
    made = Pushing()
    yield made
    made.pusher.close()
    made.members.close()


@pytest.fixture
def keys() -> list[str]:
    return [f"key-{n}" for n in range(50)]


def no_messages() -> MessageService:
    """For tests in which nobody asks the store."""
    return cast(MessageService, None)
