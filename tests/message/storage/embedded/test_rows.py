"""Groups of every size through statements of a few: what only fills them up is no key, no id and no page."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cluster.contracts.message import Outcome, SaveBatch, SaveItem, SaveReply
from cluster.errors import StorageError
from cluster.mids import TICKS_PER_SECOND
from cluster.model import Key, Mid
from message.storage.embedded.rows import FILLER, SIZES
from message.storage.embedded.store import EmbeddedStore
from tests.message.storage.stores import open_store

# Looks like a filler to a statement that does not ask for its type.
LIKE_A_FILLER = Key(str(FILLER))


async def save_group(store: EmbeddedStore, keys: list[Key]) -> list[SaveReply]:
    """Save one message per key, whose id is the key, all in one turn of the loop."""
    deadline = Mid(await store.clock() + 30 * TICKS_PER_SECOND)
    return await asyncio.gather(
        *(store.save(SaveBatch(key, [SaveItem(key, key.encode(), 600)], Mid(0), deadline)) for key in keys)
    )


async def stored(store: EmbeddedStore, key: Key) -> list[bytes]:
    """Payloads of a key."""
    return [message.payload for message in (await store.load_after(key, Mid(0), 100, 1_000_000)).messages]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 63, 65, SIZES[-1] - 1, SIZES[-1]])
async def test_group_of_any_size_is_saved_and_known_again(tmp_path: Path, size: int) -> None:
    keys = [Key(f"key{number}") for number in range(size)]
    async with open_store(tmp_path) as store:
        first = await save_group(store, keys)
        again = await save_group(store, keys)
        pages = await asyncio.gather(*(stored(store, key) for key in keys))

    assert [reply.results[0].outcome for reply in first] == [Outcome.SAVED] * size
    assert [reply.results[0].outcome for reply in again] == [Outcome.REPEATED] * size
    assert [a.results[0].mid for a in again] == [f.results[0].mid for f in first]
    assert pages == [[key.encode()] for key in keys]


@pytest.mark.parametrize("others", range(5))
async def test_key_and_id_that_look_like_a_filler_are_like_any_other(tmp_path: Path, others: int) -> None:
    async with open_store(tmp_path) as store:
        await save_group(store, [LIKE_A_FILLER])

        # Groups and pages of which the key is no part, but perhaps a filler is.
        await save_group(store, [Key(f"key{number}") for number in range(others)])
        mids = [reply.results[0].mid for reply in await save_group(store, [LIKE_A_FILLER])]
        keys = [LIKE_A_FILLER, *(Key(f"key{number}") for number in range(others))]
        pages = await asyncio.gather(*(stored(store, key) for key in keys))
        counted = await store.inspect(LIKE_A_FILLER)

    assert pages == [[key.encode()] for key in keys]
    assert (counted.messages, counted.last) == (1, mids[0])


async def test_batch_of_nothing_leaves_nothing(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        deadline = Mid(await store.clock() + 30 * TICKS_PER_SECOND)
        empty = store.save(SaveBatch(Key("empty"), [], Mid(0), deadline))
        await asyncio.gather(empty, save_group(store, [Key("other")]))
        rows = await store._read(None, lambda c: c.execute("SELECT key FROM keys").fetchall())

    assert rows == [("other",)]


async def test_statement_that_fails_half_way_leaves_nothing_of_its_group(tmp_path: Path) -> None:
    keys = [Key(name) for name in ("known", "new", "bad", "last")]
    async with open_store(tmp_path) as store:
        (first,) = await save_group(store, keys[:1])
        # After the messages and the first of the ids.
        await store._change(
            None,
            lambda c: c.execute(
                "CREATE TRIGGER refuse BEFORE INSERT ON ids WHEN new.push_id = 'bad'"
                " BEGIN SELECT RAISE(FAIL, 'refused'); END"
            ),
        )
        deadline = Mid(first.clock + 30 * TICKS_PER_SECOND)
        group = [
            SaveBatch(key, [SaveItem(push_id, b"[2]", 600)], Mid(0), deadline)
            for key, push_id in zip(keys, ("2", "new", "bad", "last"), strict=True)
        ]
        refused = await asyncio.gather(*map(store.save, group), return_exceptions=True)
        kept = [await stored(store, key) for key in keys]
        await store._change(None, lambda c: c.execute("DROP TRIGGER refuse"))
        again, *others = await asyncio.gather(*map(store.save, group))
        counted = await store.inspect(keys[0])

    assert [type(answer) for answer in refused] == [StorageError] * 4
    assert kept == [[b"known"], [], [], []]
    assert again.results[0].prev == first.results[0].mid
    assert {reply.results[0].outcome for reply in (again, *others)} == {Outcome.SAVED}
    assert (counted.messages, counted.payload_bytes) == (2, len(b"known") + len(b"[2]"))
