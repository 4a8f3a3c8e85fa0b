"""What earlier owners of a key still save: the new one hides none of it, and waits for none too long."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from cluster.contracts.message import SaveItem
from cluster.errors import StorageError
from cluster.mids import TICKS_PER_SECOND
from cluster.model import Mid
from comet.pushing.forwarding import MAX_IN_FLIGHT
from tests.comet.nodes import values
from tests.comet.pairs import ONE, THREE, TWO, forwarder_of, keys_of, running_nodes
from tests.support.eventually import eventually
from tests.support.registry import LateView

# One connection every second or so: those that wait stay for the length of a test.
SLOWLY = 1
BOTH = (ONE, TWO)

MOVED = keys_of(TWO, BOTH)


async def test_what_the_earlier_owner_had_accepted_reaches_subscribers_of_the_new_one(tmp_path: Path) -> None:
    async with running_nodes(tmp_path) as nodes:
        await nodes.start(ONE)
        key = MOVED[0]
        gate = nodes.ways[ONE].close_gate(key)
        accepted = nodes.push(ONE, key, "accepted")
        await eventually(lambda: nodes.ways[ONE].batches)
        await nodes.start(TWO)
        # One with resume, one without: it has been read for neither.
        bob = await nodes.subscribe(TWO, key, mid=0)
        old = await nodes.subscribe(TWO, key, version="")
        gate.set()
        assert (await accepted).failed == []
        assert values([await bob.next_document()]) == ["accepted"]
        assert (await old.next_document()).value["msg"] == '"accepted"'
        assert nodes.counted(TWO, "second_reads_total") == 1


async def test_an_unsaved_message_does_not_overtake_what_the_earlier_owner_has_saved(tmp_path: Path) -> None:
    async with running_nodes(tmp_path) as nodes:
        await nodes.start(ONE)
        key, other = MOVED[:2]
        # Keeps the new owner from reading again: the earlier one has not said that it is done.
        way = nodes.ways[ONE]
        gate = way.close_gate(key)
        accepted = nodes.push(ONE, key, "accepted")
        await eventually(lambda: way.batches)
        await nodes.start(TWO)
        forwarder = forwarder_of(nodes, TWO)
        bob = await nodes.subscribe(TWO, key, mid=0)
        await bob.beat()
        assert forwarder.must_read(key)
        # It reaches the store; the answer to the earlier owner is still on its way.
        assert [save.key for save in way.batches] == [key]
        await way.store.save(way.batches[0])
        assert (await nodes.push(TWO, key, "unsaved", 0)).online == [1]
        assert values(await bob.documents(2)) == ["accepted", "unsaved"]
        gate.set()
        assert (await accepted).failed == []
        assert not forwarder.must_read(other) or forwarder.is_active
        await eventually(lambda: not forwarder.is_active)


async def test_an_unsaved_message_behind_a_burst_does_not_hide_what_the_earlier_owner_is_saving(
    tmp_path: Path,
) -> None:
    async with running_nodes(tmp_path) as nodes:
        await nodes.start(ONE)
        key = MOVED[0]
        way = nodes.ways[ONE]
        gate = way.close_gate(key)
        accepted = nodes.push(ONE, key, "accepted")
        await eventually(lambda: way.batches)
        await nodes.start(TWO)
        bob = await nodes.subscribe(TWO, key, mid=0)
        await eventually(lambda: nodes.counted(TWO, "resuming") == 0)
        # What is stored runs ahead of the store's clock.
        ahead = Mid(await way.store.clock() + TICKS_PER_SECOND // 2)
        burst = replace(way.batches[0], items=[SaveItem("burst", b'"burst"', 600)], sent=ahead)
        await way.store.save(burst)
        unsaved = nodes.push(TWO, key, "unsaved", 0)
        first = await bob.next_document()
        assert values([first]) == ["burst"]
        # Right above the burst, where the unsaved message must not be yet.
        gate.set()
        assert (await accepted).failed == []
        rest = await bob.documents(2)
        assert sorted(values(rest)) == ["accepted", "unsaved"]
        assert first.mid < rest[0].mid < rest[1].mid
        assert (await unsaved).online == [1]


async def test_an_unsaved_message_does_not_wait_longer_than_its_push_for_the_stores_clock(
    tmp_path: Path,
) -> None:
    async with running_nodes(tmp_path) as nodes:
        await nodes.start(ONE)
        key = MOVED[0]
        gate = nodes.ways[ONE].close_gate(key)
        accepted = nodes.push(ONE, key, "accepted")
        await eventually(lambda: nodes.ways[ONE].batches)
        two = await nodes.start(TWO)
        bob = await nodes.subscribe(TWO, key)
        channel = two._hub.channel(key)
        assert channel is not None
        # The store's clock was set back by an hour.
        channel.cursor = Mid(channel.cursor + 3600 * TICKS_PER_SECOND)
        reply = await nodes.push(TWO, key, "unsaved", 0)
        assert [failed.code for failed in reply.failed] == ["unavailable"]
        gate.set()
        assert (await accepted).failed == []
        await eventually(lambda: not forwarder_of(nodes, TWO).must_read(key))
        assert (await nodes.push(TWO, key, "unsaved", 0)).online == [1]
        assert values([await bob.next_document()]) == ["unsaved"]


@pytest.mark.parametrize(
    ("failure", "code"), [(StorageError("down"), "unavailable"), (ZeroDivisionError("a bug"), "internal")]
)
async def test_an_unsaved_message_is_refused_when_the_store_cannot_tell_what_goes_before_it(
    tmp_path: Path, failure: Exception, code: str
) -> None:
    async with running_nodes(tmp_path) as nodes:
        await nodes.start(ONE)
        key = MOVED[0]
        gate = nodes.ways[ONE].close_gate(key)
        accepted = nodes.push(ONE, key, "accepted")
        await eventually(lambda: nodes.ways[ONE].batches)
        await nodes.start(TWO, store_timeout_s=0.2)
        bob = await nodes.subscribe(TWO, key)
        nodes.ways[TWO].load_refusals.extend(failure for _ in range(100))
        async with asyncio.timeout(10):
            reply = await nodes.push(TWO, key, "unsaved", 0)
        assert [failed.code for failed in reply.failed] == [code]
        nodes.ways[TWO].load_refusals.clear()
        gate.set()
        await accepted
        assert values([await bob.next_document()]) == ["accepted"]


async def test_the_new_owner_reads_again_when_an_owner_that_has_gone_is_fenced(tmp_path: Path) -> None:
    async with running_nodes(tmp_path) as nodes:
        await nodes.start(TWO)
        one = await nodes.start(ONE)
        key = keys_of(ONE, BOTH)[0]
        gate = nodes.ways[ONE].close_gate(key)
        lost = nodes.push(ONE, key, "too late")
        await eventually(lambda: nodes.ways[ONE].batches)
        # It dies; its save is still on the way.
        assert one._keys.entry._registration is not None
        await one._keys.entry._registration.withdraw()
        bob = await nodes.subscribe(TWO, key, mid=0)
        await eventually(lambda: nodes.counted(TWO, "second_reads_total") == 1)
        gate.set()
        assert [failure.code for failure in (await lost).failed] == ["not_owner"]
        assert (await nodes.push(TWO, key, "new")).online == [1]
        assert values([await bob.next_document()]) == ["new"]


async def test_messages_of_a_key_that_moves_twice_reach_all_who_held_it(tmp_path: Path) -> None:
    async with running_nodes(tmp_path) as nodes:
        everyone = (ONE, TWO, THREE)
        await nodes.start(ONE, close_pace_per_s=SLOWLY)
        # The third is there, and sees both changes; it takes keys with the second one.
        three = await nodes.start(THREE, weight=0)
        keys = [key for key in keys_of(THREE, everyone) if key in MOVED][:6]
        first = [await nodes.subscribe(ONE, key) for key in keys]
        await nodes.start(TWO, close_pace_per_s=SLOWLY)
        second = [await nodes.subscribe(TWO, key) for key in keys]
        assert three._keys.entry._registration is not None
        await three._keys.entry._registration.update(replace(three._keys.entry._info(), weight=1))
        assert (await nodes.push(THREE, keys[5], "far")).failed == []
        assert values([await first[5].next_document(), await second[5].next_document()]) == ["far", "far"]


async def test_an_earlier_owner_of_a_membership_that_was_not_seen_is_not_forgotten(tmp_path: Path) -> None:
    async with running_nodes(tmp_path) as nodes:
        await nodes.start(ONE)
        # It joins right behind another one: both changes are one to it.
        view = LateView(nodes.registry)
        await nodes.start(TWO, close_pace_per_s=SLOWLY)
        keys = [key for key in keys_of(THREE, (ONE, TWO, THREE)) if key in MOVED][:6]
        crowd = [await nodes.subscribe(TWO, one) for one in keys]
        gate = nodes.ways[TWO].close_gate(keys[0])
        accepted = nodes.push(TWO, keys[0], "accepted")
        await eventually(lambda: nodes.ways[TWO].batches)
        await nodes.start(THREE, view)
        view.catch_up()
        bob = await nodes.subscribe(THREE, keys[0], mid=0)
        assert (await nodes.push(THREE, keys[5], "stored")).failed == []
        assert (await nodes.push(THREE, keys[5], "unsaved", 0)).failed == []
        assert values(await crowd[5].documents(2)) == ["stored", "unsaved"]
        gate.set()
        assert (await accepted).failed == []
        assert values([await bob.next_document()]) == ["accepted"]


async def test_an_earlier_owner_that_left_at_once_with_another_is_not_forgotten(tmp_path: Path) -> None:
    async with running_nodes(tmp_path) as nodes:
        one = await nodes.start(ONE)
        two = await nodes.start(TWO, close_pace_per_s=SLOWLY)
        view = LateView(nodes.registry)
        view.catch_up()
        await nodes.start(THREE, view)
        everyone = (ONE, TWO, THREE)
        first = keys_of(ONE, everyone)
        keys = [key for key in keys_of(TWO, (TWO, THREE)) if key in first][:6]
        view.hold()
        for leaving in (one, two):
            # Out of the ring, and still there, as one that drains.
            assert leaving._keys.entry._registration is not None
            entry = replace(leaving._keys.entry._info(), is_draining=True)
            await leaving._keys.entry._registration.update(entry)
            if leaving is one:
                crowd = [await nodes.subscribe(TWO, key) for key in keys]
        view.catch_up()
        assert (await nodes.push(THREE, keys[5], "unsaved", 0)).failed == []
        assert values([await crowd[5].next_document()]) == ["unsaved"]


@pytest.mark.parametrize("comes_back", [False, True])
async def test_an_unsaved_message_does_not_hide_what_another_earlier_owner_could_not_forward(
    tmp_path: Path, comes_back: bool
) -> None:
    async with running_nodes(tmp_path) as nodes:
        await nodes.start(ONE, close_pace_per_s=SLOWLY)
        three = await nodes.start(THREE, weight=0)
        keys = [key for key in keys_of(THREE, (ONE, TWO, THREE)) if key in MOVED][:6]
        key = keys[5]
        crowd = [await nodes.subscribe(ONE, one) for one in keys]
        await nodes.start(TWO)
        assert three._keys.entry._registration is not None
        last, but_one = (TWO, THREE) if comes_back else (THREE, TWO)
        if comes_back:
            await nodes.push(TWO, key, "known")
            await three._keys.entry._registration.update(replace(three._keys.entry._info(), weight=1))
        (owner,) = (
            one for one in forwarder_of(nodes, but_one).earlier_owners(key) if one.instance.startswith(ONE)
        )
        owner.in_flight += MAX_IN_FLIGHT
        assert (await nodes.push(but_one, key, "not forwarded")).failed == []
        await three._keys.entry._registration.update(
            replace(three._keys.entry._info(), weight=int(not comes_back))
        )
        assert (await nodes.push(last, key, "unsaved", 0)).failed == []
        expected = [*(["known"] if comes_back else []), "not forwarded", "unsaved"]
        assert values(await crowd[5].documents(len(expected))) == expected


async def test_a_node_that_drains_is_not_asked_over_and_over_whether_it_is_done(tmp_path: Path) -> None:
    async with running_nodes(tmp_path) as nodes:
        one = await nodes.start(ONE, close_pace_per_s=10)
        await nodes.start(TWO)
        for key in keys_of(ONE, BOTH)[:12]:
            await nodes.subscribe(ONE, key)
        await one.drain(5.0)
        assert nodes.counted(ONE, "closes_total", "draining") == 12
        # Without a pause it is thousands.
        assert nodes.counted(ONE, "rpc_server_calls_total") < 50
