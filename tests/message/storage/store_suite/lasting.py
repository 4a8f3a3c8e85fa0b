"""The store's clock, restarts and stops."""

from __future__ import annotations

import pytest

from cluster.contracts.message import Outcome, SaveBatch
from cluster.errors import UnavailableError
from cluster.mids import STEP, TICKS_PER_SECOND
from cluster.model import Key, Mid
from message.storage.base import MessageStore
from tests.message.storage.saving import ALICE, BOB, PLENTY, item, load_all, save
from tests.message.storage.store_suite.ground import Ground, Harness, Limits


class Lasting(Ground):
    """Part of the suite."""

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
        assert await load_all(store, Key("k299")) == [b"[1]"]
