"""What the embedded store remembers of keys between groups of saves is what its tables say."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from pathlib import Path

import pytest

from cluster.contracts.message import SaveBatch, SaveItem
from cluster.errors import StorageError
from cluster.mids import TICKS_PER_SECOND
from cluster.model import Key, Mid
from cluster.stats import Stats
from message.storage.embedded import keys
from message.storage.embedded.file import FILE_NAME
from message.storage.embedded.store import EmbeddedStore
from tests.message.storage.clocks import SteppedClock
from tests.message.storage.saving import BOB, load_all, save_one
from tests.message.storage.stores import broken, open_store, settings_for

KEYS = [Key(f"key{number}") for number in range(6)]


async def test_save_whose_transaction_was_rolled_back_leaves_nothing_behind(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        first = await save_one(store, BOB, "1", b"[1]")
        deadline = Mid(await store.clock() + 30 * TICKS_PER_SECOND)
        # In one turn, so in one transaction.
        save = store.save(SaveBatch(BOB, [SaveItem("2", b"[2]", 600)], Mid(0), deadline))
        change = store._change(None, broken, leaves_keys=True)
        for error in await asyncio.gather(save, change, return_exceptions=True):
            assert isinstance(error, StorageError)

        third = await save_one(store, BOB, "3", b"[3]")

        assert third.results[0].prev == first.results[0].mid
        assert await load_all(store, BOB) == [b"[1]", b"[3]"]
        assert (await store.inspect(BOB)).messages == 2


@pytest.mark.parametrize("seed", range(4))
async def test_table_of_keys_agrees_with_the_messages_whatever_happens_between_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(keys, "MAX_KEPT", 4)
    chance = random.Random(seed)
    clock = SteppedClock()
    store = EmbeddedStore(settings_for(tmp_path, max_messages_per_key=40), Stats(), wall_ns=clock.wall_ns)
    await store.start()
    for turn in range(150):
        key = chance.choice(KEYS)
        match chance.randrange(12):
            case 0:
                await store.delete_key(key)
            case 1:
                page = await store.load_after(key, Mid(0), 1000, 1_000_000)
                for message in page.messages[:2]:
                    await store.delete_message(key, message.mid)
            case 2:
                clock.advance(chance.choice((1, 30, 200)))
                await store.remove_expired(chance.choice((1, 20)))
            case 3:
                await store.acknowledge(key, "phone", Mid(80))
            case 4:
                with pytest.raises(StorageError):
                    await store._change(None, broken)
            case _:
                await save_some(store, chance, turn)
        if turn % 10 == 0:
            check(tmp_path)
    await store.stop()
    check(tmp_path)


async def save_some(store: EmbeddedStore, chance: random.Random, turn: int) -> None:
    """Save to several keys in one turn of the loop, now and then in a transaction that fails."""
    deadline = Mid(await store.clock() + 30 * TICKS_PER_SECOND)
    asked: list[asyncio.Future[object]] = []
    for number in range(chance.randrange(1, 8)):
        items = []
        for item in range(chance.randrange(1, 4)):
            # What is not kept needs an id.
            expire_s = chance.choice((0, 60, 300))
            push_id = f"{turn}-{number}-{item}" if not expire_s or chance.random() < 0.5 else ""
            items.append(SaveItem(push_id, b"x" * chance.randrange(50), expire_s))
        save = store.save(SaveBatch(chance.choice(KEYS), items, Mid(0), deadline))
        asked.append(asyncio.ensure_future(save))
    is_failing = chance.random() < 0.2
    if is_failing:
        asked.append(asyncio.ensure_future(store._change(None, broken, leaves_keys=True)))
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert {isinstance(answer, StorageError) for answer in answers} == {is_failing}


def check(data_dir: Path) -> None:
    """Compare what is written of each key with its messages and ids."""
    with sqlite3.connect(data_dir / FILE_NAME) as shell:
        rows = shell.execute(
            "SELECT k.key, k.last, k.stored, k.messages, k.payload_bytes, count(m.id),"
            " ifnull(sum(length(m.payload)), 0), ifnull(max(m.mid), 0),"
            " (SELECT ifnull(max(i.mid), 0) FROM ids i WHERE i.key_id = k.id)"
            " FROM keys k LEFT JOIN messages m ON m.key_id = k.id GROUP BY k.id"
        ).fetchall()
        owned = shell.execute("SELECT count(*) FROM messages m JOIN keys k ON k.id = m.key_id").fetchone()
        assert owned == shell.execute("SELECT count(*) FROM messages").fetchone()
        # Nothing would ever remove these.
        bare = "SELECT key FROM keys k WHERE NOT messages AND NOT trimmed_until"
        assert not shell.execute(
            f"{bare} AND NOT EXISTS (SELECT 1 FROM ids i WHERE i.key_id = k.id)"
        ).fetchall()
    shell.close()
    for key, last, stored, messages, payload_bytes, counted, counted_bytes, newest, highest in rows:
        assert (key, messages, payload_bytes) == (key, counted, counted_bytes)
        assert last >= max(stored, newest, highest)
        assert stored >= newest
