"""What the tests of the suite stand on: a node, and how what it answers is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import pytest

from cluster.contracts.comet import PushReply
from cluster.errors import EnckeError
from cluster.model import Epoch, Key, NodeInfo, NodeKind, NodeName
from comet.config import CometConfig
from tests.comet.nodes import Core
from tests.comet.pairs import keys_of

OTHER = "other"
BOTH = (CometConfig().name, OTHER)
# Keys that the node under test loses when another one joins, and such as it keeps.
LOST = keys_of(OTHER, BOTH)
KEPT = keys_of(CometConfig().name, BOTH)


class Open(Protocol):
    """Runs a node that is called in one of the ways."""

    def __call__(self, **settings: Any) -> AbstractAsyncContextManager[Core]:
        """Run it; settings are those of CometConfig."""
        ...


class Ground:
    """A subclass adds the fixture `opened`."""

    @pytest.fixture
    async def core(self, opened: Open) -> AsyncIterator[Core]:
        async with opened() as core:
            yield core


def epoch_of(core: Core) -> Epoch:
    """Of the membership that the node has."""
    return core.node._keys.ownership.holdings.epoch


def next_epoch(core: Core) -> Epoch:
    """Of the next change."""
    generation, changes = epoch_of(core)
    return generation, changes + 1


async def join(core: Core, weight: int = 1) -> None:
    """Let another node appear in the ring; with weight 0 it takes no keys."""
    await core.comet.registry.register(
        NodeInfo(NodeKind.COMET, NodeName(OTHER), OTHER, {"tcp": ("192.0.2.1:1",)}, weight=weight)
    )


async def assert_refused(answer: Awaitable[Any], kind: type[EnckeError]) -> None:
    """A call ends with this very error, and it says whether to try again."""
    with pytest.raises(kind) as caught:
        await answer
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.is_retryable) == (kind.code, kind.is_retryable)
    assert str(caught.value)


def failures(reply: PushReply) -> list[tuple[int, str]]:
    """Which keys of a push have failed, and why."""
    return [(failure.index, failure.code) for failure in reply.failed]


async def code_of(push: asyncio.Future[PushReply]) -> str:
    """Why a push to one key failed, told of the key or of the whole; empty = it did not.

    Over RPC an answer is not waited for much longer than the push itself, so that doubt may be
    told as the call's.
    """
    try:
        reply = await push
    except EnckeError as error:
        return error.code
    return reply.failed[0].code if reply.failed else ""


async def stored(core: Core, key: str) -> list[bytes]:
    """The payloads that the store has for a key."""
    page = await core.way.store.load_after(Key(key), 0, 1000, 1_000_000)  # type: ignore[arg-type]
    return [message.payload for message in page.messages]
