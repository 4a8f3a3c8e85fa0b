"""Push ids: what is stored once however often it is asked for."""

from __future__ import annotations

import asyncio

import pytest

from cluster.contracts.message import MAX_PUSH_ID_BYTES, Outcome, SaveBatch
from cluster.errors import DeadlinePassedError
from cluster.mids import TICKS_PER_SECOND
from cluster.model import Mid
from message.storage.base import MessageStore
from tests.message.storage.saving import ALICE, BOB, item, load_all, save
from tests.message.storage.store_suite.ground import Ground, Harness, Limits, remove_all_expired


class Ids(Ground):
    """Part of the suite."""

    async def test_repeated_id_is_stored_once_and_gives_the_first_mid(self, store: MessageStore) -> None:
        (first,) = await save(store, BOB, item("1", b"[1]"))

        (again,) = await save(store, BOB, item("1", b"[1]"))

        assert (again.outcome, again.mid) == (Outcome.REPEATED, first.mid)
        assert await load_all(store, BOB) == [b"[1]"]

    async def test_id_repeated_within_a_batch_is_stored_once(self, store: MessageStore) -> None:
        first, again, other = await save(store, BOB, item("1", b"[1]"), item("1", b"[1]"), item("1", b"[2]"))

        assert (again.outcome, again.mid) == (Outcome.REPEATED, first.mid)
        assert other.outcome is Outcome.CONFLICT
        assert await load_all(store, BOB) == [b"[1]"]

    async def test_id_repeated_at_the_same_time_is_stored_once(self, store: MessageStore) -> None:
        deadline = Mid(await store.clock() + 60 * TICKS_PER_SECOND)
        batch = SaveBatch(BOB, [item("1", b"[1]")], Mid(0), deadline)

        replies = await asyncio.gather(*(store.save(batch) for _ in range(10)))

        assert len({reply.results[0].mid for reply in replies}) == 1
        assert await load_all(store, BOB) == [b"[1]"]

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
        assert await load_all(store, BOB) == [b"[1]", b"[3]"]

    async def test_same_id_for_another_key_is_another_message(self, store: MessageStore) -> None:
        await save(store, BOB, item("1", b"[1]"))

        (result,) = await save(store, ALICE, item("1", b"[2]"))

        assert result.outcome is Outcome.SAVED
        assert await load_all(store, ALICE) == [b"[2]"]

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
        assert await load_all(store, BOB) == [b"[1]", b"[4]"]

    async def test_what_has_no_id_is_stored_each_time(self, store: MessageStore) -> None:
        first, second = await save(store, BOB, item("", b"[1]"), item("", b"[1]"))
        named, third = await save(store, BOB, item("1", b"[2]"), item("", b"[1]"))
        (again,) = await save(store, BOB, item("1", b"[2]"))

        results = [first, second, named, third]
        assert {result.outcome for result in results} == {Outcome.SAVED}
        mids = [result.mid for result in results]
        assert mids == sorted(set(mids))
        assert [result.prev for result in results[1:]] == mids[:3]
        assert (again.outcome, again.mid) == (Outcome.REPEATED, named.mid)
        assert await load_all(store, BOB) == [b"[1]", b"[1]", b"[2]", b"[1]"]

    async def test_late_save_without_an_id_is_refused(self, store: MessageStore) -> None:
        await save(store, BOB, item("1"), item(""))
        deadline = Mid(await store.clock() - 80)

        for late in ([item("")], [item("1"), item("")]):
            with pytest.raises(DeadlinePassedError):
                await store.save(SaveBatch(BOB, late, Mid(0), deadline))

    async def test_mids_go_on_above_a_message_without_an_id_that_was_deleted(
        self, store: MessageStore
    ) -> None:
        # Ahead of the clock, so that only what is remembered keeps the next one above it.
        sent = await store.clock() + TICKS_PER_SECOND * 9 // 10
        (before,) = await save(store, BOB, item(""), sent=sent)
        assert await store.delete_key(BOB) == 1

        (after,) = await save(store, BOB, item(""))

        assert after.mid > before.mid > sent
