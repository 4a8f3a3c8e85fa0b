"""web/pushing/tries.py: which pushes are sent again, to whom, and which are given up."""

from __future__ import annotations

import asyncio

import pytest

from cluster.contracts.comet import CometService, Push, PushReply
from cluster.errors import (
    DeadlinePassedError,
    EnckeError,
    InDoubtError,
    NotOwnerError,
    OverloadedError,
    StorageError,
    UnavailableError,
)
from cluster.model import Epoch, Key, Mid
from tests.support.eventually import eventually
from tests.support.services import ScriptedComet, failing, not_owner
from tests.support.web import comet_info
from tests.web.pushing.pusher import Pushing


async def test_refused_push_is_repeated_with_the_same_id_when_the_ring_has_changed(pushing: Pushing) -> None:
    old = await pushing.add("a")
    old.is_holding = True
    old.fates.append(not_owner())
    task = asyncio.create_task(pushing.push("k"))
    await eventually(lambda: old.held_count)
    registration = await pushing.registry.register(comet_info("c"))
    pushing.comets["c"] = ScriptedComet()
    old.is_holding = False
    old.release()
    reply = await task
    assert not reply.failed
    first, second = [*old.pushes, *pushing.comets["c"].pushes]
    assert first.push_id == second.push_id
    assert second.epoch > first.epoch
    assert second.timeout_s <= first.timeout_s
    assert pushing.metrics.retries.value == 1
    await registration.withdraw()


async def test_push_to_one_key_is_repeated_too(pushing: Pushing) -> None:
    comet = await pushing.add("a")
    comet.fates.append(not_owner())
    assert await pushing.pusher.push_one(Key("k"), b"1", 60) == ""
    first, second = comet.pushes
    assert first.push_id == second.push_id
    # The node may know of a membership that this one has not heard of.
    assert pushing.registry.asked == 1


async def test_only_refused_keys_are_sent_again(pushing: Pushing, keys: list[str]) -> None:
    comets = {"a": await pushing.add("a"), "b": await pushing.add("b")}
    moved = [key for key in keys if pushing.owner(key) == "a"]
    comets["a"].fates.append(not_owner())
    reply = await pushing.push(*keys)
    assert not reply.failed
    assert comets["a"].pushes[1].keys == moved
    assert len(comets["b"].pushes) == 1


async def test_keys_refused_one_by_one_are_sent_again(pushing: Pushing, keys: list[str]) -> None:
    comet = await pushing.add("a")
    comet.fates.append(failing({keys[3]: "not_owner", keys[4]: "storage"}))
    reply = await pushing.push(*keys)
    assert comet.pushes[1].keys == [keys[3]]
    assert reply.mids[3] == 80
    assert [(failure.index, failure.code) for failure in reply.failed] == [(4, "storage")]


@pytest.mark.parametrize("expire_s", [60, 0])
@pytest.mark.parametrize("error", [UnavailableError("not connected"), DeadlinePassedError("late")])
async def test_push_that_was_surely_not_done_is_sent_again(
    pushing: Pushing, error: EnckeError, expire_s: int
) -> None:
    comet = await pushing.add("a")
    comet.fates.append(error)
    assert await pushing.pusher.push_one(Key("k"), b"1", expire_s) == ""
    first, second = comet.pushes
    assert first.push_id == second.push_id
    assert pushing.metrics.retries.value == 1
    # Nobody said that the ring is another one.
    assert pushing.registry.asked == 0


async def test_stored_push_whose_answer_was_lost_is_sent_again(pushing: Pushing) -> None:
    comet = await pushing.add("a")
    comet.fates.append(InDoubtError("connection lost"))
    assert await pushing.pusher.push_one(Key("k"), b"1", 60) == ""
    first, second = comet.pushes
    assert first.push_id == second.push_id


async def test_push_that_nobody_stores_is_not_sent_again_when_its_answer_was_lost(pushing: Pushing) -> None:
    comet = await pushing.add("a")
    comet.fates.extend([InDoubtError("connection lost"), InDoubtError("connection lost")])
    with pytest.raises(InDoubtError):
        await pushing.pusher.push_one(Key("k"), b"1", 0)
    assert len(comet.pushes) == 1
    # A caller's id is reserved in the store first.
    assert not (await pushing.push("k", expire_s=0, caller_id="mine")).failed
    assert len(comet.pushes) == 3


