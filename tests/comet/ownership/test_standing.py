"""A node that may have lost its keys unawares asks the store; it stops when they are lost or nobody tells."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from cluster.contracts.comet import Push, PushReply
from cluster.errors import NotOwnerError, StorageError, UnavailableError
from cluster.model import Key
from cluster.registry.base import SessionState
from cluster.rpc.config import RpcConfig
from comet.ownership.standing import FRESH_S
from tests.comet.nodes import Core, running_core, values
from tests.support.eventually import eventually
from tests.support.registry import ShakyRegistry

TIMEOUT_S = 0.3
NOBODY_TELLS = 10_000


@asynccontextmanager
async def running(tmp_path: Path, timeout_s: float = TIMEOUT_S) -> AsyncIterator[tuple[Core, ShakyRegistry]]:
    registry = ShakyRegistry(timeout_s)
    async with running_core(tmp_path, registry=registry, rpc=RpcConfig()) as core:
        yield core, registry


def incarnation(core: Core) -> str:
    return core.node._keys.entry.incarnation()


async def fence(core: Core) -> None:
    await core.way.store.fence(incarnation(core))  # type: ignore[attr-defined]


def stop_the_loop(seconds: float) -> None:
    """As SIGSTOP and SIGCONT do: nothing of this process runs meanwhile."""
    time.sleep(seconds)


async def refusal_of(core: Core, expire_s: int = 0) -> type[Exception] | str:
    """What becomes of a push to bob."""
    try:
        reply = await core.push("bob", "x", expire_s=expire_s)
    except Exception as error:
        return type(error)
    return reply.failed[0].code if reply.failed else "done"


async def test_a_registry_that_is_away_disconnects_nobody_and_delays_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as (core, registry):
        bob = await core.subscribe("bob")
        registry.become(SessionState.SUSPENDED)
        for number in range(8):
            assert (await core.push("bob", number)).online == [1]
            await asyncio.sleep(TIMEOUT_S / 4)
        assert core.node.ready_fault() is None
        assert values(await bob.documents(8)) == list(range(8))
        registry.become(SessionState.CONNECTED)
        assert (await core.push("bob", 8)).online == [1]


async def test_a_node_that_is_fenced_while_the_registry_is_away_delivers_nothing_from_then_on(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, timeout_s=30.0) as (core, registry):
        bob = await core.subscribe("bob")
        registry.become(SessionState.SUSPENDED)
        assert await refusal_of(core) == "done"
        # Longer than an answer holds.
        stop_the_loop(2 * FRESH_S)
        await fence(core)
        assert await refusal_of(core) is NotOwnerError
        assert len(await bob.documents(1)) == 1
        assert (await bob.end()).code == 4001


async def test_a_push_that_waits_while_the_registry_comes_back_is_done(tmp_path: Path) -> None:
    async with running(tmp_path, timeout_s=30.0) as (core, registry):
        bob = await core.subscribe("bob")
        registry.become(SessionState.SUSPENDED)
        pushed = core.push("bob", "x")
        assert not pushed.done()
        registry.become(SessionState.CONNECTED)
        assert (await pushed).online == [1]
        assert values(await bob.documents(1)) == ["x"]


async def test_a_node_that_is_fenced_while_the_registry_is_away_sends_its_subscribers_away(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as (core, registry):
        bob = await core.subscribe("bob")
        registry.become(SessionState.SUSPENDED)
        await fence(core)
        assert (await bob.end()).code == 4001
        assert await refusal_of(core) is NotOwnerError
        assert core.node.ready_fault() == "serves nobody: its registration has ended"
        assert (await core.node.status()).fault == core.node.ready_fault()
        # Also under a membership that it cannot know of.
        newer = Push([Key("bob")], b"1", 0, "p", 0, 5.0, (9, 9))
        with pytest.raises(NotOwnerError):
            await core.node.push(newer)
        with pytest.raises(NotOwnerError):
            await core.node.delete_key(Key("bob"), (9, 9))


@pytest.mark.parametrize("failure", [StorageError("down"), ZeroDivisionError("a bug")])
async def test_a_node_whom_nobody_answers_for_a_session_timeout_stops_until_somebody_does(
    tmp_path: Path, failure: Exception
) -> None:
    async with running(tmp_path) as (core, registry):
        bob = await core.subscribe("bob")
        core.way.fence_refusals.extend([failure] * NOBODY_TELLS)
        registry.become(SessionState.SUSPENDED)
        began = time.monotonic()
        assert (await bob.end()).code == 4001
        assert time.monotonic() - began >= TIMEOUT_S
        assert await refusal_of(core) is NotOwnerError
        fault = "serves nobody: neither the registry nor a message node answers"
        assert core.node.ready_fault() == fault
        # Not fenced: nobody else had the keys meanwhile.
        core.way.fence_refusals.clear()
        await eventually(lambda: core.node._keys.ownership.owns(Key("bob")))
        assert core.node.ready_fault() is None
        again = await core.subscribe("bob")
        assert (await core.push("bob", "back")).online == [1]
        assert values([await again.next_document()]) == ["back"]


async def test_a_node_whom_nobody_answered_goes_on_when_the_registry_is_back(tmp_path: Path) -> None:
    async with running(tmp_path) as (core, registry):
        core.way.fence_refusals.extend([StorageError("down")] * NOBODY_TELLS)
        registry.become(SessionState.SUSPENDED)
        await eventually(lambda: not core.node._keys.ownership.owns(Key("bob")))
        registry.become(SessionState.CONNECTED)
        await eventually(lambda: core.node._keys.ownership.owns(Key("bob")))
        assert await refusal_of(core) == "done"


async def test_after_a_pause_a_push_waits_until_it_is_known_that_the_node_is_registered(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as (core, _):
        bob = await core.subscribe("bob")
        stop_the_loop(TIMEOUT_S)
        push = core.push("bob", "late")
        assert not push.done()
        assert (await push).online == [1]
        assert values([await bob.next_document()]) == ["late"]


@pytest.mark.parametrize("expire_s", [0, 600])
async def test_after_a_pause_in_which_it_was_fenced_a_node_delivers_nothing(
    tmp_path: Path, expire_s: int
) -> None:
    async with running(tmp_path) as (core, registry):
        bob = await core.subscribe("bob")
        await fence(core)
        # As kazoo does on its own time: it has not noticed yet that the session is over.
        registry._state = SessionState.SUSPENDED
        stop_the_loop(TIMEOUT_S)
        assert await refusal_of(core, expire_s) is NotOwnerError
        assert ((await bob.end()).code, bob.last_mid) == (4001, 0)


async def test_what_waited_behind_a_save_that_the_fence_refuses_is_not_delivered_either(
    tmp_path: Path,
) -> None:
    # A session so long that only the fence tells.
    async with running(tmp_path, timeout_s=60.0) as (core, registry):
        bob = await core.subscribe("bob")
        gate = core.way.close_gate("bob")
        stored = core.push("bob", "stored", expire_s=600)
        unsaved = core.push("bob", "unsaved")
        await fence(core)
        gate.set()
        assert [(await push).failed[0].code for push in (stored, unsaved)] == ["not_owner", "not_owner"]
        assert ((await bob.end()).code, bob.last_mid) == (4001, 0)
        assert registry.session is SessionState.CONNECTED


async def test_a_save_in_doubt_is_not_said_to_be_refused_when_its_repeat_meets_the_fence(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, timeout_s=60.0) as (core, _):
        core.way.answers_to_lose = NOBODY_TELLS
        push = core.push("bob", "stored", expire_s=600)
        await eventually(lambda: core.way.answers_to_lose < NOBODY_TELLS)
        await fence(core)
        assert [failure.code for failure in (await push).failed] == ["in_doubt"]
        assert (await core.way.store.inspect(Key("bob"))).messages == 1


async def test_a_push_that_waited_until_nobody_told_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as (core, registry):
        core.way.fence_refusals.extend([StorageError("down")] * NOBODY_TELLS)
        registry._state = SessionState.SUSPENDED
        stop_the_loop(TIMEOUT_S)
        short = core.node.push(Push([Key("bob")], b"1", 0, "p", 0, 0.0, (0, 0)))
        deletion = asyncio.ensure_future(core.node.delete_key(Key("bob"), (0, 0)))
        outcomes = await asyncio.gather(short, deletion, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [NotOwnerError, NotOwnerError]


async def test_a_node_that_stops_answers_those_who_wait(tmp_path: Path) -> None:
    waiting: asyncio.Future[PushReply]
    async with running(tmp_path) as (core, registry):
        core.way.fence_refusals.extend([StorageError("down")] * NOBODY_TELLS)
        registry._state = SessionState.SUSPENDED
        stop_the_loop(TIMEOUT_S)
        waiting = core.push("bob", 1)
        await asyncio.sleep(0)
    # What comes now does not wait either.
    for push in (waiting, core.push("bob", 2)):
        with pytest.raises(UnavailableError):
            await push


async def test_a_node_that_is_fenced_while_it_is_listed_registers_anew(tmp_path: Path) -> None:
    async with running(tmp_path) as (core, _):
        bob = await core.subscribe("bob")
        before = incarnation(core)
        await fence(core)
        assert await refusal_of(core, expire_s=600) == "not_owner"
        assert (await bob.end()).code == 4001
        await eventually(lambda: incarnation(core) != before)
        await eventually(lambda: core.node._keys.ownership.owns(Key("bob")))
        assert core.node.ready_fault() is None
        assert await refusal_of(core, expire_s=600) == "done"


async def test_a_drain_does_not_wait_for_a_registration_that_does_not_come_about(tmp_path: Path) -> None:
    async with running(tmp_path) as (core, registry):
        registry.takes.clear()
        await fence(core)
        assert await refusal_of(core, expire_s=600) == "not_owner"
        await eventually(lambda: registry.waiting)
        async with asyncio.timeout(20.0):
            await core.node.drain(1.0)


async def test_a_session_that_has_ended_takes_the_keys_until_the_node_is_registered_anew(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as (core, registry):
        bob = await core.subscribe("bob")
        registry.become(SessionState.LOST)
        assert (await bob.end()).code == 4001
        assert await refusal_of(core) is NotOwnerError
        # The registry is still full of the old entry.
        await registry.register(replace(core.node._keys.entry._info(), is_draining=True))
        assert await refusal_of(core) is NotOwnerError
        registry.become(SessionState.CONNECTED)
        await eventually(lambda: core.node._keys.ownership.owns(Key("bob")))
        assert await refusal_of(core) == "done"


async def test_a_bug_that_ends_the_watching_ends_the_node_and_nobody_waits_for_it(tmp_path: Path) -> None:
    async with running(tmp_path) as (core, registry):

        def fail() -> None:
            raise ZeroDivisionError("a bug")

        assert core.node._keys.standing is not None
        core.node._keys.standing._on_change = fail
        running_on = asyncio.create_task(core.node.run())
        registry.become(SessionState.SUSPENDED)
        await fence(core)
        with pytest.raises(ZeroDivisionError):
            await running_on
        # Nobody would notice that the keys are somebody else's.
        assert await refusal_of(core) is NotOwnerError
        stop_the_loop(TIMEOUT_S)
        assert await refusal_of(core) is NotOwnerError
