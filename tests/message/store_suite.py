"""What every store must do: cluster/contracts/message.py and message/storage/base.py in tests.

test_storage.py runs it over all backends. It knows nothing of a backend but
its harness.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

import pytest

from cluster.contracts.message import MAX_PUSH_ID_BYTES, Outcome, SaveBatch, SaveItem, SaveReply, SaveResult
from cluster.errors import DeadlinePassedError, NotOwnerError, RequestError, UnavailableError
from cluster.mids import STEP, TICKS_PER_SECOND
from cluster.model import Key, Mid
from message.storage.base import MAX_DEVICE_BYTES, MessageStore

BOB, ALICE = Key("bob"), Key("alice")
PLENTY = 1_000_000


@dataclass(frozen=True)
class Limits:
    """Settings that the tests change, under the names that all stores share."""

    max_messages_per_key: int = 1000
    max_bytes_per_key: int = 4 * 1024 * 1024
    max_devices_per_key: int = 16
    device_memory_days: int = 30
    max_id_ttl_s: int = 86_400


class Harness(Protocol):
    """One backend under test, with data of its own."""

    async def open(self, limits: Limits | None = None) -> MessageStore:
        """Open the store; one that is open is stopped first, so a second call is a restart."""
        ...

    async def close(self) -> None:
        """Stop the store and remove its data."""
        ...

    def advance(self, seconds: float) -> None:
        """Step the store's wall clock; negative = back."""
        ...


def item(push_id: str, payload: bytes = b"{}", expire_s: int = 600, id_ttl_s: int = 0) -> SaveItem:
    return SaveItem(push_id, payload, expire_s, id_ttl_s)


def text(content: str) -> bytes:
    """A JSON text of ASCII characters."""
    return f'"{content}"'.encode()


async def save(
    store: MessageStore, key: Key, *items: SaveItem, sent: int = 0, within_s: float = 10
) -> list[SaveResult]:
    """Save a batch that must be accepted."""
    deadline = Mid(await store.clock() + int(within_s * TICKS_PER_SECOND))
    reply = await store.save(SaveBatch(key, list(items), Mid(sent), deadline))
    assert len(reply.results) == len(items)
    return reply.results


async def payloads(store: MessageStore, key: Key, after: int = 0) -> list[bytes]:
    """Everything stored above a mid."""
    page = await store.load_after(key, Mid(after), PLENTY, PLENTY * 100)
    assert not page.has_more
    assert [m.mid for m in page.messages] == sorted({m.mid for m in page.messages})
    return [message.payload for message in page.messages]


async def remove_all_expired(store: MessageStore, limit: int = 100) -> int:
    """Remove in batches until nothing is left; how many rows."""
    total = 0
    while removed := await store.remove_expired(limit):
        total += removed
        if removed < limit:
            break
    return total


