"""An earlier owner of keys, as the new one sees it."""

from __future__ import annotations

import asyncio

import pytest

from cluster.contracts.handover import Forward, Held
from cluster.errors import OverloadedError, UnavailableError
from cluster.mids import STEP
from cluster.model import Key, Mid
from tests.comet.comet_suite.ground import (
    KEPT,
    LOST,
    Ground,
    Open,
    assert_refused,
    epoch_of,
    join,
    next_epoch,
)
from tests.comet.nodes import Core, values
from tests.support.eventually import eventually

BOB = Key("bob")
NEWS_WAIT_S = 0.05
# One connection every second or so: those that wait stay for the length of a test.
SLOWLY = 1


async def forward_of(core: Core, payload: bytes = b"1", *, key: str = BOB, above: int = 0) -> Forward:
    """What the new owner has delivered now, without the store."""
    return Forward(Key(key), Mid(await core.way.store.clock() + above * STEP), payload, False, Mid(0))


class HandingOver(Ground):
    """Part of the suite."""

    async def test_forward_is_delivered_and_tells_who_is_left(self, core: Core) -> None:
        first, second = await core.subscribe("bob"), await core.subscribe("bob")
        message = await forward_of(core)

        assert await core.handover.forward(message) == Held(epoch_of(core), 2)

        for subscriber in (first, second):
            document = await subscriber.next_document()
            assert (document.mid, document.value["msg"]) == (message.mid, 1)

    async def test_forward_for_nobody_tells_so(self, core: Core) -> None:
        assert await core.handover.forward(await forward_of(core)) == Held(epoch_of(core), 0)

    async def test_forward_at_or_below_what_was_delivered_is_passed_over(self, core: Core) -> None:
        bob = await core.subscribe("bob")
        message = await forward_of(core, above=1)
        for again in (message, message, Forward(BOB, Mid(message.mid - STEP), b"0", False, Mid(0))):
            assert (await core.handover.forward(again)).connections == 1

        assert values([await bob.next_document()]) == [1]
        await bob.beat()
        assert core.comet.counted("drops_total", "late") == 2

    async def test_forward_behind_something_missed_has_the_store_read_first_and_the_next_ones_wait(
        self, core: Core
    ) -> None:
        bob = await core.subscribe("bob")
        (missed,) = await core.save_elsewhere("bob", "missed")
        gate = core.way.close_gate("bob")
        forwards = [
            core.handover.forward(Forward(BOB, Mid(missed + n * STEP), b"%d" % n, n == 2, Mid(missed)))
            for n in (1, 2, 3)
        ]
        await eventually(lambda: core.way.loads_waiting and len(core.node._keys.pusher._outcomes) == 3)
        await bob.beat()
        assert not any(forward.done() for forward in forwards)

        gate.set()

        assert [(await forward).connections for forward in forwards] == [1, 1, 1]
        documents = await bob.documents(4)
        assert values(documents) == ["missed", 1, 2, 3]
        assert [document.mid for document in documents] == [missed + n * STEP for n in range(4)]

    async def test_forward_behind_too_much_is_refused(self, opened: Open) -> None:
        async with opened(max_queue_per_key=2) as core:
            await core.subscribe("bob")
            gate = core.way.close_gate("bob")
            pushes = [core.push("bob", n, expire_s=600) for n in range(2)]
            await eventually(lambda: core.comet.counted("pending_keys") == 2)

            await assert_refused(core.handover.forward(await forward_of(core)), OverloadedError)
            await assert_refused(core.handover.close_key(BOB), OverloadedError)

            gate.set()
            for push in pushes:
                assert (await push).failed == []

    async def test_closing_a_deleted_key_closes_who_is_left_at_its_turn(self, core: Core) -> None:
        bob, alice = await core.subscribe("bob"), await core.subscribe("alice")
        gate = core.way.close_gate("bob")
        push = core.push("bob", "before", expire_s=600)
        await eventually(lambda: core.way.batches)
        closing = core.handover.close_key(BOB)
        await core.service.status()
        assert not closing.done()

        gate.set()

        assert await closing == Held(epoch_of(core), 0)
        assert (await push).online == [1]
        assert values([await bob.next_document()]) == ["before"]
        assert (await bob.end()).code == 4004
        await alice.beat()

    async def test_forward_behind_a_hole_that_cannot_be_filled_leaves_nobody(self, core: Core) -> None:
        bob = await core.subscribe_websocket("bob")
        (missed,) = await core.save_elsewhere("bob", "missed")
        core.way.load_failures["bob"] = ZeroDivisionError("a bug")
        message = Forward(BOB, Mid(missed + STEP), b'"next"', False, Mid(missed))

        assert (await core.handover.forward(message)).connections == 0

        assert (await bob.end()).code == 1011

    async def test_which_keys_are_still_saved_for(self, core: Core) -> None:
        gates = [core.way.close_gate(key) for key in (LOST[0], LOST[1], KEPT[0])]
        pushes = [core.push(key, 1, expire_s=600) for key in (LOST[0], LOST[1], KEPT[0])]
        await eventually(lambda: len(core.way.batches) == 3)
        await join(core)

        assert sorted(await core.handover.still_saving(epoch_of(core))) == sorted(LOST[:2])
        gates[0].set()
        assert (await pushes[0]).failed == []
        assert await core.handover.still_saving(epoch_of(core)) == [LOST[1]]
        waiting = asyncio.ensure_future(core.handover.still_saving(epoch_of(core)))
        await core.service.status()
        # It waits a little for what is nearly done.
        gates[1].set()
        assert await waiting == []

        gates[2].set()
        for push in pushes[1:]:
            assert (await push).failed == []

    async def test_whether_all_connections_of_lost_keys_are_closed(self, opened: Open) -> None:
        async with opened(close_pace_per_s=SLOWLY) as core:
            lost = [await core.subscribe(key) for key in LOST[:4]]
            kept = await core.subscribe(KEPT[0])
            assert await core.handover.release(epoch_of(core)) is True
            await join(core)

            assert await core.handover.release(epoch_of(core)) is False

            assert (await lost[0].end()).code == 4001
            await lost[3].beat()
            await kept.beat()

    async def test_node_waits_a_little_for_the_last_connections_to_be_closed(self, core: Core) -> None:
        lost = [await core.subscribe(key) for key in LOST[:4]]
        await join(core)

        assert await core.handover.release(epoch_of(core)) is True

        for subscriber in lost:
            assert (await subscriber.end()).code == 4001

    async def test_what_is_asked_under_a_membership_that_does_not_come_is_unavailable(
        self, opened: Open
    ) -> None:
        async with opened(membership_wait_s=NEWS_WAIT_S) as core:
            newer = next_epoch(core)
            await assert_refused(core.handover.still_saving(newer), UnavailableError)
            await assert_refused(core.handover.release(newer), UnavailableError)
            await join(core)
            assert epoch_of(core) == newer
            assert await core.handover.still_saving(newer) == []
            assert await core.handover.release(newer) is True

    async def test_too_many_keys_in_progress_are_not_told(
        self, core: Core, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("comet.handover.yielding.MAX_SAVING", 1)
        gates = [core.way.close_gate(key) for key in LOST[:2]]
        pushes = [core.push(key, 1, expire_s=600) for key in LOST[:2]]
        await eventually(lambda: len(core.way.batches) == 2)
        await join(core)

        await assert_refused(core.handover.still_saving(epoch_of(core)), OverloadedError)

        for gate, push in zip(gates, pushes, strict=True):
            gate.set()
            assert (await push).failed == []
