"""What the tests of the Python client share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from encke.client import Publisher
from tests.encke.scripted_admin import Admin, served


@pytest.fixture(params=["websocket", "tcp"])
def transport(request: pytest.FixtureRequest) -> str:
    """Each of a subscriber's."""
    name: str = request.param
    return name


@pytest.fixture
def admin() -> Admin:
    """A server that answers well unless it is told otherwise."""
    return Admin()


@pytest.fixture
async def publisher(admin: Admin) -> AsyncIterator[Publisher]:
    """One that pushes to `admin`."""
    async with served(admin) as url, Publisher(url, token="secret") as entered:
        yield entered
