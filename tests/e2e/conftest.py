"""Servers for the tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.e2e.hostile import undisturbed
from tests.support.system import Server, running


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests of a module, configured by its CONFIG; each test takes keys of its own."""
    config = getattr(request.module, "CONFIG", "")
    with running(Server(tmp_path_factory.mktemp("server"), config=config)) as started:
        yield started
        assert started.is_running, started.log[-4000:]


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for one test, not started yet."""
    described = Server(tmp_path_factory.mktemp("server"))
    try:
        yield described
    finally:
        described.kill()


@pytest.fixture
async def bystander(server: Server) -> AsyncIterator[None]:
    """Subscribers whom what the test does must not disturb."""
    async with undisturbed(server):
        yield
