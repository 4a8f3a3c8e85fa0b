"""Saves, the mids that they are given, and those that are refused."""

from __future__ import annotations

import asyncio

import pytest

from cluster.contracts.message import (
    MAX_EXPIRE_S,
    MAX_PUSH_ID_BYTES,
    Outcome,
    SaveBatch,
    SaveItem,
    SaveReply,
)
from cluster.errors import DeadlinePassedError, RequestError
from cluster.mids import STEP, TICKS_PER_SECOND
from cluster.model import Key, Mid
from message.storage.base import MessageStore
from tests.message.storage.saving import ALICE, BOB, PLENTY, item, load_all, save
from tests.message.storage.store_suite.ground import Ground, Harness, text


class Saving(Ground):
    """Part of the suite."""

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

        assert await load_all(store, BOB, first.mid) == [b"[2]", b"[3]"]
        assert await load_all(store, BOB, second.mid - 1) == [b"[2]", b"[3]"]
        assert await load_all(store, BOB, third.mid) == []
        assert await load_all(store, BOB, 2**63 - 1) == []

    async def test_keys_do_not_see_each_other(self, store: MessageStore) -> None:
        await save(store, BOB, item("1", b"[1]"))
        await save(store, Key("Bob"), item("1", b"[2]"))
        await save(store, Key("bob "), item("1", b"[3]"))

        assert await load_all(store, BOB) == [b"[1]"]
        assert await load_all(store, Key("Bob")) == [b"[2]"]
        assert await load_all(store, ALICE) == []

    @pytest.mark.parametrize(
        "key", ["k" * 512, "ключ", "кл" * 128, "a'b\"c;--", "%", "日本🚀", "é", "e\u0301"]
    )
    async def test_any_key_keeps_its_messages(self, store: MessageStore, key: str) -> None:
        await save(store, Key(key), item("1", b"[1]"))
        await save(store, Key("other"), item("2", b"[2]"))

        assert await load_all(store, Key(key)) == [b"[1]"]

    async def test_payload_comes_back_byte_for_byte(self, store: MessageStore) -> None:
        payload = '{"text":"ä 日本 🚀 \\u0000 \x7f","n":1.50}'.encode()
        large = b'"' + b"x" * 1_000_000 + b'"'

        await save(store, BOB, item("1", payload), item("2", large))

        assert await load_all(store, BOB) == [payload, large]

    async def test_number_that_no_double_can_hold_comes_back(self, store: MessageStore) -> None:
        await save(store, BOB, item("1", b'{"n":1E+400}'))

        assert await load_all(store, BOB) == [b'{"n":1E+400}']

    async def test_equal_payloads_are_stored_each(self, store: MessageStore) -> None:
        await save(store, BOB, item("1", b"[1]"), item("2", b"[1]"))
        await save(store, BOB, item("3", b"[1]"))

        assert await load_all(store, BOB) == [b"[1]"] * 3

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
            assert await load_all(store, key) == [text(key)]

    async def test_batch_of_many_items_is_stored_in_order(self, store: MessageStore) -> None:
        items = [item(f"id-{number}", b"[%d]" % number) for number in range(700)]

        results = await save(store, BOB, *items)

        assert [r.mid for r in results] == sorted({r.mid for r in results})
        assert await load_all(store, BOB) == [i.payload for i in items]

    async def test_batches_of_one_key_that_overlap_keep_their_order(self, store: MessageStore) -> None:
        deadline = Mid(await store.clock() + 60 * TICKS_PER_SECOND)

        replies: list[SaveReply] = await asyncio.gather(
            *(store.save(SaveBatch(BOB, [item(f"{n}", b"[%d]" % n)], Mid(0), deadline)) for n in range(100))
        )

        mids = [reply.results[0].mid for reply in replies]
        assert mids == sorted(set(mids))
        assert await load_all(store, BOB) == [b"[%d]" % n for n in range(100)]

    async def test_cancelled_save_is_stored_all_the_same(self, store: MessageStore) -> None:
        deadline = Mid(await store.clock() + 60 * TICKS_PER_SECOND)
        future = store.save(SaveBatch(BOB, [item("1", b"[1]")], Mid(0), deadline))

        future.cancel()
        await save(store, BOB, item("2", b"[2]"))

        assert await load_all(store, BOB) == [b"[1]", b"[2]"]

    async def test_empty_batch_is_answered(self, store: MessageStore) -> None:
        assert await save(store, BOB) == []
        assert await load_all(store, BOB) == []

    # -- deadlines and bad requests

    async def test_save_after_its_deadline_is_refused(self, store: MessageStore) -> None:
        deadline = Mid(await store.clock() - TICKS_PER_SECOND)

        with pytest.raises(DeadlinePassedError):
            await store.save(SaveBatch(BOB, [item("1")], Mid(0), deadline))

        assert await load_all(store, BOB) == []

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
        assert await load_all(store, BOB) == [b"[1]", b"[2]"]

    async def test_late_save_does_not_fail_its_neighbours(self, store: MessageStore) -> None:
        clock = await store.clock()
        late = store.save(SaveBatch(BOB, [item("1")], Mid(0), Mid(clock - 80)))
        good = store.save(SaveBatch(ALICE, [item("2", b"[2]")], Mid(0), Mid(clock + 10 * TICKS_PER_SECOND)))

        assert (await good).results[0].outcome is Outcome.SAVED
        with pytest.raises(DeadlinePassedError):
            await late
        assert await load_all(store, ALICE) == [b"[2]"]

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
            ("k", item("", id_ttl_s=60)),
            ("k", item("", expire_s=0)),
            ("k", item("x" * (MAX_PUSH_ID_BYTES + 1))),
            ("k", item("ж" * (MAX_PUSH_ID_BYTES // 2 + 1))),
            ("k", item("\udc80")),
            ("k", item("1", expire_s=-1)),
            ("k", item("1", expire_s=MAX_EXPIRE_S + 1)),
            ("k", item("1", expire_s=2**63)),
        ],
    )
    async def test_impossible_save_is_a_request_error(
        self, store: MessageStore, key: str, bad: SaveItem
    ) -> None:
        deadline = Mid(await store.clock() + 10 * TICKS_PER_SECOND)

        with pytest.raises(RequestError):
            await store.save(SaveBatch(Key(key), [bad], Mid(0), deadline))
