"""Deleting a key: what is stored goes, who is connected is closed, at the key's turn."""

from __future__ import annotations

import asyncio
import logging

import pytest

from cluster.errors import EnckeError, OverloadedError, StorageError, UnavailableError
from cluster.model import Key
from tests.comet.comet_suite.ground import Ground, Open, assert_refused, epoch_of, stored
from tests.comet.nodes import Core, values
from tests.support.eventually import eventually
from tests.support.subscriber import End

BOB = Key("bob")
DELETED = End(4004, "the key was deleted")


class Deleting(Ground):
    """Part of the suite."""

    async def test_deletion_takes_what_is_stored_and_closes_who_is_connected(self, core: Core) -> None:
        first, second = await core.subscribe("bob"), await core.subscribe_websocket("bob")
        alice = await core.subscribe("alice")
        for key in ("bob", "alice"):
            for number in range(3):
                await core.push(key, number, expire_s=600)

        assert await core.service.delete_key(BOB, epoch_of(core)) == 3

        for subscriber in (first, second):
            assert values(await subscriber.documents(3)) == [0, 1, 2]
            assert await subscriber.end() == DELETED
        assert await stored(core, "bob") == []
        assert values(await alice.documents(3)) == [0, 1, 2]
        await alice.beat()
        assert await core.service.delete_key(BOB, epoch_of(core)) == 0

    async def test_deletion_takes_its_turn_between_pushes(self, core: Core) -> None:
        bob = await core.subscribe("bob")
        gate = core.way.close_gate("bob")
        before = core.push("bob", "before", expire_s=600)
        deletion = asyncio.ensure_future(core.service.delete_key(BOB, (0, 0)))
        # It is called in its task.
        await asyncio.sleep(0)
        after = core.push("bob", "after", expire_s=600)
        await eventually(lambda: core.comet.counted("pending_keys") == 2)

        gate.set()

        assert await deletion == 1
        assert (await before).online == [1]
        assert (await after).online == [0]
        assert values([await bob.next_document()]) == ["before"]
        assert await bob.end() == DELETED
        assert await stored(core, "bob") == [b'"after"']

    async def test_deletion_comes_after_a_large_push_that_was_called_before(self, opened: Open) -> None:
        async with opened(fan_out_slice=10) as core:
            large = core.push([f"k{n}" for n in range(100)], "large", expire_s=600)

            assert await core.service.delete_key(Key("k99"), (0, 0)) == 1

            assert (await large).failed == []
            assert await stored(core, "k99") == []
            assert await stored(core, "k98") == [b'"large"']

    async def test_deletion_behind_too_many_pushes_is_refused(self, opened: Open) -> None:
        async with opened(max_queue_per_key=2) as core:
            gate = core.way.close_gate("hot")
            pushes = [core.push("hot", n, expire_s=600) for n in range(2)]

            await assert_refused(core.service.delete_key(Key("hot"), (0, 0)), OverloadedError)

            gate.set()
            for push in pushes:
                assert (await push).failed == []

    async def test_deletion_that_the_store_refuses_closes_nobody(self, core: Core) -> None:
        bob = await core.subscribe("bob")
        core.way.delete_refusals.extend([StorageError("read only"), UnavailableError("down")])

        await assert_refused(core.service.delete_key(BOB, (0, 0)), StorageError)
        await assert_refused(core.service.delete_key(BOB, (0, 0)), UnavailableError)

        await bob.beat()
        assert await core.service.delete_key(BOB, (0, 0)) == 0
        assert await bob.end() == DELETED

    async def test_bug_in_a_deletion_is_told_as_an_error_and_the_key_goes_on(
        self, core: Core, caplog: pytest.LogCaptureFixture
    ) -> None:
        bob = await core.subscribe("bob")
        core.way.delete_refusals.append(ZeroDivisionError("a bug"))

        await assert_refused(core.service.delete_key(BOB, (0, 0)), EnckeError)

        (told,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert "a bug" in caplog.text
        assert told.name == "comet.pushing.deleting"
        assert (await core.push("bob", "next", expire_s=600)).online == [1]
        assert values([await bob.next_document()]) == ["next"]

    async def test_deletion_that_the_store_does_not_answer_is_unavailable_and_closes_nobody(
        self, opened: Open
    ) -> None:
        async with opened(store_timeout_s=0.5) as core:
            bob = await core.subscribe("bob")
            gate = core.way.close_gate("bob")

            await assert_refused(core.service.delete_key(BOB, (0, 0)), UnavailableError)

            await bob.beat()
            gate.set()
            assert await core.service.delete_key(BOB, (0, 0)) == 0
            assert await bob.end() == DELETED

    async def test_deletion_whose_caller_goes_away_is_done_all_the_same(self, core: Core) -> None:
        bob = await core.subscribe("bob")
        gate = core.way.close_gate("bob")
        # The refusal of the second is nobody's then.
        deletions = [asyncio.ensure_future(core.service.delete_key(BOB, (0, 0))) for _ in range(2)]
        await eventually(lambda: core.way.loads_waiting and len(core.node._keys.pusher._outcomes) == 2)
        core.way.delete_refusals.extend([StorageError("no")])

        await core.hang_up(*deletions)
        gate.set()

        assert await bob.end() == DELETED
        await eventually(lambda: core.comet.counted("busy_keys") == 0)
