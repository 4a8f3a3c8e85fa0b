"""What leaves a store by itself: what has expired, and what is over the limits of its key."""

from __future__ import annotations

from cluster.contracts.message import Outcome
from cluster.mids import TICKS_PER_SECOND
from cluster.model import Mid
from message.storage.base import MessageStore
from tests.message.storage.saving import ALICE, BOB, PLENTY, item, load_all, save
from tests.message.storage.store_suite.ground import Ground, Harness, Limits, remove_all_expired, text


class Bounds(Ground):
    """Part of the suite."""

    # -- expiry

    async def test_message_lives_for_its_time_and_not_longer(
        self, harness: Harness, store: MessageStore
    ) -> None:
        await save(store, BOB, item("1", b"[1]", expire_s=10), item("2", b"[2]", expire_s=600))

        harness.advance(9.5)
        before = await load_all(store, BOB)
        harness.advance(2)
        after = await load_all(store, BOB)

        assert before == [b"[1]", b"[2]"]
        assert after == [b"[2]"]

    async def test_page_tells_when_its_messages_expire(self, store: MessageStore) -> None:
        await save(store, BOB, item("1", expire_s=600))

        page = await store.load_after(BOB, Mid(0), PLENTY, PLENTY)

        lifetime_s = page.messages[0].expires_at - page.clock / TICKS_PER_SECOND
        assert 599 <= lifetime_s <= 601

    async def test_longest_expiry_is_accepted(self, store: MessageStore) -> None:
        await save(store, BOB, item("1", b"[1]", expire_s=4_294_967_295))

        assert await load_all(store, BOB) == [b"[1]"]

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

        assert await load_all(store, BOB) == [b"[7]", b"[8]", b"[9]"]
        assert (await store.inspect(BOB)).messages == 3

    async def test_bytes_of_a_key_are_limited_and_the_newest_always_fits(self, opened: Harness) -> None:
        store = await opened.open(Limits(max_bytes_per_key=1024))
        await save(
            store, BOB, item("1", text("a" * 498)), item("2", text("b" * 498)), item("3", text("c" * 498))
        )
        two = await load_all(store, BOB)
        await save(store, BOB, item("4", text("d" * 2998)))
        one = await load_all(store, BOB)

        assert two == [text("b" * 498), text("c" * 498)]
        assert one == [text("d" * 2998)]

    async def test_full_default_limit_keeps_at_least_its_newest(self, store: MessageStore) -> None:
        for start in range(0, 1200, 100):
            await save(store, BOB, *(item(f"{n}", b"[%d]" % n) for n in range(start, start + 100)))

        kept = await load_all(store, BOB)

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