async def test_where_no_answer_can_be_lost_only_what_was_surely_not_done_is_sent_again() -> None:
    pushing = Pushing(id_prefix="")
    comet = await pushing.add("a")
    comet.fates.append(UnavailableError("too many saves wait"))
    assert await pushing.pusher.push_one(Key("k"), b"1", 60) == ""
    assert not (await pushing.push("k", "l")).failed
    comet.fates.append(InDoubtError("stopping"))
    with pytest.raises(InDoubtError):
        await pushing.pusher.push_one(Key("k"), b"1", 60)
    assert [push.push_id for push in comet.pushes] == [""] * 4
    # A caller's id is kept in any case.
    comet.fates.append(InDoubtError("stopping"))
    assert not (await pushing.push("k", caller_id="mine")).failed
    assert [push.push_id for push in comet.pushes[4:]] == ["mine"] * 2


async def test_push_to_a_node_that_is_silent_is_sent_again_before_its_time_is_over() -> None:
    pushing = Pushing(timeout_s=20.0, attempt_s=0.05)
    comet = await pushing.add("a")
    comet.fates.extend([None, None])
    assert await pushing.pusher.push_one(Key("k"), b"1", 60) == ""
    assert [push.timeout_s for push in comet.pushes] == [0.05] * 3
    assert len({push.push_id for push in comet.pushes}) == 1


async def test_push_to_a_node_that_dies_goes_to_the_next_owner_as_soon_as_it_is_known() -> None:
    pushing = Pushing(timeout_s=600.0, attempt_s=500.0)
    comet = pushing.comets["a"] = ScriptedComet()
    registration = await pushing.registry.register(comet_info("a"))
    comet.fates.extend([InDoubtError("connection lost"), *[UnavailableError("refused")] * 20])
    task = asyncio.create_task(pushing.push("k", "l"))
    await eventually(lambda: len(comet.pushes) >= 2)
    other = await pushing.add("b")
    await registration.withdraw()
    assert not (await task).failed
    assert {push.push_id for push in other.pushes} == {comet.pushes[0].push_id}


async def test_keys_in_doubt_are_sent_again_and_are_no_repeats_of_the_caller(pushing: Pushing) -> None:
    comet = await pushing.add("a")

    def known(push: Push) -> PushReply:
        return PushReply([Mid(80)], [0], [], [0])

    comet.fates.extend([failing({"k": "in_doubt"}), known])
    reply = await pushing.push("k", "l", caller_id="mine")
    assert [push.keys for push in comet.pushes] == [["k", "l"], ["k"]]
    assert (reply.failed, reply.repeated) == ([], [])


@pytest.mark.parametrize(
    "last", [not_owner(), UnavailableError("refused"), StorageError("full"), OverloadedError("full")]
)
async def test_what_was_in_doubt_stays_so_whatever_refuses_it_later(last: EnckeError) -> None:
    pushing = Pushing(timeout_s=0.25)
    comet = await pushing.add("a")
    comet.fates.extend([InDoubtError("connection lost"), *[last] * 10])
    with pytest.raises(InDoubtError):
        await pushing.push("k")
    comet.fates.clear()
    comet.fates.extend([failing({"k": "in_doubt"}), *[last] * 10])
    reply = await pushing.push("k", "l")
    assert [failure.code for failure in reply.failed] == ["in_doubt"]


async def test_push_that_is_too_much_or_that_the_store_refuses_is_not_sent_again(pushing: Pushing) -> None:
    comet = await pushing.add("a")
    comet.fates.extend([failing({"k": "storage"}), failing({"k": "overloaded"})])
    for code in ("storage", "overloaded"):
        assert await pushing.pusher.push_one(Key("k"), b"1", 60) == code
    assert len(comet.pushes) == 2


async def test_what_its_node_refuses_is_given_up_before_its_time_while_the_registry_is_away() -> None:
    pushing = Pushing(timeout_s=3600.0, attempt_s=3600.0, cut_off_s=0.3)
    comet = await pushing.add("one")
    comet.fates.extend([not_owner()] * 20)
    pushing.registry.is_away = True
    async with asyncio.timeout(20):
        with pytest.raises(NotOwnerError):
            await pushing.push("a")
        # Those behind it do not wait as long.
        tries = len(comet.pushes)
        with pytest.raises(NotOwnerError):
            await pushing.push("a")
        assert len(comet.pushes) == tries + 1
        with pytest.raises(NotOwnerError):
            await pushing.owners.ask(Key("a"), ask_not_owner)
        # What another node may still take is not given up.
        comet.fates.clear()
        comet.fates.extend([failing({"a": "not_owner", "b": "unavailable"})] * 2)
        reply = await pushing.push("a", "b")
        assert [(failure.index, failure.code) for failure in reply.failed] == [(0, "not_owner")]
        # It is back.
        pushing.registry.is_away = False
        comet.fates.clear()
        comet.fates.extend([not_owner()] * 4)
        assert (await pushing.push("a")).failed == []
    pushing.pusher.close()


async def ask_not_owner(comet: CometService, epoch: Epoch) -> None:
    raise not_owner()
