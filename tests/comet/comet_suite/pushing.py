"""Pushes that succeed: what is saved, delivered and answered, and in which order."""

from __future__ import annotations

import asyncio
import itertools
from random import Random

import pytest

from cluster.contracts.comet import PushReply
from cluster.mids import STEP
from tests.comet.comet_suite.ground import Ground, Open, stored
from tests.comet.nodes import Core, values
from tests.support.eventually import eventually

MIB = 1024 * 1024


class Pushing(Ground):
    """Part of the suite."""

    @pytest.mark.parametrize("expire_s", [0, 600])
    async def test_push_to_one_key_is_delivered_with_the_mid_that_is_answered(
        self, core: Core, expire_s: int
    ) -> None:
        bob = await core.subscribe("bob")

        reply = await core.push("bob", {"n": 1}, expire_s=expire_s)

        document = await bob.next_document()
        assert reply == PushReply([document.mid], [1], [], [])
        assert document.value["msg"] == {"n": 1}
        assert await stored(core, "bob") == ([b'{"n": 1}'] if expire_s else [])

    @pytest.mark.parametrize("expire_s", [0, 600])
    async def test_push_to_an_offline_key_leaves_nothing_in_memory(self, core: Core, expire_s: int) -> None:
        reply = await core.push([f"offline-{n}" for n in range(50)], 1, expire_s=expire_s)

        assert all(reply.mids)
        assert (reply.online, reply.failed, reply.repeated) == ([0] * 50, [], [])
        for gauge in ("channels", "busy_keys", "pending_keys"):
            assert core.comet.counted(gauge) == 0

    async def test_stored_message_reaches_who_comes_later(self, core: Core) -> None:
        reply = await core.push("bob", "kept", expire_s=600)

        bob = await core.subscribe("bob", mid=0)

        document = await bob.next_document()
        assert (document.value["msg"], document.mid) == ("kept", reply.mids[0])

    async def test_results_of_many_keys_are_in_their_order(self, core: Core) -> None:
        first, second = await core.subscribe("bob"), await core.subscribe_websocket("bob")
        alice = await core.subscribe("alice")

        reply = await core.push(["nobody", "bob", "alice"], 1, expire_s=600)

        assert (reply.online, reply.failed, reply.repeated) == ([0, 2, 1], [], [])
        assert reply.mids[0] > 0
        documents = [await one.next_document() for one in (first, second, alice)]
        assert [document.mid for document in documents] == [reply.mids[1], reply.mids[1], reply.mids[2]]

    @pytest.mark.parametrize("expire_s", [0, 600])
    async def test_push_to_very_many_keys_is_answered_for_each(self, core: Core, expire_s: int) -> None:
        last = await core.subscribe("k4999")

        reply = await core.push([f"k{n}" for n in range(5000)], 1, expire_s=expire_s)

        assert all(reply.mids)
        assert reply.online == [0] * 4999 + [1]
        assert (len(reply.mids), reply.failed, reply.repeated) == (5000, [], [])
        assert (await last.next_document()).mid == reply.mids[-1]

    @pytest.mark.parametrize("key", ["заказ 7", "日本🚀", "a'b\"c\\", " ", "x" * 512])
    async def test_any_key_and_payload_arrive_as_they_are(self, core: Core, key: str) -> None:
        value = {"": [None, 1.5, "\u2028🐟"], "k": key}
        bob = await core.subscribe(key)

        for expire_s in (0, 600):
            assert (await core.push(key, value, expire_s=expire_s)).online == [1]

        assert values(await bob.documents(2)) == [value, value]

    async def test_largest_payload_passes(self, opened: Open) -> None:
        async with opened(unread_limit_bytes=8 * MIB) as core:
            bob = await core.subscribe("bob")
            value = "x" * (MIB - 2)
            for expire_s in (0, 600):
                assert (await core.push("bob", value, expire_s=expire_s)).online == [1]
                assert values([await bob.next_document()]) == [value]

    async def test_push_to_the_most_keys_that_a_request_may_name_passes(self, core: Core) -> None:
        # 16 MB, as a body of the HTTP API may have.
        keys = [f"{n:0160}" for n in range(100_000)]

        reply = await core.push(keys, 1)

        assert all(reply.mids)
        assert (len(reply.mids), len(reply.online), reply.failed) == (100_000, 100_000, [])

    async def test_mids_of_a_key_rise_whether_stored_or_not(self, core: Core) -> None:
        bob = await core.subscribe("bob")

        mids = [(await core.push("bob", n, expire_s=600 * (n % 2))).mids[0] for n in range(20)]

        assert all(later - earlier >= STEP for earlier, later in itertools.pairwise(mids))
        documents = await bob.documents(20)
        assert values(documents) == list(range(20))
        assert [document.mid for document in documents] == mids

    async def test_unsaved_push_takes_its_turn_behind_a_save(self, core: Core) -> None:
        bob = await core.subscribe("bob")
        gate = core.way.close_gate("bob")
        saved = core.push("bob", "saved", expire_s=600)
        unsaved = core.push("bob", "unsaved")
        await eventually(lambda: core.comet.counted("pending_keys") == 2)
        assert not unsaved.done()

        gate.set()

        documents = await bob.documents(2)
        assert values(documents) == ["saved", "unsaved"]
        assert (await saved).mids[0] < (await unsaved).mids[0]

    async def test_each_key_gets_its_pushes_in_the_order_of_the_calls_whatever_their_size(
        self, opened: Open
    ) -> None:
        async with opened(fan_out_slice=2) as core:
            keys = [f"k{n}" for n in range(6)]
            subscribers = {key: await core.subscribe(key) for key in keys}
            random = Random(11)
            wanted: dict[str, list[int]] = {key: [] for key in keys}
            pushes = []
            for number in range(200):
                names = random.sample(keys, random.randint(1, len(keys)))
                pushes.append(core.push(names, number, expire_s=random.choice([0, 0, 600])))
                for name in names:
                    wanted[name].append(number)
                if random.random() < 0.2:
                    # Lets slices and saves go on.
                    await asyncio.sleep(0)
            for push in pushes:
                assert (await push).failed == []
            for key, subscriber in subscribers.items():
                assert values(await subscriber.documents(len(wanted[key]))) == wanted[key]
            assert core.comet.counted("busy_keys") == core.comet.counted("pending_keys") == 0

    async def test_slow_key_does_not_hold_up_another(self, core: Core) -> None:
        gate = core.way.close_gate("slow")
        slow = core.push("slow", 1, expire_s=600)

        assert (await core.push("quick", 1, expire_s=600)).failed == []

        assert not slow.done()
        gate.set()
        assert (await slow).failed == []

    async def test_nothing_is_delivered_before_its_save_was_answered(self, core: Core) -> None:
        bob = await core.subscribe("bob")
        gate = core.way.close_gate("bob")
        push = core.push("bob", 1, expire_s=600)
        await eventually(lambda: core.way.batches)
        # An answered heartbeat tells that nothing was written before it.
        await bob.beat()
        assert not push.done()

        gate.set()

        assert (await push).online == [1]
        assert values([await bob.next_document()]) == [1]

    async def test_push_whose_caller_goes_away_after_saving_began_is_done_all_the_same(
        self, core: Core
    ) -> None:
        bob = await core.subscribe("bob")
        gate = core.way.close_gate("bob")
        pushes = [core.push("bob", n, expire_s=600) for n in range(3)]
        # One is being saved, two wait for their turn.
        await eventually(lambda: core.way.batches and core.comet.counted("pending_keys") == 3)

        await core.hang_up(*pushes)
        gate.set()

        assert values(await bob.documents(3)) == [0, 1, 2]
        assert await stored(core, "bob") == [b"0", b"1", b"2"]
        await eventually(lambda: core.comet.counted("pending_keys") == 0)

    async def test_cancelling_one_push_leaves_the_others_alone(self, core: Core) -> None:
        bob = await core.subscribe("bob")
        gate = core.way.close_gate("bob")
        first, second = (core.push("bob", n, expire_s=600) for n in range(2))
        await eventually(lambda: core.comet.counted("pending_keys") == 2)

        first.cancel()
        gate.set()

        assert (await second).online == [1]
        assert values(await bob.documents(2)) == [0, 1]
