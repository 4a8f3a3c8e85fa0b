"""Where a subscriber has its token from, and where it does not show."""

from __future__ import annotations

import itertools
import logging

import pytest

from encke.client import TokenRefusedError
from tests.encke.scripted import Connection, scripted
from tests.encke.subscribers import Rounds, mids, silent, subscriber


async def test_token_is_fetched_for_each_connection_and_replaced_when_it_expires(transport: str) -> None:
    tokens = (f"token{n}" for n in itertools.count())

    async def fetch() -> str:
        return next(tokens)

    script = Rounds([1_000_080], [1_000_160], end=(4401, "token refused or expired"))
    async with scripted(script) as server:
        async with subscriber(server, transport=transport, token=fetch) as source:
            assert await mids(source, 2) == [1_000_080, 1_000_160]
        assert [r["token"] for r in server.requests] == ["token0", "token1"]


async def test_fetched_token_that_is_refused_at_once_is_an_error() -> None:
    async def fetch() -> str:
        return "bad"

    async def refuse(connection: Connection) -> None:
        await connection.say("-a")

    async with scripted(refuse) as server:
        with pytest.raises(TokenRefusedError):
            async with subscriber(server, token=fetch):
                pass


async def test_failing_token_source_reaches_the_caller() -> None:
    async def fetch() -> str:
        raise LookupError("no token today")

    async with scripted(silent) as server:
        with pytest.raises(LookupError, match="today"):
            async with subscriber(server, token=fetch):
                pass


async def test_token_does_not_reach_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with scripted(silent) as server, subscriber(server, token="very-secret"):
        pass
    assert caplog.records
    ours = [record for record in caplog.records if not record.name.startswith("websockets.server")]
    assert not any("very-secret" in record.getMessage() for record in ours)