class StoreSuite:
    """The tests; a backend's class adds the fixture `harness`."""

    @pytest.fixture
    async def store(self, harness: Harness) -> AsyncIterator[MessageStore]:
        yield await harness.open()
        await harness.close()

    @pytest.fixture
    async def opened(self, harness: Harness) -> AsyncIterator[Harness]:
        """For tests that choose limits, or restart."""
        yield harness
        await harness.close()

    # -- saving and mids

    async def test_saved_messages_are_loaded_in_order(self, store: MessageStore) -> None:
        results = await save(store, BOB, item("1", b"[1]"), item("2", b"[2]"), item("3", b"[3]"))

        page = await store.load_after(BOB, Mid(0), PLENTY, PLENTY)

        assert [r.outcome for r in results] == [Outcome.SAVED] * 3
        assert [(m.mid, m.payload) for m in page.messages] == [
            (results[0].mid, b"[1]"),
            (results[1].mid, b"[2]"),
            (results[2].mid, b"[3]"),
        ]
        assert not page.has_more
        assert page.trimmed == 0

    async def test_loading_after_a_mid_leaves_it_and_earlier_ones_out(self, store: MessageStore) -> None:
        first, second, third = await save(store, BOB, item("1", b"[1]"), item("2", b"[2]"), item("3", b"[3]"))

        assert await payloads(store, BOB, first.mid) == [b"[2]", b"[3]"]
        assert await payloads(store, BOB, second.mid - 1) == [b"[2]", b"[3]"]
        assert await payloads(store, BOB, third.mid) == []
        assert await payloads(store, BOB, 2**63 - 1) == []

    async def test_keys_do_not_see_each_other(self, store: MessageStore) -> None:
        await save(store, BOB, item("1", b"[1]"))
        await save(store, Key("Bob"), item("1", b"[2]"))
        await save(store, Key("bob "), item("1", b"[3]"))

        assert await payloads(store, BOB) == [b"[1]"]
        assert await payloads(store, Key("Bob")) == [b"[2]"]
        assert await payloads(store, ALICE) == []

    @pytest.mark.parametrize(
        "key", ["k" * 512, "ключ", "кл" * 128, "a'b\"c;--", "%", "日本🚀", "é", "e\u0301"]
    )
    async def test_any_key_keeps_its_messages(self, store: MessageStore, key: str) -> None:
        await save(store, Key(key), item("1", b"[1]"))
        await save(store, Key("other"), item("2", b"[2]"))

        assert await payloads(store, Key(key)) == [b"[1]"]

    async def test_payload_comes_back_byte_for_byte(self, store: MessageStore) -> None:
        payload = '{"text":"ä 日本 🚀 \\u0000 \x7f","n":1.50}'.encode()
        large = b'"' + b"x" * 1_000_000 + b'"'

        await save(store, BOB, item("1", payload), item("2", large))

        assert await payloads(store, BOB) == [payload, large]

    async def test_equal_payloads_are_stored_each(self, store: MessageStore) -> None:
        await save(store, BOB, item("1", b"[1]"), item("2", b"[1]"))
        await save(store, BOB, item("3", b"[1]"))

        assert await payloads(store, BOB) == [b"[1]"] * 3

    async def test_mids_are_positive_multiples_and_increase(self, store: MessageStore) -> None:
        mids: list[int] = []
        for number in range(20):
            results = await save(store, BOB, item(f"{number}a"), item(f"{number}b"))
            mids += [r.mid for r in results]

        assert all(mid > 0 and mid % STEP == 0 for mid in mids)
        assert mids == sorted(set(mids))

    async def test_mids_follow_the_stores_clock(self, store: MessageStore) -> None:
        before = await store.clock()
        (result,) = await save(store, BOB, item("1"))
        after = await store.clock()

        assert before <= result.mid <= after

    async def test_mid_is_above_what_the_channel_has_sent(self, store: MessageStore) -> None:
        sent = await store.clock() + TICKS_PER_SECOND // 2
        sent -= sent % STEP

        (first,) = await save(store, BOB, item("1"), sent=sent)
        (second,) = await save(store, BOB, item("2"))

        assert first.mid == sent + STEP
        assert second.mid == sent + 2 * STEP

    async def test_sent_far_ahead_of_the_clock_is_ignored(self, store: MessageStore) -> None:
        sent = await store.clock() + 60 * TICKS_PER_SECOND

        (result,) = await save(store, BOB, item("1"), sent=sent)

        assert result.mid <= await store.clock()

    async def test_prev_names_the_message_stored_before(self, store: MessageStore) -> None:
        first, second = await save(store, BOB, item("1"), item("2"))
        (third,) = await save(store, BOB, item("3"))
        (other,) = await save(store, ALICE, item("1"))

        assert [first.prev, second.prev, third.prev] == [0, first.mid, second.mid]
        assert other.prev == 0

    async def test_reply_carries_the_stores_clock(self, store: MessageStore) -> None:
        before = await store.clock()
        reply = await store.save(SaveBatch(BOB, [item("1")], Mid(0), Mid(before + TICKS_PER_SECOND * 10)))
        page = await store.load_after(BOB, Mid(0), PLENTY, PLENTY)

        assert before <= reply.clock <= page.clock <= await store.clock()

    async def test_saves_of_many_keys_at_once_all_succeed(self, store: MessageStore) -> None:
        deadline = Mid(await store.clock() + 60 * TICKS_PER_SECOND)
        keys = [Key(f"key-{number}") for number in range(700)]

        replies = await asyncio.gather(
            *(store.save(SaveBatch(key, [item(f"id-{key}", text(key))], Mid(0), deadline)) for key in keys)
        )

        assert all(reply.results[0].outcome is Outcome.SAVED for reply in replies)
        for key in keys[::50]:
            assert await payloads(store, key) == [text(key)]

    async def test_batch_of_many_items_is_stored_in_order(self, store: MessageStore) -> None:
        items = [item(f"id-{number}", b"[%d]" % number) for number in range(700)]

        results = await save(store, BOB, *items)

        assert [r.mid for r in results] == sorted({r.mid for r in results})
        assert await payloads(store, BOB) == [i.payload for i in items]

    async def test_batches_of_one_key_that_overlap_keep_their_order(self, store: MessageStore) -> None:
        deadline = Mid(await store.clock() + 60 * TICKS_PER_SECOND)

        replies: list[SaveReply] = await asyncio.gather(
            *(store.save(SaveBatch(BOB, [item(f"{n}", b"[%d]" % n)], Mid(0), deadline)) for n in range(100))
        )

        mids = [reply.results[0].mid for reply in replies]
        assert mids == sorted(set(mids))
        assert await payloads(store, BOB) == [b"[%d]" % n for n in range(100)]

    async def test_cancelled_save_is_stored_all_the_same(self, store: MessageStore) -> None:
        deadline = Mid(await store.clock() + 60 * TICKS_PER_SECOND)
        future = store.save(SaveBatch(BOB, [item("1", b"[1]")], Mid(0), deadline))

        future.cancel()
        await save(store, BOB, item("2", b"[2]"))

        assert await payloads(store, BOB) == [b"[1]", b"[2]"]

    async def test_empty_batch_is_answered(self, store: MessageStore) -> None:
        assert await save(store, BOB) == []
        assert await payloads(store, BOB) == []

    # -- deadlines and bad requests

    async def test_save_after_its_deadline_is_refused(self, store: MessageStore) -> None:
        deadline = Mid(await store.clock() - TICKS_PER_SECOND)

        with pytest.raises(DeadlinePassedError):
            await store.save(SaveBatch(BOB, [item("1")], Mid(0), deadline))

        assert await payloads(store, BOB) == []

    async def test_repeat_after_the_deadline_tells_what_was_saved(
        self, harness: Harness, store: MessageStore
    ) -> None:
        deadline = Mid(await store.clock() + 5 * TICKS_PER_SECOND)
        batch = SaveBatch(BOB, [item("1", b"[1]"), item("2", b"[2]")], Mid(0), deadline)
        saved = (await store.save(batch)).results
        harness.advance(30)

        repeated = (await store.save(batch)).results
        with pytest.raises(DeadlinePassedError):
            await store.save(SaveBatch(BOB, [item("1", b"[1]"), item("3", b"[3]")], Mid(0), deadline))

        assert [result.outcome for result in repeated] == [Outcome.REPEATED] * 2
        assert [result.mid for result in repeated] == [result.mid for result in saved]
        assert await payloads(store, BOB) == [b"[1]", b"[2]"]

    async def test_late_save_does_not_fail_its_neighbours(self, store: MessageStore) -> None:
        clock = await store.clock()
        late = store.save(SaveBatch(BOB, [item("1")], Mid(0), Mid(clock - 80)))
        good = store.save(SaveBatch(ALICE, [item("2", b"[2]")], Mid(0), Mid(clock + 10 * TICKS_PER_SECOND)))

        assert (await good).results[0].outcome is Outcome.SAVED
        with pytest.raises(DeadlinePassedError):
            await late
        assert await payloads(store, ALICE) == [b"[2]"]

    async def test_deadline_far_ahead_is_refused(self, store: MessageStore) -> None:
        deadline = Mid(await store.clock() + 10 * 86_400 * TICKS_PER_SECOND)

        with pytest.raises(RequestError):
            await store.save(SaveBatch(BOB, [item("1")], Mid(0), deadline))

    @pytest.mark.parametrize(
        ("key", "bad"),
        [
            ("", item("1")),
            ("k" * 513, item("1")),
            ("new\nline", item("1")),
            ("\ud800", item("1")),
            ("k", item("")),
            ("k", item("x" * (MAX_PUSH_ID_BYTES + 1))),
            ("k", item("ж" * (MAX_PUSH_ID_BYTES // 2 + 1))),
            ("k", item("\udc80")),
            ("k", item("1", expire_s=-1)),
        ],
    )
    async def test_impossible_save_is_a_request_error(
        self, store: MessageStore, key: str, bad: SaveItem
    ) -> None:
        deadline = Mid(await store.clock() + 10 * TICKS_PER_SECOND)

        with pytest.raises(RequestError):
            await store.save(SaveBatch(Key(key), [bad], Mid(0), deadline))

    # -- ids

    async def test_repeated_id_is_stored_once_and_gives_the_first_mid(self, store: MessageStore) -> None:
        (first,) = await save(store, BOB, item("1", b"[1]"))

        (again,) = await save(store, BOB, item("1", b"[1]"))

        assert (again.outcome, again.mid) == (Outcome.REPEATED, first.mid)
        assert await payloads(store, BOB) == [b"[1]"]

    async def test_id_repeated_within_a_batch_is_stored_once(self, store: MessageStore) -> None:
        first, again, other = await save(store, BOB, item("1", b"[1]"), item("1", b"[1]"), item("1", b"[2]"))

        assert (again.outcome, again.mid) == (Outcome.REPEATED, first.mid)
        assert other.outcome is Outcome.CONFLICT
        assert await payloads(store, BOB) == [b"[1]"]

    async def test_id_repeated_at_the_same_time_is_stored_once(self, store: MessageStore) -> None:
        deadline = Mid(await store.clock() + 60 * TICKS_PER_SECOND)
        batch = SaveBatch(BOB, [item("1", b"[1]")], Mid(0), deadline)

        replies = await asyncio.gather(*(store.save(batch) for _ in range(10)))

        assert len({reply.results[0].mid for reply in replies}) == 1
        assert await payloads(store, BOB) == [b"[1]"]

    @pytest.mark.parametrize("push_id", ["заказ 7", "日本🚀", "a'b\"c", "\x00\n", "x" * MAX_PUSH_ID_BYTES])
    async def test_any_text_can_be_an_id(self, store: MessageStore, push_id: str) -> None:
        (first, other) = await save(store, BOB, item(push_id, b"[1]"), item("2", b"[2]"))

        (again,) = await save(store, BOB, item(push_id, b"[1]"))

        assert first.outcome is other.outcome is Outcome.SAVED
        assert (again.outcome, again.mid) == (Outcome.REPEATED, first.mid)

    async def test_id_with_another_payload_is_a_conflict(self, store: MessageStore) -> None:
        await save(store, BOB, item("1", b"[1]"))

        conflict, good = await save(store, BOB, item("1", b"[2]"), item("2", b"[3]"))

        assert conflict.outcome is Outcome.CONFLICT
        assert good.outcome is Outcome.SAVED
        assert await payloads(store, BOB) == [b"[1]", b"[3]"]

    async def test_same_id_for_another_key_is_another_message(self, store: MessageStore) -> None:
        await save(store, BOB, item("1", b"[1]"))

        (result,) = await save(store, ALICE, item("1", b"[2]"))

        assert result.outcome is Outcome.SAVED
        assert await payloads(store, ALICE) == [b"[2]"]

    async def test_id_survives_its_message(self, harness: Harness, store: MessageStore) -> None:
        (first,) = await save(store, BOB, item("1", b"[1]", expire_s=1))
        harness.advance(3)
        await remove_all_expired(store)

        (again,) = await save(store, BOB, item("1", b"[1]"))

        assert (again.outcome, again.mid) == (Outcome.REPEATED, first.mid)

    async def test_id_is_known_until_a_minute_after_the_deadline(
        self, harness: Harness, store: MessageStore
    ) -> None:
        await save(store, BOB, item("1", b"[1]"), within_s=10)
        harness.advance(65)
        await remove_all_expired(store)
        (early,) = await save(store, BOB, item("1", b"[1]"), within_s=0.5)
        # The repeat at 65 s moved the end to 65 + 0.5 + 60 s.
        harness.advance(70)
        await remove_all_expired(store)
        (late,) = await save(store, BOB, item("1", b"[2]"))

        assert early.outcome is Outcome.REPEATED
        assert late.outcome is Outcome.SAVED

    async def test_callers_id_is_known_for_its_ttl(self, harness: Harness, store: MessageStore) -> None:
        await save(store, BOB, item("1", b"[1]", id_ttl_s=3600))
        harness.advance(3590)
        await remove_all_expired(store)
        (within,) = await save(store, BOB, item("1", b"[2]"))
        harness.advance(15)
        # Also without remove_expired() in between.
        (after,) = await save(store, BOB, item("1", b"[2]"))

        assert within.outcome is Outcome.CONFLICT
        assert after.outcome is Outcome.SAVED

    async def test_id_ttl_is_cut_to_the_limit(self, opened: Harness) -> None:
        store = await opened.open(Limits(max_id_ttl_s=100))
        await save(store, BOB, item("1", b"[1]", id_ttl_s=1_000_000))
        opened.advance(105)

        (after,) = await save(store, BOB, item("1", b"[2]"))

        assert after.outcome is Outcome.SAVED

    async def test_reservation_settles_a_mid_and_stores_nothing(self, store: MessageStore) -> None:
        (first,) = await save(store, BOB, item("1", b"[1]"))
        (reserved,) = await save(store, BOB, item("2", b"[2]", expire_s=0))
        (again,) = await save(store, BOB, item("2", b"[2]", expire_s=0))
        (other,) = await save(store, BOB, item("2", b"[3]", expire_s=0))
        (after,) = await save(store, BOB, item("3", b"[4]"))

        assert reserved.outcome is Outcome.SAVED
        assert first.mid < reserved.mid < after.mid
        assert (again.outcome, again.mid) == (Outcome.REPEATED, reserved.mid)
        assert other.outcome is Outcome.CONFLICT
        assert (reserved.prev, after.prev) == (first.mid, first.mid)
        assert await payloads(store, BOB) == [b"[1]", b"[4]"]

    # -- pages

    async def test_pages_are_cut_by_messages(self, store: MessageStore) -> None:
        results = await save(store, BOB, *(item(str(n), b"[%d]" % n) for n in range(5)))

        page = await store.load_after(BOB, Mid(0), 2, PLENTY)
        rest = await store.load_after(BOB, page.messages[-1].mid, 3, PLENTY)

        assert [m.mid for m in page.messages] == [r.mid for r in results[:2]]
        assert page.has_more
        assert [m.mid for m in rest.messages] == [r.mid for r in results[2:]]
        assert not rest.has_more

    async def test_pages_are_cut_by_bytes_but_never_empty(self, store: MessageStore) -> None:
        await save(store, BOB, *(item(str(n), text("x" * 98)) for n in range(5)))

        two = await store.load_after(BOB, Mid(0), PLENTY, 250)
        one = await store.load_after(BOB, Mid(0), PLENTY, 1)
        all_of_them = await store.load_after(BOB, Mid(0), PLENTY, 500)

        assert (len(two.messages), two.has_more) == (2, True)
        assert (len(one.messages), one.has_more) == (1, True)
        assert (len(all_of_them.messages), all_of_them.has_more) == (5, False)

    # -- expiry

    async def test_message_lives_for_its_time_and_not_longer(
        self, harness: Harness, store: MessageStore
    ) -> None:
        await save(store, BOB, item("1", b"[1]", expire_s=10), item("2", b"[2]", expire_s=600))

        harness.advance(9.5)
        before = await payloads(store, BOB)
        harness.advance(2)
        after = await payloads(store, BOB)

        assert before == [b"[1]", b"[2]"]
        assert after == [b"[2]"]

    async def test_page_tells_when_its_messages_expire(self, store: MessageStore) -> None:
        await save(store, BOB, item("1", expire_s=600))

        page = await store.load_after(BOB, Mid(0), PLENTY, PLENTY)

        lifetime_s = page.messages[0].expires_at - page.clock / TICKS_PER_SECOND
        assert 599 <= lifetime_s <= 601

    async def test_longest_expiry_is_accepted(self, store: MessageStore) -> None:
        await save(store, BOB, item("1", b"[1]", expire_s=4_294_967_295))

        assert await payloads(store, BOB) == [b"[1]"]

    async def test_expired_messages_are_removed_in_bounded_batches(
        self, harness: Harness, store: MessageStore
    ) -> None:
        await save(store, BOB, *(item(f"b{n}", expire_s=1) for n in range(25)))
        await save(store, ALICE, *(item(f"a{n}", expire_s=600) for n in range(5)))
        harness.advance(3)

        batches = [await store.remove_expired(10) for _ in range(4)]

        assert batches == [10, 10, 5, 0]
        assert (await store.inspect(BOB)).messages == 0
        assert (await store.inspect(ALICE)).messages == 5

    async def test_expired_messages_are_not_counted(self, harness: Harness, store: MessageStore) -> None:
        await save(store, BOB, item("1", b"12345", expire_s=1), item("2", b"123", expire_s=600))
        harness.advance(3)

        stored = await store.inspect(BOB)

        assert (stored.messages, stored.payload_bytes) == (1, 3)
        assert stored.first == stored.last

    async def test_mids_go_on_above_a_key_that_was_forgotten(
        self, harness: Harness, store: MessageStore
    ) -> None:
        (first,) = await save(
            store, BOB, item("1", expire_s=1), sent=await store.clock() + TICKS_PER_SECOND // 2
        )
        harness.advance(200)
        await remove_all_expired(store)
        harness.advance(-200)

        (again,) = await save(store, BOB, item("1"))
        (other,) = await save(store, ALICE, item("1"))

        assert again.outcome is Outcome.SAVED
        assert again.mid > first.mid
        assert other.mid > first.mid

    # -- limits of a key

    async def test_oldest_messages_make_room_and_leave_a_mark(self, opened: Harness) -> None:
        store = await opened.open(Limits(max_messages_per_key=3))
        results = await save(store, BOB, *(item(str(n), b"[%d]" % n) for n in range(5)))
        await save(store, ALICE, item("1"))

        page = await store.load_after(BOB, Mid(0), PLENTY, PLENTY)
        other = await store.load_after(ALICE, Mid(0), PLENTY, PLENTY)

        assert [m.payload for m in page.messages] == [b"[2]", b"[3]", b"[4]"]
        assert page.trimmed == results[1].mid
        assert other.trimmed == 0

    async def test_limit_holds_over_many_saves(self, opened: Harness) -> None:
        store = await opened.open(Limits(max_messages_per_key=3))
        for number in range(10):
            await save(store, BOB, item(str(number), b"[%d]" % number))

        assert await payloads(store, BOB) == [b"[7]", b"[8]", b"[9]"]
        assert (await store.inspect(BOB)).messages == 3

    async def test_bytes_of_a_key_are_limited_and_the_newest_always_fits(self, opened: Harness) -> None:
        store = await opened.open(Limits(max_bytes_per_key=1024))
        await save(
            store, BOB, item("1", text("a" * 498)), item("2", text("b" * 498)), item("3", text("c" * 498))
        )
        two = await payloads(store, BOB)
        await save(store, BOB, item("4", text("d" * 2998)))
        one = await payloads(store, BOB)

        assert two == [text("b" * 498), text("c" * 498)]
        assert one == [text("d" * 2998)]

    async def test_full_default_limit_keeps_at_least_its_newest(self, store: MessageStore) -> None:
        for start in range(0, 1200, 100):
            await save(store, BOB, *(item(f"{n}", b"[%d]" % n) for n in range(start, start + 100)))

        kept = await payloads(store, BOB)

        assert 1000 <= len(kept) <= 1000 + 1000 // 16
        assert kept == [b"[%d]" % n for n in range(1200)][-len(kept) :]

    async def test_mark_is_forgotten_when_the_removed_would_have_expired(self, opened: Harness) -> None:
        store = await opened.open(Limits(max_messages_per_key=2))
        short, long, _, _ = await save(
            store,
            BOB,
            item("1", expire_s=10),
            item("2", expire_s=100),
            item("3", expire_s=1000),
            item("4", expire_s=1000),
        )

        async def mark() -> Mid:
            return (await store.load_after(BOB, Mid(0), PLENTY, PLENTY)).trimmed

        assert short.mid < await mark() == long.mid
        opened.advance(50)
        await remove_all_expired(store)
        assert await mark() == long.mid
        opened.advance(55)
        assert await mark() == 0
        await remove_all_expired(store)
        assert await mark() == 0

    async def test_mark_outlives_the_messages_that_are_left(self, opened: Harness) -> None:
        store = await opened.open(Limits(max_messages_per_key=1))
        removed, _ = await save(store, BOB, item("1", expire_s=1000), item("2", expire_s=1))
        opened.advance(200)
        await remove_all_expired(store)

        page = await store.load_after(BOB, Mid(0), PLENTY, PLENTY)

        assert page.messages == []
        assert page.trimmed == removed.mid

    async def test_expired_messages_that_make_room_leave_no_mark(self, opened: Harness) -> None:
        store = await opened.open(Limits(max_messages_per_key=2))
        await save(store, BOB, item("1", expire_s=1), item("2", expire_s=1))
        opened.advance(3)

        await save(store, BOB, item("3", b"[3]"), item("4", b"[4]"))
        page = await store.load_after(BOB, Mid(0), PLENTY, PLENTY)

        assert [m.payload for m in page.messages] == [b"[3]", b"[4]"]
        assert page.trimmed == 0

    # -- deleting

    async def test_deleted_key_is_empty_and_counts_what_was_there(
        self, harness: Harness, store: MessageStore
    ) -> None:
        await save(store, BOB, item("1", expire_s=1), item("2"), item("3"))
        await save(store, ALICE, item("1", b"[1]"))
        await store.acknowledge(BOB, "phone", Mid(80))
        harness.advance(3)

        deleted = await store.delete_key(BOB)

        assert deleted == 2
        assert await payloads(store, BOB) == []
        assert await store.acknowledged(BOB, "phone") == 0
        assert await payloads(store, ALICE) == [b"[1]"]

    async def test_deleting_a_key_that_is_unknown_or_empty_deletes_nothing(self, store: MessageStore) -> None:
        await save(store, BOB, item("1"))
        await store.delete_key(BOB)

        assert await store.delete_key(BOB) == 0
        assert await store.delete_key(ALICE) == 0

    async def test_repeat_after_a_deletion_does_not_bring_the_message_back(self, store: MessageStore) -> None:
        (first,) = await save(store, BOB, item("1", b"[1]"))
        await store.delete_key(BOB)

        (again,) = await save(store, BOB, item("1", b"[1]"))

        assert (again.outcome, again.mid) == (Outcome.REPEATED, first.mid)
        assert await payloads(store, BOB) == []

    async def test_mids_and_prev_go_on_after_a_deletion(self, store: MessageStore) -> None:
        (first,) = await save(store, BOB, item("1"))
        await store.delete_key(BOB)

        (after,) = await save(store, BOB, item("2", b"[2]"))

        assert after.mid > first.mid
        assert after.prev == 0
        assert await payloads(store, BOB) == [b"[2]"]

    async def test_deletion_removes_the_mark_of_a_gap(self, opened: Harness) -> None:
        store = await opened.open(Limits(max_messages_per_key=1))
        await save(store, BOB, item("1"), item("2"))

        await store.delete_key(BOB)

        assert (await store.load_after(BOB, Mid(0), PLENTY, PLENTY)).trimmed == 0

    async def test_deletion_takes_its_turn_among_the_saves(self, store: MessageStore) -> None:
        deadline = Mid(await store.clock() + 60 * TICKS_PER_SECOND)
        before = store.save(SaveBatch(BOB, [item("1", b"[1]")], Mid(0), deadline))
        deletion = asyncio.ensure_future(store.delete_key(BOB))
        await asyncio.sleep(0)
        after = store.save(SaveBatch(BOB, [item("2", b"[2]")], Mid(0), deadline))

        await asyncio.gather(before, deletion, after)

        assert deletion.result() == 1
        assert await payloads(store, BOB) == [b"[2]"]

    async def test_single_message_is_deleted(self, store: MessageStore) -> None:
        first, second, third = await save(store, BOB, item("1", b"[1]"), item("2", b"[2]"), item("3", b"[3]"))

        assert await store.delete_message(BOB, second.mid)
        assert not await store.delete_message(BOB, second.mid)
        assert not await store.delete_message(ALICE, first.mid)
        assert not await store.delete_message(BOB, Mid(third.mid + STEP))

        assert await payloads(store, BOB) == [b"[1]", b"[3]"]
        assert (await store.inspect(BOB)).messages == 2

    async def test_deleted_messages_free_room_under_the_limit(self, opened: Harness) -> None:
        store = await opened.open(Limits(max_messages_per_key=2))
        _, second = await save(store, BOB, item("1", b"[1]"), item("2", b"[2]"))
        await store.delete_message(BOB, second.mid)

        await save(store, BOB, item("3", b"[3]"))

        assert await payloads(store, BOB) == [b"[1]", b"[3]"]

    # -- acknowledging

    async def test_acknowledged_mid_is_kept_per_device_and_never_goes_back(self, store: MessageStore) -> None:
        await store.acknowledge(BOB, "phone", Mid(800))
        await store.acknowledge(BOB, "phone", Mid(80))
        await store.acknowledge(BOB, "", Mid(160))

        assert await store.acknowledged(BOB, "phone") == 800
        assert await store.acknowledged(BOB, "") == 160
        assert await store.acknowledged(BOB, "Phone") == 0
        assert await store.acknowledged(ALICE, "phone") == 0

    async def test_device_over_the_limit_replaces_the_one_silent_longest(self, opened: Harness) -> None:
        store = await opened.open(Limits(max_devices_per_key=2))
        await store.acknowledge(BOB, "old", Mid(8000))
        opened.advance(2 * 86_400)
        await store.acknowledge(BOB, "new", Mid(80))
        await store.acknowledge(BOB, "newest", Mid(160))

        assert (await store.inspect(BOB)).acknowledged == {"new": 80, "newest": 160}

    async def test_silent_device_is_forgotten_and_others_are_not(self, opened: Harness) -> None:
        store = await opened.open(Limits(device_memory_days=30))
        await store.acknowledge(BOB, "silent", Mid(80))
        await store.acknowledge(BOB, "active", Mid(80))
        opened.advance(20 * 86_400)
        await store.acknowledge(BOB, "active", Mid(80))
        opened.advance(12 * 86_400)
        await remove_all_expired(store)

        assert await store.acknowledged(BOB, "silent") == 0
        assert await store.acknowledged(BOB, "active") == 80

    async def test_long_device_name_is_a_request_error(self, store: MessageStore) -> None:
        await store.acknowledge(BOB, "d" * MAX_DEVICE_BYTES, Mid(80))

        with pytest.raises(RequestError):
            await store.acknowledge(BOB, "d" * (MAX_DEVICE_BYTES + 1), Mid(80))
        with pytest.raises(RequestError):
            await store.acknowledge(BOB, "д" * (MAX_DEVICE_BYTES // 2 + 1), Mid(80))

    # -- fences

    async def test_fenced_incarnation_stores_nothing_and_others_do(self, store: MessageStore) -> None:
        deadline = Mid(await store.clock() + 10 * TICKS_PER_SECOND)
        before = SaveBatch(BOB, [item("1", b"[1]")], Mid(0), deadline, "old-1")
        await store.save(before)

        await store.fence("old-1")
        await store.fence("old-1")
        fenced = store.save(SaveBatch(BOB, [item("2", b"[2]")], Mid(0), deadline, "old-1"))
        other = store.save(SaveBatch(ALICE, [item("3", b"[3]")], Mid(0), deadline, "new-2"))
        nameless = store.save(SaveBatch(BOB, [item("4", b"[4]")], Mid(0), deadline))

        with pytest.raises(NotOwnerError):
            await fenced
        with pytest.raises(NotOwnerError):
            await store.save(before)
        assert (await other).results[0].outcome is Outcome.SAVED
        assert (await nameless).results[0].outcome is Outcome.SAVED
        assert await payloads(store, BOB) == [b"[1]", b"[4]"]
        assert await store.is_fenced("old-1")
        assert not await store.is_fenced("new-2")

    async def test_fence_is_remembered_for_a_day_and_over_a_restart(self, opened: Harness) -> None:
        store = await opened.open()
        await store.fence("old-1")
        opened.advance(23 * 3600)

        store = await opened.open()
        within = await store.is_fenced("old-1")
        opened.advance(2 * 3600)

        assert within
        assert not await store.is_fenced("old-1")

    @pytest.mark.parametrize("name", ["", "x" * 65, "a\nb", "é"])
    async def test_impossible_incarnation_is_a_request_error(self, store: MessageStore, name: str) -> None:
        deadline = Mid(await store.clock() + 10 * TICKS_PER_SECOND)

        with pytest.raises(RequestError):
            await store.fence(name)
        if name:
            with pytest.raises(RequestError):
                await store.save(SaveBatch(BOB, [item("1")], Mid(0), deadline, name))

    # -- looking

    async def test_inspect_counts_what_is_stored(self, store: MessageStore) -> None:
        first, _, third = await save(store, BOB, item("1", b"123"), item("2", b"1234"), item("3", b"1"))
        await store.acknowledge(BOB, "phone", first.mid)

        stored = await store.inspect(BOB)

        assert (stored.messages, stored.payload_bytes) == (3, 8)
        assert (stored.first, stored.last) == (first.mid, third.mid)
        assert stored.acknowledged == {"phone": first.mid}

    async def test_inspect_of_an_unknown_key_is_empty(self, store: MessageStore) -> None:
        stored = await store.inspect(BOB)

        assert (stored.messages, stored.payload_bytes, stored.first, stored.last) == (0, 0, 0, 0)
        assert stored.acknowledged == {}

    async def test_store_says_what_it_promises(self, store: MessageStore) -> None:
        guarantees = store.describe()

        assert guarantees
        for guarantee in guarantees:
            assert guarantee.backend
            assert guarantee.location
            assert guarantee.durability
            assert guarantee.promise

    # -- the clock and restarts

    async def test_clock_advances_in_steps_and_never_goes_back(
        self, harness: Harness, store: MessageStore
    ) -> None:
        first = await store.clock()
        harness.advance(100)
        second = await store.clock()
        harness.advance(-1000)
        third = await store.clock()

        assert first % STEP == second % STEP == 0
        assert second >= first + 99 * TICKS_PER_SECOND
        assert third >= second

    async def test_everything_is_there_after_a_restart(self, opened: Harness) -> None:
        limits = Limits(max_messages_per_key=2)
        store = await opened.open(limits)
        results = await save(store, BOB, *(item(str(n), b"[%d]" % n, id_ttl_s=600) for n in range(3)))
        await store.acknowledge(BOB, "phone", results[1].mid)

        store = await opened.open(limits)

        page = await store.load_after(BOB, Mid(0), PLENTY, PLENTY)
        assert [m.payload for m in page.messages] == [b"[1]", b"[2]"]
        assert page.trimmed == results[0].mid
        assert await store.acknowledged(BOB, "phone") == results[1].mid
        (again,) = await save(store, BOB, item("2", b"[2]"))
        assert (again.outcome, again.mid) == (Outcome.REPEATED, results[2].mid)
        (new,) = await save(store, BOB, item("3"))
        assert new.prev == results[2].mid

    async def test_mids_increase_over_a_restart_with_a_clock_that_went_back(self, opened: Harness) -> None:
        store = await opened.open()
        (before,) = await save(store, BOB, item("1"))
        await save(store, ALICE, item("1", expire_s=1))
        opened.advance(-3600)

        store = await opened.open()
        (after,) = await save(store, BOB, item("2"))
        (other,) = await save(store, Key("carol"), item("1"))

        assert after.mid > before.mid
        assert other.mid > before.mid
        assert await store.clock() >= before.mid

    async def test_stopped_store_refuses_work(self, store: MessageStore) -> None:
        deadline = Mid(await store.clock() + TICKS_PER_SECOND)
        await store.stop()
        await store.stop()

        with pytest.raises(UnavailableError):
            await store.save(SaveBatch(BOB, [item("1")], Mid(0), deadline))
        with pytest.raises(UnavailableError):
            await store.load_after(BOB, Mid(0), 1, 1)
        with pytest.raises(UnavailableError):
            await store.delete_key(BOB)

    async def test_saves_asked_for_before_a_stop_are_finished(self, opened: Harness) -> None:
        store = await opened.open()
        deadline = Mid(await store.clock() + 60 * TICKS_PER_SECOND)
        futures = [
            store.save(SaveBatch(Key(f"k{n}"), [item("1", b"[1]")], Mid(0), deadline)) for n in range(300)
        ]

        await store.stop()

        assert all(future.done() and future.exception() is None for future in futures)
        store = await opened.open()
        assert await payloads(store, Key("k299")) == [b"[1]"]
