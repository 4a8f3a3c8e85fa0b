"""web/pushing/push.py: to the owners of the keys and back, also when they change meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from cluster.errors import (
    NoNodeError,
    NotOwnerError,
    OverloadedError,
    UnavailableError,
)
from cluster.model import Key
from tests.support.eventually import eventually
from tests.support.services import ScriptedComet, failing, not_owner
from tests.support.web import comet_info
from tests.web.pushing.pusher import Pushing


async def test_push_to_one_key_reaches_its_owner_with_the_epoch(pushing: Pushing) -> None:
    comet = await pushing.add("a")
    assert await pushing.pusher.push_one(Key("k"), b"1", 60) == ""
    (push,) = comet.pushes
    assert (push.keys, push.payload, push.expire_s, push.id_ttl_s) == (["k"], b"1", 60, 0)
    assert push.epoch == pushing.members.current.epoch
    assert pushing.metrics.pushed.value == 1


async def test_each_push_has_its_own_id_unless_the_caller_gives_one(pushing: Pushing) -> None:
    comet = await pushing.add("a")
    await pushing.pusher.push_one(Key("k"), b"1", 60)
    await pushing.push("k")
    await pushing.push("k", caller_id="mine")
    ids = [push.push_id for push in comet.pushes]
    assert len(set(ids)) == 3
    assert all(push_id.startswith("web-") for push_id in ids[:2])
    assert (ids[2], comet.pushes[2].id_ttl_s) == ("mine", 3600)


async def test_results_of_several_nodes_come_back_in_the_order_of_the_keys(
    pushing: Pushing, keys: list[str]
) -> None:
    a, b = await pushing.add("a"), await pushing.add("b")
    reply = await pushing.push(*keys)
    for name, comet in (("a", a), ("b", b)):
        (push,) = comet.pushes
        assert push.keys == [key for key in keys if pushing.owner(key) == name]
        assert [reply.mids[keys.index(key)] for key in push.keys] == [
            80 * (i + 1) for i in range(len(push.keys))
        ]
    assert not reply.failed
    assert reply.online == [1] * len(keys)


async def test_failed_and_repeated_keys_keep_their_index(pushing: Pushing, keys: list[str]) -> None:
    comets = {"a": await pushing.add("a"), "b": await pushing.add("b")}
    bad = keys[7]
    comets[pushing.owner(bad)].fates.append(failing({bad: "storage"}))
    reply = await pushing.push(*keys)
    assert [(failure.index, failure.code) for failure in reply.failed] == [(7, "storage")]
    assert pushing.metrics.pushed_partly.value == 1


async def test_nobody_takes_the_key_in_time() -> None:
    pushing = Pushing(timeout_s=0.25)
    comet = await pushing.add("a")
    comet.fates.extend([not_owner()] * 20)
    with pytest.raises(NotOwnerError):
        await pushing.push("k")
    assert 2 <= len(comet.pushes) <= 4
    comet.fates.clear()
    comet.fates.extend([not_owner()] * 20)
    with pytest.raises(NotOwnerError):
        await pushing.pusher.push_one(Key("k"), b"1", 60)
    assert pushing.metrics.not_pushed.value == 2


async def test_whole_refusal_of_the_only_node_is_its_error(pushing: Pushing) -> None:
    comet = await pushing.add("a")
    comet.fates.extend([OverloadedError("full"), OverloadedError("full")])
    with pytest.raises(OverloadedError, match="full"):
        await pushing.push("k", "l")
    with pytest.raises(OverloadedError, match="full"):
        await pushing.pusher.push_one(Key("k"), b"1", 60)


async def test_whole_refusal_of_one_node_of_several_fails_its_keys(pushing: Pushing, keys: list[str]) -> None:
    comets = {"a": await pushing.add("a"), "b": await pushing.add("b")}
    comets["a"].fates.append(OverloadedError("full"))
    reply = await pushing.push(*keys)
    assert {keys[failure.index] for failure in reply.failed} == {
        key for key in keys if pushing.owner(key) == "a"
    }
    assert {failure.code for failure in reply.failed} == {"overloaded"}


async def test_no_comet_node_is_an_error(pushing: Pushing) -> None:
    with pytest.raises(NoNodeError):
        await pushing.push("k")
    with pytest.raises(NoNodeError):
        await pushing.pusher.push_one(Key("k"), b"1", 60)


async def test_last_node_leaves_while_a_push_is_repeated(pushing: Pushing) -> None:
    comet = pushing.comets["a"] = ScriptedComet()
    registration = await pushing.registry.register(comet_info("a"))
    comet.is_holding = True
    comet.fates.append(not_owner())
    task = asyncio.create_task(pushing.push("k"))
    await eventually(lambda: comet.held_count)
    await registration.withdraw()
    comet.release()
    with pytest.raises(NoNodeError):
        await task


async def test_cancelled_caller_leaves_nothing_behind(pushing: Pushing) -> None:
    comet = await pushing.add("a")
    comet.is_holding = True
    task = asyncio.create_task(pushing.push("k"))
    await eventually(lambda: comet.held_count)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    comet.release()


async def test_abandoned_push_does_not_complain(pushing: Pushing) -> None:
    comet = await pushing.add("a")
    comet.is_holding = True
    comet.fates.append(UnavailableError("full"))
    pending = pushing.pusher.begin([Key("k")], b"1", 60)
    assert not pending.is_answered
    pending.abandon()
    comet.release()
    assert pending.calls[0][1].done()
