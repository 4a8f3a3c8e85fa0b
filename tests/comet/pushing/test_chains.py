"""comet/pushing/chains.py: a push that follows another is done behind it, or not at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.contracts.comet import Push, PushReply
from cluster.errors import RequestError
from cluster.model import Key
from comet.pushing.chains import KEPT_S, Chains
from comet.pushing.pushjob import PushJob
from tests.comet.nodes import running_core, values

BOB = Key("bob")


def line(
    value: str, follows: str = "", *, key: Key = BOB, expire_s: int = 600, timeout_s: float = 10.0
) -> Push:
    """A push of its own name, which is also its id."""
    return Push([key], json.dumps(value).encode(), expire_s, value, 0, timeout_s, (0, 0), [follows])


async def code(push: asyncio.Future[PushReply]) -> str:
    """Of the error of a push to one key; empty = it is done."""
    failed = (await push).failed
    return failed[0].code if failed else ""


@pytest.mark.parametrize("expire_s", [0, 600])
async def test_each_follows_the_one_before_also_when_that_is_done_already(
    tmp_path: Path, expire_s: int
) -> None:
    async with running_core(tmp_path) as core:
        bob = await core.subscribe("bob")
        first = core.node.push(line("a", expire_s=expire_s))
        second = core.node.push(line("b", "a", expire_s=expire_s))
        assert [await code(first), await code(second)] == ["", ""]
        assert await code(core.node.push(line("c", "b", expire_s=expire_s))) == ""
        assert values(await bob.documents(3)) == ["a", "b", "c"]


@pytest.mark.parametrize("expire_s", [0, 600])
async def test_what_follows_a_push_that_came_too_late_is_refused(tmp_path: Path, expire_s: int) -> None:
    async with running_core(tmp_path) as core:
        bob = await core.subscribe("bob")
        gate = core.way.close_gate("bob")
        other = core.push("bob", "other", expire_s=600)
        # Its time is over before it has its turn. What is not stored has no such bound.
        late = core.node.push(line("a", expire_s=600, timeout_s=0.0))
        followers = [
            core.node.push(line("b", "a", expire_s=expire_s)),
            core.node.push(line("c", "b", expire_s=expire_s)),
        ]
        gate.set()
        assert await code(other) == ""
        assert await code(late) == "deadline_passed"
        assert [await code(follower) for follower in followers] == ["out_of_order", "out_of_order"]
        # As the caller does then.
        for value in ("a", "b", "c"):
            assert await code(core.node.push(line(value, expire_s=expire_s))) == ""
        assert values(await bob.documents(4)) == ["other", "a", "b", "c"]


async def test_what_follows_a_push_that_is_tried_again_meanwhile_is_still_refused(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        bob = await core.subscribe("bob")
        gate = core.way.close_gate("bob")
        core.push("bob", "first", expire_s=600)
        late = core.node.push(line("a", timeout_s=0.0))
        core.push("bob", "second", expire_s=600)
        follower = core.node.push(line("b", "a"))
        again = core.node.push(line("a"))
        gate.set()
        assert [await code(late), await code(follower), await code(again)] == [
            "deadline_passed",
            "out_of_order",
            "",
        ]
        assert values(await bob.documents(3)) == ["first", "second", "a"]


async def test_what_follows_a_push_that_never_came_is_refused(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        assert await code(core.node.push(line("b", "lost"))) == "out_of_order"
        # Nor may anything follow what was refused.
        assert await code(core.node.push(line("c", "b"))) == "out_of_order"
        assert await code(core.node.push(line("c"))) == ""


async def test_what_follows_a_push_that_was_refused_whole_is_refused(tmp_path: Path) -> None:
    async with running_core(tmp_path, max_queue_per_key=1) as core:
        gate = core.way.close_gate("bob")
        first = core.node.push(line("a"))
        refused = core.node.push(line("b", "a"))
        gate.set()
        assert [await code(first), await code(refused)] == ["", "overloaded"]
        assert await code(core.node.push(line("c", "b"))) == "out_of_order"


async def test_only_the_keys_of_which_one_has_failed_are_refused(tmp_path: Path) -> None:
    async with running_core(tmp_path, max_queue_per_key=1) as core:
        gate = core.way.close_gate("hot")
        held = core.push("hot", 0, expire_s=600)
        keys = [Key("cold"), Key("hot")]
        first = await core.node.push(Push(keys, b"1", 600, "a", 0, 10.0, (0, 0), ["", ""]))
        assert [failure.index for failure in first.failed] == [1]
        gate.set()
        await held
        second = await core.node.push(Push(keys, b"2", 600, "b", 0, 10.0, (0, 0), ["a", "a"]))
        assert [(failure.index, failure.code) for failure in second.failed] == [(1, "out_of_order")]


async def test_an_id_that_is_in_conflict_holds_nothing_up(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        assert await code(core.push("bob", "other", expire_s=600, push_id="known")) == ""
        conflict = Push([BOB], b'"a"', 600, "known", 3600, 10.0, (0, 0), [""])
        pushes = [core.node.push(conflict), core.node.push(line("b", "known"))]
        assert [await code(push) for push in pushes] == ["id_conflict", ""]


async def test_two_streams_to_one_key_do_not_hold_each_other_up(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        pushes = []
        for number in range(5):
            for stream in ("x", "y"):
                follows = f"{stream}{number - 1}" if number else ""
                pushes.append(core.node.push(line(f"{stream}{number}", follows)))
        assert [await code(push) for push in pushes] == [""] * 10


async def test_a_push_that_names_not_one_for_each_key_is_refused(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        with pytest.raises(RequestError, match="follows one push"):
            await core.node.push(Push([BOB], b"1", 0, "a", 0, 10.0, (0, 0), ["", ""]))
        assert core.comet.counted("pending_keys") == 0


class Linking:
    """Pushes that are taken at times that the test chooses."""

    def __init__(self, chains: Chains) -> None:
        self._chains = chains
        self._loop = asyncio.new_event_loop()

    def link(self, push: Push, at: float = 0.0) -> bool:
        """Whether it may be done."""
        job = PushJob.begin(push, self._loop.create_future(), at, lambda job: None)
        self._chains.link(job)
        return not job.is_out_of_order(0)

    def close(self) -> None:
        self._loop.close()


@pytest.fixture
def linking() -> Iterator[Linking]:
    linking = Linking(Chains(kept_ends=2, max_ends=4))
    yield linking
    linking.close()


def test_what_was_long_ago_is_forgotten(linking: Linking) -> None:
    for name in ("a", "b", "c"):
        assert linking.link(line(name))
    # Each takes more than one with it, so that a burst leaves nothing behind.
    assert linking.link(line("d"), at=KEPT_S)
    assert not linking.link(line("e", "a"), at=KEPT_S)
    assert not linking.link(line("f", "b"), at=KEPT_S)
    assert linking.link(line("g", "c"), at=KEPT_S)


def test_what_is_on_its_way_is_remembered_however_much_that_is(linking: Linking) -> None:
    for name in ("a", "b", "c", "d"):
        assert linking.link(line(name))
    assert linking.link(line("e", "a"), at=KEPT_S / 2)


def test_no_more_than_so_many_are_remembered(linking: Linking) -> None:
    for name in ("a", "b", "c", "d", "e"):
        assert linking.link(line(name))
    assert not linking.link(line("f", "a"))
    assert linking.link(line("g", "b"))


def test_streams_to_very_many_keys_have_room() -> None:
    linking = Linking(Chains())
    keys = [[Key(f"{number}-{i}") for i in range(128)] for number in range(256)]
    for number, some in enumerate(keys):
        assert linking.link(Push(some, b"1", 0, f"{number}", 0, 10.0, (0, 0), [""] * 128))
    assert linking.link(line("last", "0", key=keys[0][0]))
    linking.close()
