"""Who may call whom: neighbouring versions, and those who share a secret."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from cluster.errors import UnavailableError
from cluster.rpc.handshake import Versions
from tests.cluster.rpc_nodes import CHANGE, ECHO, NEW, QUICK, error_of, pair


@pytest.mark.parametrize(("here", "there", "agreed"), [(1, 2, 1), (2, 1, 1), (2, 3, 2), (3, 2, 2)])
async def test_neighbouring_versions_work_together(
    here: int, there: int, agreed: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cluster.rpc")
    async with pair(versions=Versions.up_to(here), server_versions=Versions.up_to(there)) as ends:
        assert await ends.call(ECHO, b"x") == b"x"
        assert f"version={agreed}" in caplog.text


async def test_versions_too_far_apart_are_told_in_words() -> None:
    async with pair(versions=Versions.up_to(1), server_versions=Versions.up_to(3)) as ends:
        assert "protocol versions 2 to 3 here, 1 to 1 there" in str(await error_of(ends.call(ECHO, b"")))


async def test_newer_method_is_not_sent_to_an_older_peer() -> None:
    async with pair(versions=Versions(1, 2), server_versions=Versions(1, 1)) as ends:
        early = ends.call(NEW, "a")
        assert type(await error_of(early)) is UnavailableError
        await ends.up()

        error = await error_of(ends.call(NEW, "a"))

        assert type(error) is UnavailableError
        assert "new needs protocol version 2" in str(error)
        assert not ends.service.waiting


async def test_shared_secret_lets_in() -> None:
    async with pair(replace(QUICK, secret="s3cret")) as ends:
        assert await ends.call(ECHO, b"x") == b"x"


@pytest.mark.parametrize(("here", "there"), [("a", "b"), ("a", ""), ("", "b")])
async def test_wrong_secret_keeps_out(here: str, there: str) -> None:
    config = replace(QUICK, secret=here)
    async with pair(config, server_config=replace(QUICK, secret=there)) as ends:
        error = await error_of(ends.call(CHANGE, "a"))

        assert type(error) is UnavailableError
        assert "secret" in str(error)
        assert not ends.service.waiting
