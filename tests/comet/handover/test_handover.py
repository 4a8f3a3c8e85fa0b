"""Keys that move: what the new owner delivers reaches those who were not sent away yet; nothing is missed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from cluster.contracts.comet import Push
from cluster.errors import StorageError
from comet.pushing.forwarding import MAX_IN_FLIGHT
from tests.comet.nodes import values
from tests.comet.pairs import ONE, TWO, forwarder_of, keys_of, running_nodes
from tests.support.eventually import eventually
from tests.support.registry import LateView

# One connection every second or so: those that wait stay for the length of a test.
SLOWLY = 1
BOTH = (ONE, TWO)

MOVED = keys_of(TWO, BOTH)


async def test_messages_of_a_moved_key_reach_the_connections_that_are_left_in_order(tmp_path: Path) -> None:
    async with running_nodes(tmp_path) as nodes:
        await nodes.start(ONE, close_pace_per_s=SLOWLY)
        crowd = [await nodes.subscribe(ONE, key) for key in MOVED[:8]]
        key = MOVED[7]
        await nodes.push(ONE, key, "before")
        await nodes.start(TWO)
        for number in range(6):
            # Stored and unsaved ones in turns; nobody is connected to the new owner.
            assert (await nodes.push(TWO, key, number, 600 * (number % 2))).failed == []
        bob = crowd[7]
        documents = await bob.documents(7)
        assert values(documents) == ["before", 0, 1, 2, 3, 4, 5]
        mids = [document.mid for document in documents]
        assert mids == sorted(set(mids))
        await eventually(lambda: nodes.counted(TWO, "forwards_total", "ok") == 6)


async def test_a_push_that_waited_for_the_membership_finds_the_forwarder_ready(tmp_path: Path) -> None:
    async with running_nodes(tmp_path) as nodes:
        one = await nodes.start(ONE, close_pace_per_s=SLOWLY)
        view = LateView(nodes.registry)
        view.catch_up()
        two = await nodes.start(TWO, view, weight=0)
        crowd = [await nodes.subscribe(ONE, key) for key in MOVED[:8]]
        view.hold()
        assert two._keys.entry._registration is not None
        await two._keys.entry._registration.update(replace(two._keys.entry._info(), weight=1))
        waiting = two.push(Push([MOVED[7]], b"1", 0, "early", 0, 10.0, one._keys.ownership.holdings.epoch))
        assert not waiting.done()
        view.catch_up()
        assert (await waiting).failed == []
        assert values([await crowd[7].next_document()]) == [1]


async def test_a_key_without_connections_elsewhere_is_forwarded_once(tmp_path: Path) -> None:
    async with running_nodes(tmp_path) as nodes:
        await nodes.start(ONE, close_pace_per_s=SLOWLY)
        for key in MOVED[:8]:
            await nodes.subscribe(ONE, key)
        await nodes.start(TWO)
        assert nodes.counted(TWO, "earlier_owners") == 1
        for _ in range(3):
            await nodes.push(TWO, MOVED[9], "nobody", 0)
            await eventually(lambda: nodes.counted(TWO, "forwards_total", "ok") == 1)
        # A key that it does not gain from anybody.
        await nodes.push(ONE, keys_of(ONE, BOTH)[0], "mine", 0)
        assert nodes.counted(ONE, "forwards_total") == 0


async def test_forwarding_ends_when_the_earlier_owner_has_closed_all_connections_of_lost_keys(
    tmp_path: Path,
) -> None:
    async with running_nodes(tmp_path) as nodes:
        await nodes.start(ONE)
        lost = [await nodes.subscribe(ONE, key) for key in MOVED[:3]]
        kept = await nodes.subscribe(ONE, keys_of(ONE, BOTH)[0])
        await nodes.start(TWO)
        for subscriber in lost:
            assert (await subscriber.end()).code == 4001
        await eventually(lambda: not forwarder_of(nodes, TWO).is_active)
        assert nodes.counted(TWO, "earlier_owners") == 0
        await kept.beat()


@pytest.mark.parametrize("expire_s", [0, 600])
async def test_a_forward_after_one_that_was_dropped_has_the_store_read_first(
    tmp_path: Path, expire_s: int
) -> None:
    async with running_nodes(tmp_path) as nodes:
        await nodes.start(ONE, close_pace_per_s=SLOWLY)
        crowd = [await nodes.subscribe(ONE, key) for key in MOVED[:8]]
        await nodes.start(TWO)
        (owner,) = forwarder_of(nodes, TWO).earlier_owners(MOVED[7])
        owner.in_flight += MAX_IN_FLIGHT
        await nodes.push(TWO, MOVED[7], "dropped")
        owner.in_flight -= MAX_IN_FLIGHT
        await nodes.push(TWO, MOVED[7], "next", expire_s)
        await nodes.push(TWO, MOVED[7], "last")
        assert values(await crowd[7].documents(3)) == ["dropped", "next", "last"]
        assert nodes.counted(ONE, "holes_filled_total") == 1
        assert nodes.counted(TWO, "forwards_total", "dropped") == 1


@pytest.mark.parametrize("failure", [StorageError("down"), ZeroDivisionError("a bug")])
async def test_a_forward_behind_a_hole_that_cannot_be_filled_closes_the_connections(
    tmp_path: Path, failure: Exception
) -> None:
    async with running_nodes(tmp_path) as nodes:
        await nodes.start(ONE, close_pace_per_s=SLOWLY, store_timeout_s=0.2)
        crowd = [await nodes.subscribe(ONE, key) for key in MOVED[:8]]
        await nodes.start(TWO)
        (owner,) = forwarder_of(nodes, TWO).earlier_owners(MOVED[7])
        owner.in_flight += MAX_IN_FLIGHT
        await nodes.push(TWO, MOVED[7], "dropped")
        owner.in_flight -= MAX_IN_FLIGHT
        nodes.ways[ONE].load_refusals.extend(failure for _ in range(100))
        await nodes.push(TWO, MOVED[7], "next")
        await crowd[7].end()
        nodes.ways[ONE].load_refusals.clear()
        assert nodes.counted(ONE, "closes_total", "internal") == 1
        assert nodes.counted(ONE, "holes_filled_total") == 0


async def test_a_repeat_does_not_hide_that_a_later_forward_was_dropped(tmp_path: Path) -> None:
    async with running_nodes(tmp_path) as nodes:
        await nodes.start(ONE, close_pace_per_s=SLOWLY)
        crowd = [await nodes.subscribe(ONE, key) for key in MOVED[:8]]
        await nodes.start(TWO)
        (owner,) = forwarder_of(nodes, TWO).earlier_owners(MOVED[7])
        await nodes.push(TWO, MOVED[7], "first", push_id="mine")
        owner.in_flight += MAX_IN_FLIGHT
        await nodes.push(TWO, MOVED[7], "dropped")
        owner.in_flight -= MAX_IN_FLIGHT
        await nodes.push(TWO, MOVED[7], "first", push_id="mine")
        await nodes.push(TWO, MOVED[7], "next", 0)
        await nodes.push(TWO, MOVED[7], "last")
        assert values(await crowd[7].documents(4)) == ["first", "dropped", "next", "last"]


async def test_a_forward_that_fails_fails_no_push(tmp_path: Path) -> None:
    async with running_nodes(tmp_path) as nodes:
        one = await nodes.start(ONE, close_pace_per_s=SLOWLY)
        crowd = [await nodes.subscribe(ONE, key) for key in MOVED[:8]]
        await nodes.start(TWO)
        await nodes.push(TWO, MOVED[7], "forwarded")
        assert values([await crowd[7].next_document()]) == ["forwarded"]
        assert one._rpc is not None
        await one._rpc.stop(0.0)
        assert (await nodes.push(TWO, MOVED[7], "stored")).failed == []
        assert (await nodes.push(TWO, MOVED[7], "unsaved", 0)).failed == []
        await eventually(lambda: nodes.counted(TWO, "forwards_total", "failed") == 2)
        # They resume at the new owner when they are sent away.
        assert (await crowd[0].end()).code == 4001
        again = await nodes.subscribe(TWO, MOVED[7], mid=0)
        assert values(await again.documents(2)) == ["forwarded", "stored"]


async def test_an_acknowledgement_that_comes_while_the_key_is_deleted_does_not_outlive_it(
    tmp_path: Path,
) -> None:
    async with running_nodes(tmp_path) as nodes:
        await nodes.start(ONE, close_pace_per_s=SLOWLY)
        for key in MOVED[:8]:
            await nodes.subscribe(ONE, key)
        two = await nodes.start(TWO, acknowledge_interval_s=60.0)
        key, way = MOVED[7], nodes.ways[TWO]
        bob = await nodes.subscribe(TWO, key, device="phone")
        mid = (await nodes.push(TWO, key, "last")).mids[0]
        await bob.next_document()
        await eventually(lambda: nodes.counted(TWO, "second_reads_total") == 1)
        gate = way.close_gate(key)
        deleting = asyncio.ensure_future(two.delete_key(key, two._keys.ownership.holdings.epoch))
        await eventually(lambda: way.loads_waiting)
        await bob.acknowledge(mid)
        await bob.beat()
        gate.set()
        assert await deleting == 1
        await two._acknowledgements.stop()
        assert way.acknowledged_writes.empty()
        assert await nodes.store.acknowledged(key, "phone") == 0


async def test_deleting_a_moved_key_closes_the_connections_that_are_left(tmp_path: Path) -> None:
    async with running_nodes(tmp_path) as nodes:
        await nodes.start(ONE, close_pace_per_s=SLOWLY)
        crowd = [await nodes.subscribe(ONE, key) for key in MOVED[:8]]
        two = await nodes.start(TWO)
        await nodes.push(TWO, MOVED[7], "last")
        assert await two.delete_key(MOVED[7], two._keys.ownership.holdings.epoch) == 1
        assert values([await crowd[7].next_document()]) == ["last"]
        assert (await crowd[7].end()).code == 4004
