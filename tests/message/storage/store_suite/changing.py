"""Deletions, acknowledgements and fences."""

from __future__ import annotations

import asyncio

import pytest

from cluster.contracts.message import Outcome, SaveBatch
from cluster.errors import NotOwnerError, RequestError
from cluster.mids import STEP, TICKS_PER_SECOND
from cluster.model import Key, Mid
from message.storage.base import MessageStore
from message.storage.rules import MAX_DEVICE_BYTES
from tests.message.storage.saving import ALICE, BOB, PLENTY, item, load_all, save
from tests.message.storage.store_suite.ground import Ground, Harness, Limits, remove_all_expired


class Changing(Ground):
    """Part of the suite."""

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
        assert await load_all(store, BOB) == []
        assert await store.acknowledged(BOB, "phone") == 0
        assert await load_all(store, ALICE) == [b"[1]"]

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
        assert await load_all(store, BOB) == []

    async def test_mids_and_prev_go_on_after_a_deletion(self, store: MessageStore) -> None:
        (first,) = await save(store, BOB, item("1"))
        await store.delete_key(BOB)

        (after,) = await save(store, BOB, item("2", b"[2]"))

        assert after.mid > first.mid
        assert after.prev == 0
        assert await load_all(store, BOB) == [b"[2]"]

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
        assert await load_all(store, BOB) == [b"[2]"]

    async def test_single_message_is_deleted(self, store: MessageStore) -> None:
        first, second, third = await save(store, BOB, item("1", b"[1]"), item("2", b"[2]"), item("3", b"[3]"))

        assert await store.delete_message(BOB, second.mid)
        assert not await store.delete_message(BOB, second.mid)
        assert not await store.delete_message(ALICE, first.mid)
        assert not await store.delete_message(BOB, Mid(third.mid + STEP))

        assert await load_all(store, BOB) == [b"[1]", b"[3]"]
        assert (await store.inspect(BOB)).messages == 2

    async def test_deleted_messages_free_room_under_the_limit(self, opened: Harness) -> None:
        store = await opened.open(Limits(max_messages_per_key=2))
        _, second = await save(store, BOB, item("1", b"[1]"), item("2", b"[2]"))
        await store.delete_message(BOB, second.mid)

        await save(store, BOB, item("3", b"[3]"))

        assert await load_all(store, BOB) == [b"[1]", b"[3]"]

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

    @pytest.mark.parametrize("text", ["", "k" * 513, "new\nline", "\ud800"])
    async def test_what_is_no_key_is_a_request_error_and_harms_no_other(
        self, store: MessageStore, text: str
    ) -> None:
        no_key = Key(text)
        await save(store, BOB, item("1", b"[1]"))

        async def ask_all(key: Key) -> list[object]:
            return await asyncio.gather(
                store.load_after(key, Mid(0), PLENTY, PLENTY),
                store.acknowledged(key, "phone"),
                store.inspect(key),
                store.acknowledge(key, "phone", Mid(80)),
                store.delete_message(key, Mid(80)),
                store.delete_key(key),
                return_exceptions=True,
            )

        refused, answered = await asyncio.gather(ask_all(no_key), ask_all(BOB))

        assert [type(answer) for answer in refused] == [RequestError] * 6
        assert not [answer for answer in answered if isinstance(answer, Exception)]

    @pytest.mark.parametrize("device", ["d" * (MAX_DEVICE_BYTES + 1), "\ud800"])
    async def test_what_is_no_device_is_a_request_error(self, store: MessageStore, device: str) -> None:
        with pytest.raises(RequestError):
            await store.acknowledge(BOB, device, Mid(80))
        with pytest.raises(RequestError):
            await store.acknowledged(BOB, device)

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
        assert await load_all(store, BOB) == [b"[1]", b"[4]"]
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
        with pytest.raises(RequestError):
            await store.is_fenced(name)
        if name:
            with pytest.raises(RequestError):
                await store.save(SaveBatch(BOB, [item("1")], Mid(0), deadline, name))
