"""comet/subscribers/catchup.py: first what is stored, then what was held meanwhile, then what is live."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.contracts.message import Page
from cluster.errors import RemoteProtocolError, StorageError, UnavailableError
from cluster.mids import TICKS_PER_SECOND
from cluster.model import Key, Message, Mid
from cluster.stats import Stats
from cluster.storeclocks import StoreClocks
from comet.config import CometConfig
from comet.metrics import CometMetrics
from comet.subscribers.catchup import HELD_OVERHEAD_BYTES, CatchUp, Resumer
from comet.subscribers.channel import Channel
from comet.subscribers.outgoing import Outgoing
from tests.comet.nodes import running_core, values
from tests.comet.parts import make_connection
from tests.support.eventually import eventually
from tests.support.subscriber import End


def outgoing(mid: int, *, is_stored: bool = True) -> Outgoing:
    return Outgoing(Mid(mid), b"%d" % mid, is_stored)


def page(*mids: int, has_more: bool = False) -> Page:
    return Page([Message(Mid(mid), b"%d" % mid) for mid in mids], has_more, Mid(0), Mid(1000))


def test_a_merge_interleaves_by_mid_and_drops_repeats() -> None:
    catch_up = CatchUp(10_000, CometMetrics(Stats()), Mid(0))
    for mid in (2, 3, 5, 6):
        catch_up.hold(outgoing(mid))
    merged = catch_up.merge(page(1, 3, 4, has_more=True), Mid(0))
    assert [m.mid for m in merged] == [1, 2, 3, 4]
    merged = catch_up.merge(page(5), Mid(4))
    assert [m.mid for m in merged] == [5, 6]


def test_over_the_bound_held_messages_are_dropped_and_the_unsaved_ones_counted() -> None:
    metrics = CometMetrics(Stats())
    catch_up = CatchUp(3 * (HELD_OVERHEAD_BYTES + 1), metrics, Mid(0))
    catch_up.hold(outgoing(1, is_stored=False))
    catch_up.hold(outgoing(2))
    catch_up.hold(outgoing(3))
    catch_up.hold(outgoing(4))
    assert catch_up.has_overflowed
    assert metrics.drops.value == 1
    # What is held may have a hole before it: it must not come behind the page.
    merged = catch_up.merge(page(1), Mid(0))
    assert [m.mid for m in merged] == [1]


@pytest.mark.parametrize("transport", ["tcp", "ws"])
async def test_stored_messages_come_first_then_held_ones_then_live_ones(
    tmp_path: Path, transport: str
) -> None:
    async with running_core(tmp_path, resume_page_messages=3) as core:
        for n in range(10):
            await core.push("bob", n, expire_s=600)
        gate = core.way.close_gate("bob")
        if transport == "tcp":
            bob = await core.subscribe("bob", mid=0)
        else:
            bob = await core.subscribe_websocket("bob", mid=0)
        assert (await core.push("bob", "unsaved while held")).online == [1]
        gate.set()
        # Earlier it could come both ways: read, and skipped as a live message that was sent already.
        await eventually(lambda: core.comet.counted("resuming") == 0)
        await core.push("bob", "live", expire_s=600)
        documents = await bob.documents(12)
        assert values(documents) == [*range(10), "unsaved while held", "live"]
        mids = [document.mid for document in documents]
        assert mids == sorted(set(mids))
        assert core.comet.counted("deliveries_total") == 12


async def test_a_resume_begins_above_the_given_mid(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        mids = [(await core.push("bob", n, expire_s=600)).mids[0] for n in range(5)]
        bob = await core.subscribe("bob", mid=mids[2])
        assert values(await bob.documents(2)) == [3, 4]
        await bob.beat()


async def test_a_claim_to_have_seen_the_future_does_not_hide_live_messages(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        bob = await core.subscribe("bob", mid=2**62)
        await eventually(lambda: core.comet.counted("resuming") == 0)
        await core.push("bob", "saved", expire_s=600)
        await core.push("bob", "unsaved")
        assert values(await bob.documents(2)) == ["saved", "unsaved"]


async def test_more_held_than_the_bound_is_read_again_from_the_store(tmp_path: Path) -> None:
    async with running_core(tmp_path, resume_hold_bytes=4096) as core:
        await core.push("bob", "first", expire_s=600)
        gate = core.way.close_gate("bob")
        bob = await core.subscribe("bob", mid=0)
        await eventually(lambda: core.way.loads_waiting)
        # Saves must pass while the load waits.
        del core.way.gates["bob"]
        for n in range(20):
            await core.push("bob", f"{n:1000}", expire_s=600)
        gate.set()
        documents = await bob.documents(21)
        assert [value.strip() for value in values(documents)] == ["first", *map(str, range(20))]
        await core.push("bob", "live")
        assert values([await bob.next_document()]) == ["live"]


async def test_a_subscriber_below_version_2_is_replayed_nothing(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        await core.push("bob", "old", expire_s=600)
        bob = await core.subscribe("bob", version="1.0")
        await core.push("bob", "new", expire_s=600)
        assert values([await bob.next_document()]) == ["new"]


async def test_a_store_that_does_not_answer_ends_the_connection_with_a_reason(tmp_path: Path) -> None:
    async with running_core(tmp_path, store_timeout_s=0.05) as core:
        core.way.close_gate("bob")
        bob = await core.subscribe_websocket("bob", mid=0)
        assert (await bob.end()).code == 1011


async def test_a_reader_that_stops_while_it_catches_up_is_closed_as_slow(tmp_path: Path) -> None:
    async with running_core(tmp_path, resume_stall_s=0.1, linger_s=0.1) as core:
        for n in range(30):
            await core.push("bob", "x" * 100_000 + str(n), expire_s=600)
        await core.subscribe("bob", mid=0, receive_buffer_bytes=2048)
        await eventually(lambda: core.comet.counted("closes_total", "slow_consumer") == 1)


async def test_a_message_that_the_subscriber_has_already_is_not_repeated_when_it_is_delivered_late(
    tmp_path: Path,
) -> None:
    async with running_core(tmp_path) as core:
        # Somebody else of the key is online, so that what was saved elsewhere is a hole to be filled.
        other = await core.subscribe("bob")
        (elsewhere,) = await core.save_elsewhere("bob", "known to bob from the other node")
        gate = core.way.close_gate("bob")
        bob = await core.subscribe("bob", mid=elsewhere)
        await eventually(lambda: core.way.loads_waiting)
        # The push finds the hole and delivers both, while bob's own load still waits.
        del core.way.gates["bob"]
        await core.push("bob", "new", expire_s=600)
        assert len(await other.documents(2)) == 2
        gate.set()
        assert values([await bob.next_document()]) == ["new"]
        await bob.beat()


async def test_an_unsaved_push_comes_after_what_a_resume_has_read(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        # The node's idea of the store's clock lags behind.
        core.way.clock_step = -5 * TICKS_PER_SECOND
        await core.node._clock_keeper._ask()
        await core.save_elsewhere("bob", "stored")
        bob = await core.subscribe("bob", mid=0)
        assert values([await bob.next_document()]) == ["stored"]
        await core.push("bob", "unsaved")
        assert values([await bob.next_document()]) == ["unsaved"]


async def test_a_connection_whose_resume_is_cut_never_goes_live(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        await core.push("bob", "missed", expire_s=600)
        core.way.close_gate("bob")
        bob = await core.subscribe("bob", mid=0)
        await eventually(lambda: core.way.loads_waiting)
        await core.node._resumer.stop()
        assert (await core.push("bob", "after the hole")).online == [0]
        assert (await bob.receive()) == End(1001, "going away")


async def test_who_has_gone_does_not_wait_for_his_turn_to_load(tmp_path: Path) -> None:
    async with running_core(tmp_path, max_resume_loads=1, store_timeout_s=30.0) as core:
        gate = core.way.close_gate("slow")
        await core.subscribe("slow", mid=0)
        await eventually(lambda: core.way.loads_waiting)
        for n in range(10):
            await (await core.subscribe(f"impatient-{n}", mid=0)).close()
        await eventually(lambda: core.comet.counted("connections") == core.comet.counted("resuming") == 1)
        gate.set()


def test_small_held_messages_count_more_than_their_payload() -> None:
    catch_up = CatchUp(100 * HELD_OVERHEAD_BYTES, CometMetrics(Stats()), Mid(0))
    for mid in range(1, 101):
        catch_up.hold(outgoing(mid))
    assert catch_up.has_overflowed


async def test_messages_that_were_trimmed_are_announced_as_a_gap_before_the_others(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        mids = await core.save_elsewhere("bob", *range(1100))
        bob = await core.subscribe("bob", mid=mids[0])
        gap = (await bob.next_document()).value["gap"]
        assert gap["after"] == mids[0]
        kept = len(mids) - mids.index(gap["before"])
        assert values(await bob.documents(kept)) == list(range(1100 - kept, 1100))
        await bob.beat()


async def test_a_bug_in_a_load_ends_the_connection_with_a_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_core(tmp_path) as core:
        core.way.load_refusals.append(ZeroDivisionError("a bug"))
        bob = await core.subscribe_websocket("bob", mid=0)
        assert (await bob.end()).code == 1011
        assert "a bug" in caplog.text


@pytest.mark.parametrize("failure", [UnavailableError("restarting"), StorageError("loading its data")])
async def test_a_resume_outlives_a_store_that_cannot_be_read_for_a_moment(
    tmp_path: Path, failure: Exception
) -> None:
    async with running_core(tmp_path) as core:
        await core.push("bob", "missed", expire_s=600)
        core.way.load_refusals.extend([failure, failure])
        bob = await core.subscribe("bob", mid=0)
        assert (await core.push("bob", "meanwhile")).online == [1]
        assert values(await bob.documents(2)) == ["missed", "meanwhile"]
        assert core.comet.counted("closes_total") == 0


async def test_a_resume_ends_when_the_store_cannot_be_read_for_as_long_as_a_read_may_take(
    tmp_path: Path,
) -> None:
    async with running_core(tmp_path, store_timeout_s=0.2) as core:
        core.way.load_refusals.extend(UnavailableError("away") for _ in range(100))
        bob = await core.subscribe_websocket("bob", mid=0)
        assert (await bob.end()).code == 1011


async def test_a_failure_that_will_not_pass_ends_the_resume_at_once(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        core.way.load_refusals.append(RemoteProtocolError("not a page"))
        bob = await core.subscribe_websocket("bob", mid=0)
        assert (await bob.end()).code == 1011


async def test_a_resume_that_waits_for_another_try_leaves_its_turn_to_others(tmp_path: Path) -> None:
    async with running_core(tmp_path, max_resume_loads=1, store_timeout_s=30.0) as core:
        await core.push("bob", "bob's", expire_s=600)
        await core.push("carol", "carol's", expire_s=600)
        core.way.load_failures["bob"] = UnavailableError("the server of this key is away")
        bob = await core.subscribe("bob", mid=0)
        await eventually(lambda: core.way.loads_failed >= 2)
        carol = await core.subscribe("carol", mid=0)
        assert values([await carol.next_document()]) == ["carol's"]
        del core.way.load_failures["bob"]
        assert values([await bob.next_document()]) == ["bob's"]


async def test_what_a_resume_has_read_is_counted_once_when_its_push_delivers_it(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        await core.push("bob", "old", expire_s=600)
        save_gate = core.way.close_gate("bob")
        load_gate = asyncio.Event()
        core.way.load_gates["bob"] = load_gate
        bob = await core.subscribe("bob", mid=0)
        await eventually(lambda: core.way.loads_waiting)
        pushed = core.push("bob", "new", expire_s=600)
        await eventually(lambda: len(core.way.batches) == 2)
        # It is stored; the answer is on its way while bob reads.
        await core.way.store.save(core.way.batches[1])
        load_gate.set()
        assert values(await bob.documents(2)) == ["old", "new"]
        save_gate.set()
        assert (await pushed).online == [1]
        assert core.comet.counted("deliveries_total") == 2


class OnePage:
    """A store that has one page for everybody."""

    def __init__(self, page: Page) -> None:
        self._page = page

    async def load_after(self, key: Key, after: Mid, max_messages: int, max_bytes: int) -> Page:
        return self._page


async def test_what_comes_before_the_first_read_has_begun_is_counted_once() -> None:
    metrics = CometMetrics(Stats())
    store: Any = OnePage(page(100))
    resumer = Resumer(store, StoreClocks(time.monotonic_ns), CometConfig(), metrics)
    channel = Channel(Key("bob"), Mid(50))
    connection, transport = make_connection()
    channel.add(connection)
    resumer.start(connection, channel.key, resume_from_start)
    metrics.deliveries.inc(channel.deliver(outgoing(100)))
    await eventually(lambda: not resumer.active_count)
    assert transport.take().count(b'"mid":100') == 1
    assert metrics.deliveries.value == 1


async def resume_from_start() -> Mid:
    return Mid(0)


async def test_held_messages_that_are_dropped_and_read_are_counted_once(tmp_path: Path) -> None:
    async with running_core(tmp_path, resume_hold_bytes=4096) as core:
        gate = core.way.close_gate("bob")
        bob = await core.subscribe("bob", mid=0)
        await eventually(lambda: core.way.loads_waiting)
        # Saves must pass while the load waits.
        del core.way.gates["bob"]
        for n in range(20):
            await core.push("bob", f"{n:1000}", expire_s=600)
        gate.set()
        await bob.documents(20)
        assert core.comet.counted("deliveries_total") == 20
