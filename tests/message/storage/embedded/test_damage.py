"""Bits that flip in a stopped store: it is refused, or the message is left out, counted and told of."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cluster.errors import ConfigError, StorageError
from cluster.model import Key, Mid
from cluster.stats import Stats
from message.storage.counters import StoreCounters
from message.storage.embedded.damage import MAX_TOLD, DamageReport, checksum
from message.storage.embedded.file import FILE_NAME
from message.storage.embedded.store import EmbeddedStore
from tests.message.storage.embedded.test_crash import flip
from tests.message.storage.embedded.test_file import root_page
from tests.message.storage.saving import ALICE, BOB, PLENTY, item, load_all, save, save_one
from tests.message.storage.store_suite import unreadable
from tests.message.storage.stores import damage, open_store, opened, settings_for

PAGE = 4096
# Ahead of every clock that reads it: nothing expires.
IN_2096_NS = 4_000_000_000 * 10**9
TOLD = "left out a stored message that is damaged"


@dataclass
class Found:
    """What a start, and reading everything, came to."""

    refusal: str = ""
    payloads: dict[Mid, bytes] = field(default_factory=dict)
    counted: int = 0


def payload_of(number: int) -> bytes:
    """Some that lie in a page with others, and some that need pages of their own."""
    return b'"%d:%s"' % (number, b"x" * (30 if number % 4 else 9000))


async def make_store(data_dir: Path, count: int = 40) -> dict[Mid, bytes]:
    """A store that was stopped in order, the same bytes every time; its payloads."""
    store = EmbeddedStore(
        settings_for(data_dir), Stats(), wall_ns=lambda: IN_2096_NS, monotonic_ns=lambda: IN_2096_NS
    )
    async with opened(store):
        results = await save(store, BOB, *(item("", payload_of(number)) for number in range(count)))
    return {result.mid: payload_of(number) for number, result in enumerate(results)}


async def read(data_dir: Path) -> Found:
    """Start the store, and read all in pages."""
    found, stats = Found(), Stats()
    try:
        async with open_store(data_dir, stats) as store:
            has_more, after = True, Mid(0)
            while has_more:
                page = await store.load_after(BOB, after, 100, PLENTY)
                found.payloads |= {message.mid: message.payload for message in page.messages}
                has_more = page.has_more
                after = page.messages[-1].mid if page.messages else after
    except ConfigError as error:
        found.refusal = str(error)
    found.counted = unreadable(stats)
    return found


def position(data_dir: Path, number: int) -> int:
    """Where a payload begins in the file."""
    return (data_dir / FILE_NAME).read_bytes().index(payload_of(number)[:30])


# -- single bits


async def test_bit_that_flips_in_a_payload_leaves_that_message_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved = await make_store(tmp_path)
    mids = list(saved)
    chosen = random.Random(1)
    for number in chosen.sample(range(len(saved)), 10):
        offset, bit = position(tmp_path, number) + chosen.randrange(30), 1 << chosen.randrange(8)
        flip(tmp_path / FILE_NAME, offset, bit)
        caplog.clear()

        found = await read(tmp_path)

        others = {mid: payload for mid, payload in saved.items() if mid != mids[number]}
        assert (found.refusal, found.payloads, found.counted) == ("", others, 1)
        assert caplog.text.count(f"{TOLD}: key=bob mid={mids[number]}") == 1
        assert caplog.text.count(TOLD) == 1
        flip(tmp_path / FILE_NAME, offset, bit)


@pytest.mark.parametrize("name", ["messages_by_key", "messages_by_expiry", "messages", "keys"])
async def test_bit_that_flips_in_a_page_is_never_silent(tmp_path: Path, name: str) -> None:
    saved = await make_store(tmp_path / "whole")
    whole = tmp_path / "whole" / FILE_NAME
    start = (root_page(whole, name) - 1) * PAGE
    content = whole.read_bytes()[start : start + PAGE]
    chosen = random.Random(name)
    outcomes = set()
    # What is zero is mostly unused.
    used = [place for place, byte in enumerate(content) if byte]
    for place in chosen.sample(used, min(len(used), 20)):
        data_dir = tmp_path / str(place)
        data_dir.mkdir()
        shutil.copy(whole, data_dir / FILE_NAME)
        flip(data_dir / FILE_NAME, start + place, 1 << chosen.randrange(8))

        found = await read(data_dir)

        if found.refusal:
            assert "is damaged" in found.refusal
            outcomes.add("refused")
            continue
        assert found.payloads.items() <= saved.items()
        assert len(found.payloads) + found.counted == len(saved)
        outcomes.add("left out" if found.counted else "harmless")
    assert "refused" in outcomes


@pytest.mark.parametrize("bit", range(63))
def test_checksum_tells_every_bit_of_the_mid_and_whose_message_it_is(bit: int) -> None:
    mid = Mid(17_900_000_000_000_080)

    assert checksum(1, Mid(mid ^ 1 << bit), b"[1]") != checksum(1, mid, b"[1]")
    if bit < 32:
        assert checksum(1 ^ 1 << bit, mid, b"[1]") != checksum(1, mid, b"[1]")


# -- reading on


async def save_ones(store: EmbeddedStore, count: int) -> list[Mid]:
    """Messages of three bytes; their mids."""
    return [result.mid for result in await save(store, BOB, *(item("", b"[1]") for _ in range(count)))]


async def test_page_goes_on_behind_damaged_messages(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        mids = await save_ones(store, 9)
        damage(tmp_path, *mids[:5], mids[6])

        by_messages = await store.load_after(BOB, Mid(0), 1, PLENTY)
        by_bytes = await store.load_after(BOB, Mid(0), PLENTY, 1)
        both = await store.load_after(BOB, mids[5], 3, PLENTY)
        rest = await store.load_after(BOB, mids[7], 1, 1)

    assert ([m.mid for m in by_messages.messages], by_messages.has_more) == ([mids[5]], True)
    assert ([m.mid for m in by_bytes.messages], by_bytes.has_more) == ([mids[5]], True)
    assert ([m.mid for m in both.messages], both.has_more) == ([mids[7], mids[8]], False)
    assert ([m.mid for m in rest.messages], rest.has_more) == ([mids[8]], False)


async def test_page_of_damaged_messages_alone_is_empty_and_the_last(tmp_path: Path) -> None:
    stats = Stats()
    async with open_store(tmp_path, stats) as store:
        damage(tmp_path, *await save_ones(store, 5))

        page = await store.load_after(BOB, Mid(0), 2, PLENTY)

    assert (page.messages, page.has_more) == ([], False)
    assert unreadable(stats) == 5


async def test_damaged_message_is_told_once_and_counted_each_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stats = Stats()
    async with open_store(tmp_path, stats) as store:
        mids = await save_ones(store, 3)
        damage(tmp_path, mids[1])
        for _ in range(3):
            assert await load_all(store, BOB) == [b"[1]", b"[1]"]

    assert unreadable(stats) == 3
    assert caplog.text.count(f"{TOLD}: key=bob mid={mids[1]}") == 1


def test_very_many_damaged_messages_are_told_again_rather_than_remembered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    report = DamageReport(StoreCounters(Stats()))
    report.add(BOB, [Mid(number) for number in range(MAX_TOLD)])
    report.add(ALICE, [Mid(0)])
    caplog.clear()

    report.add(ALICE, [Mid(0)])
    report.add(BOB, [Mid(5)])

    assert [record.getMessage() for record in caplog.records] == [f"{TOLD}: key=bob mid=5"]


async def test_damage_changes_nothing_for_saves_limits_and_deletions(tmp_path: Path) -> None:
    async with open_store(tmp_path, max_messages_per_key=4) as store:
        mids = await save_ones(store, 4)
        damage(tmp_path, mids[0], mids[1], mids[3])

        (reply,) = (await save_one(store, BOB, "new", b"[3]")).results
        page = await store.load_after(BOB, Mid(0), PLENTY, PLENTY)
        was_there = await store.delete_message(BOB, mids[3])
        counted = await store.inspect(BOB)

    assert reply.prev == mids[3]
    assert [message.mid for message in page.messages] == [mids[2], reply.mid]
    assert page.trimmed == mids[0]
    assert was_there
    assert (counted.messages, counted.payload_bytes) == (3, 9)


async def test_index_out_of_its_order_is_an_error_and_not_read_for_ever(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        mids = await save_ones(store, 3)
        await save_one(store, ALICE, "1", b"[1]")
    path = tmp_path / FILE_NAME
    start = (root_page(path, "messages_by_key") - 1) * PAGE
    place = path.read_bytes().index(mids[2].to_bytes(8, "big"), start)
    # The last mid is far below the others.
    flip(path, place + 1, mids[2].to_bytes(8, "big")[1])

    async with open_store(tmp_path, check_below_bytes=0) as store:
        with pytest.raises(StorageError, match="messages_by_key is damaged"):
            await store.load_after(BOB, mids[0], 10, PLENTY)
        assert await load_all(store, Key("alice")) == [b"[1]"]
