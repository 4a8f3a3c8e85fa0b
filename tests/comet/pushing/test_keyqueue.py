"""comet/pushing/keyqueue.py: batches of one key, their bounds; holes before what was saved."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cluster.errors import StorageError
from comet.pushing.keyqueue import MAX_BATCH_BYTES, MAX_BATCH_ITEMS, MAX_TURNS_AT_ONCE
from tests.comet.nodes import running_core, values
from tests.support.eventually import eventually


async def test_pushes_that_wait_for_a_slow_save_are_saved_in_one_batch_and_delivered_in_order(
    tmp_path: Path,
) -> None:
    async with running_core(tmp_path) as core:
        bob = await core.subscribe("bob")
        gate = core.way.close_gate("bob")
        pushes = [core.push("bob", n, expire_s=600) for n in range(5)]

        gate.set()
        mids = [(await push).mids[0] for push in pushes]

        documents = await bob.documents(5)
        assert values(documents) == [0, 1, 2, 3, 4]
        assert [document.mid for document in documents] == mids == sorted(mids)
        assert [len(batch.items) for batch in core.way.batches] == [1, 4]


async def test_messages_that_another_node_saved_are_delivered_first(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        bob = await core.subscribe("bob")
        elsewhere = await core.save_elsewhere("bob", "a", "b", "c")
        own = (await core.push("bob", "d", expire_s=600)).mids[0]
        documents = await bob.documents(4)
        assert values(documents) == ["a", "b", "c", "d"]
        assert [document.mid for document in documents] == [*elsewhere, own]
        assert core.comet.counted("holes_filled_total") == 1


async def test_a_hole_that_cannot_be_filled_closes_the_connections(tmp_path: Path) -> None:
    async with running_core(tmp_path, store_timeout_s=0.2) as core:
        bob = await core.subscribe_websocket("bob")
        await core.save_elsewhere("bob", "a")
        core.way.load_refusals.extend(StorageError("cannot read") for _ in range(100))
        push = core.push("bob", "b", expire_s=600)
        assert (await bob.end()).code == 1011
        assert (await push).failed == []
        assert core.comet.counted("holes_filled_total") == 0


async def test_a_hole_is_read_again_while_the_store_cannot_be_read(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        bob = await core.subscribe("bob")
        await core.save_elsewhere("bob", "a")
        core.way.load_refusals.append(StorageError("cannot read"))
        await core.push("bob", "b", expire_s=600)
        assert values(await bob.documents(2)) == ["a", "b"]


async def test_a_bug_while_a_hole_is_filled_closes_the_connections_and_the_key_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_core(tmp_path) as core:
        bob = await core.subscribe_websocket("bob")
        await core.save_elsewhere("bob", "a")
        core.way.load_refusals.append(ZeroDivisionError("a bug"))
        push = core.push("bob", "b", expire_s=600)
        assert (await bob.end()).code == 1011
        assert (await push).failed == []
        assert (await core.push("bob", "c", expire_s=600)).failed == []
        assert "a bug" in caplog.text
        assert core.comet.counted("busy_keys") == 0


async def test_many_turns_behind_a_save_are_taken_in_order_and_others_get_theirs_between(
    tmp_path: Path,
) -> None:
    async with running_core(tmp_path) as core:
        bob = await core.subscribe("bob")
        gate = core.way.close_gate("bob")
        pushes = [core.push("bob", 0, expire_s=600)]
        pushes += [core.push("bob", n) for n in range(1, 2 * MAX_TURNS_AT_ONCE + 10)]
        gate.set()
        assert [(await push).online for push in pushes] == [[1]] * len(pushes)
        assert values(await bob.documents(len(pushes))) == list(range(len(pushes)))


async def test_a_batch_is_bounded_in_messages_and_bytes(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        gate = core.way.close_gate("bob")
        half = "x" * (MAX_BATCH_BYTES // 2)
        pushes = [core.push("bob", value, expire_s=600) for value in ("first", half, half, half + half)]
        pushes += [core.push("bob", n, expire_s=600) for n in range(MAX_BATCH_ITEMS + 1)]
        gate.set()
        for push in pushes:
            assert (await push).failed == []
        assert [len(batch.items) for batch in core.way.batches] == [1, 1, 1, 1, MAX_BATCH_ITEMS, 1]


async def test_a_hole_whose_messages_were_trimmed_is_told_to_version_2(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        new, old = await core.subscribe("bob"), await core.subscribe("bob", version="1.0")
        elsewhere = await core.save_elsewhere("bob", *range(1100))
        await core.push("bob", "here", expire_s=600)
        gap = (await new.next_document()).value["gap"]
        assert gap["after"] < elsewhere[0]
        kept = len(elsewhere) - elsewhere.index(gap["before"])
        for subscriber in (new, old):
            assert values(await subscriber.documents(kept + 1)) == [*range(1100 - kept, 1100), "here"]
        assert core.comet.counted("gaps_total") == 1


async def test_nobody_is_left_to_fill_a_hole_for(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        bob = await core.subscribe("bob")
        await core.save_elsewhere("bob", 1, 2)
        gate = core.way.close_gate("bob")
        push = core.push("bob", "here", expire_s=600)
        # The save stands at the gate and passes, the read of the hole waits.
        await asyncio.sleep(0)
        gate.set()
        held = core.way.close_gate("bob")
        await eventually(lambda: core.way.loads_waiting)
        await bob.close()
        await eventually(lambda: core.comet.counted("connections") == 0)
        held.set()
        assert (await push).online == [0]
