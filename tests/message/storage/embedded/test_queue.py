"""The embedded store's queues: what shares a commit, what is refused, what is counted, what a bug does."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from cluster.contracts.message import SaveBatch, SaveItem, SaveReply
from cluster.errors import OverloadedError, StorageError, UnavailableError
from cluster.mids import TICKS_PER_SECOND
from cluster.model import Key, Mid
from cluster.stats import HistogramReading, Stats
from message.storage.embedded.store import EmbeddedStore
from tests.message.storage.saving import BOB, load_all, save_one
from tests.message.storage.stores import broken, open_store


def count(stats: Stats, name: str, label: str = "") -> float:
    for family in stats.snapshot():
        if family.name == name:
            reading = family.readings.get(label, 0)
            return float(sum(reading.counts)) if isinstance(reading, HistogramReading) else reading
    raise KeyError(name)


async def saves(store: EmbeddedStore, number: int, payload: bytes = b"{}") -> list[asyncio.Future[SaveReply]]:
    """Ask for saves of as many keys, all in one turn of the loop."""
    deadline = Mid(await store.clock() + 30 * TICKS_PER_SECOND)
    return [
        store.save(SaveBatch(Key(f"key{n}"), [SaveItem("1", payload, 600)], Mid(0), deadline))
        for n in range(number)
    ]


async def test_saves_of_one_turn_share_one_commit(tmp_path: Path) -> None:
    stats = Stats()
    async with open_store(tmp_path, stats) as store:
        before = count(stats, "store_commit_seconds")

        await asyncio.gather(*await saves(store, 100))

        assert count(stats, "store_commit_seconds") - before == 1


async def test_groups_are_bounded_in_saves_and_bytes(tmp_path: Path) -> None:
    stats = Stats()
    async with open_store(tmp_path, stats, max_group_saves=10, max_group_bytes=10_000) as store:
        before = count(stats, "store_commit_seconds")

        await asyncio.gather(*await saves(store, 100))
        by_number = count(stats, "store_commit_seconds") - before
        await asyncio.gather(*await saves(store, 10, b"x" * 4000))
        by_bytes = count(stats, "store_commit_seconds") - before - by_number

        assert by_number == 10
        assert by_bytes == 5


async def test_too_many_waiting_saves_are_refused_and_the_others_are_stored(tmp_path: Path) -> None:
    async with open_store(tmp_path, max_queued_saves=20) as store:
        futures = await saves(store, 30)

        answers = await asyncio.gather(*futures, return_exceptions=True)

        refused = [isinstance(answer, OverloadedError) for answer in answers]
        assert sum(refused) >= 10
        assert refused == sorted(refused)
        # There is room again.
        await save_one(store, BOB, "1")


async def test_too_many_waiting_bytes_are_refused_but_one_save_always_fits(tmp_path: Path) -> None:
    async with open_store(tmp_path, max_queued_bytes=2048, max_group_bytes=2048) as store:
        answers = await asyncio.gather(*await saves(store, 3, b"x" * 1000), return_exceptions=True)
        (large,) = await asyncio.gather(*await saves(store, 1, b"x" * 10_000), return_exceptions=True)

        assert [isinstance(answer, OverloadedError) for answer in answers] == [False, False, True]
        assert isinstance(large, SaveReply)


async def test_too_many_waiting_changes_and_reads_are_refused(tmp_path: Path) -> None:
    async with open_store(tmp_path, max_queued_saves=5, max_queued_reads=5) as store:
        changes = await asyncio.gather(*(store.delete_key(BOB) for _ in range(10)), return_exceptions=True)
        pages = await asyncio.gather(
            *(store.load_after(BOB, Mid(0), 1, 1) for _ in range(10)), return_exceptions=True
        )

        assert sum(isinstance(answer, OverloadedError) for answer in changes) >= 5
        assert sum(isinstance(answer, OverloadedError) for answer in pages) == 5
        assert await load_all(store, BOB) == []


async def test_outcomes_are_counted(tmp_path: Path) -> None:
    stats = Stats()
    async with open_store(tmp_path, stats, max_messages_per_key=2) as store:
        deadline = Mid(await store.clock() + 30 * TICKS_PER_SECOND)
        items = [SaveItem(str(n), b"[1]", 600) for n in range(5)]
        items += [SaveItem("4", b"[1]", 600), SaveItem("4", b"[2]", 600)]
        late = [SaveItem("8", b"[1]", 600), SaveItem("9", b"[1]", 600)]
        await store.save(SaveBatch(BOB, items, Mid(deadline * 2), deadline))
        with pytest.raises(UnavailableError):
            await store.save(SaveBatch(BOB, late, Mid(0), Mid(80)))

        def result(label: str) -> float:
            return count(stats, "store_saves_total", label)

        assert [result(x) for x in ("saved", "repeated", "conflict", "late", "failed")] == [5, 1, 1, 2, 0]
        assert count(stats, "store_trimmed_total") == 3
        assert count(stats, "store_sent_ignored_total") == 1
        assert count(stats, "store_save_seconds") == 2
        assert count(stats, "store_queued_saves") == 0


async def test_waiting_saves_are_seen(tmp_path: Path) -> None:
    stats = Stats()
    async with open_store(tmp_path, stats) as store:
        futures = await saves(store, 3)

        assert count(stats, "store_queued_saves") >= 3
        await asyncio.gather(*futures)


async def test_bug_in_a_change_is_a_storage_error_and_the_store_goes_on(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        with pytest.raises(StorageError, match="internal error"):
            await store._change(None, broken)
        with pytest.raises(StorageError, match="internal error"):
            await store._read(None, broken)

        await save_one(store, BOB, "1", b"[1]")
        assert await load_all(store, BOB) == [b"[1]"]


async def test_cancelled_read_does_not_disturb_the_others(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await save_one(store, BOB, "1", b"[1]")
        tasks = [asyncio.ensure_future(load_all(store, BOB)) for _ in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()

        answers = await asyncio.gather(*tasks, return_exceptions=True)

        assert answers[1::2] == [[b"[1]"]] * 10
        assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[::2])


async def test_store_held_by_somebody_elses_transaction_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("message.storage.embedded.file.BUSY_TIMEOUT_S", 0.05)
    async with open_store(tmp_path) as store:
        shell = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
        shell.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="locked"):
            await save_one(store, BOB, "1", b"[1]")
        shell.execute("ROLLBACK")
        shell.close()

        await save_one(store, BOB, "1", b"[1]")
        assert await load_all(store, BOB) == [b"[1]"]
