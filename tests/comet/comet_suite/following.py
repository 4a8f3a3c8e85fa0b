"""Pushes that follow each other: one is done behind the one that it names, or not at all."""

from __future__ import annotations

import json

import pytest

from cluster.contracts.comet import Push
from cluster.errors import RequestError
from cluster.model import Key
from tests.comet.comet_suite.ground import Ground, Open, assert_refused, code_of, failures
from tests.comet.nodes import Core, values
from tests.support.eventually import eventually

BOB = Key("bob")


def line(value: str, follows: str = "", *, expire_s: int = 600, timeout_s: float = 10.0) -> Push:
    """A push of its own name, which is also its id."""
    return Push([BOB], json.dumps(value).encode(), expire_s, value, 0, timeout_s, (0, 0), [follows])


class Following(Ground):
    """Part of the suite."""

    @pytest.mark.parametrize("expire_s", [0, 600])
    async def test_each_follows_the_one_before_also_when_that_is_done_already(
        self, core: Core, expire_s: int
    ) -> None:
        bob = await core.subscribe("bob")
        first = core.service.push(line("a", expire_s=expire_s))
        second = core.service.push(line("b", "a", expire_s=expire_s))
        assert [await code_of(first), await code_of(second)] == ["", ""]
        assert await code_of(core.service.push(line("c", "b", expire_s=expire_s))) == ""
        assert values(await bob.documents(3)) == ["a", "b", "c"]

    @pytest.mark.parametrize("expire_s", [0, 600])
    async def test_what_follows_a_push_that_came_too_late_is_refused(self, core: Core, expire_s: int) -> None:
        bob = await core.subscribe("bob")
        gate = core.way.close_gate("bob")
        other = core.push("bob", "other", expire_s=600)
        # Its time is over before it has its turn. What is not stored has no such bound.
        late = core.service.push(line("a", expire_s=600, timeout_s=0.0))
        followers = [
            core.service.push(line("b", "a", expire_s=expire_s)),
            core.service.push(line("c", "b", expire_s=expire_s)),
        ]
        await eventually(lambda: core.comet.counted("pending_keys") == 4)
        gate.set()
        assert await code_of(other) == ""
        assert await code_of(late) == "deadline_passed"
        assert [await code_of(follower) for follower in followers] == ["out_of_order", "out_of_order"]
        # As the caller does then.
        for value in ("a", "b", "c"):
            assert await code_of(core.service.push(line(value, expire_s=expire_s))) == ""
        assert values(await bob.documents(4)) == ["other", "a", "b", "c"]

    async def test_what_follows_a_push_that_is_tried_again_meanwhile_is_still_refused(
        self, core: Core
    ) -> None:
        bob = await core.subscribe("bob")
        gate = core.way.close_gate("bob")
        core.push("bob", "first", expire_s=600)
        late = core.service.push(line("a", timeout_s=0.0))
        core.push("bob", "second", expire_s=600)
        follower = core.service.push(line("b", "a"))
        again = core.service.push(line("a"))
        await eventually(lambda: core.comet.counted("pending_keys") == 5)
        gate.set()
        assert [await code_of(late), await code_of(follower), await code_of(again)] == [
            "deadline_passed",
            "out_of_order",
            "",
        ]
        assert values(await bob.documents(3)) == ["first", "second", "a"]

    async def test_what_follows_a_push_that_never_came_is_refused(self, core: Core) -> None:
        assert await code_of(core.service.push(line("b", "lost"))) == "out_of_order"
        # Nor may anything follow what was refused.
        assert await code_of(core.service.push(line("c", "b"))) == "out_of_order"
        assert await code_of(core.service.push(line("c"))) == ""

    async def test_what_follows_a_push_that_was_refused_whole_is_refused(self, opened: Open) -> None:
        async with opened(max_queue_per_key=1) as core:
            gate = core.way.close_gate("bob")
            first = core.service.push(line("a"))
            refused = core.service.push(line("b", "a"))
            await eventually(refused.done)
            gate.set()
            assert [await code_of(first), await code_of(refused)] == ["", "overloaded"]
            assert await code_of(core.service.push(line("c", "b"))) == "out_of_order"

    async def test_only_the_keys_of_which_one_has_failed_are_refused(self, opened: Open) -> None:
        async with opened(max_queue_per_key=1) as core:
            gate = core.way.close_gate("hot")
            held = core.push("hot", 0, expire_s=600)
            await eventually(lambda: core.comet.counted("pending_keys") == 1)
            keys = [Key("cold"), Key("hot")]
            first = await core.service.push(Push(keys, b"1", 600, "a", 0, 10.0, (0, 0), ["", ""]))
            assert failures(first) == [(1, "overloaded")]
            gate.set()
            await held
            second = await core.service.push(Push(keys, b"2", 600, "b", 0, 10.0, (0, 0), ["a", "a"]))
            assert failures(second) == [(1, "out_of_order")]

    async def test_an_id_that_is_in_conflict_holds_nothing_up(self, core: Core) -> None:
        assert await code_of(core.push("bob", "other", expire_s=600, push_id="known")) == ""
        conflict = Push([BOB], b'"a"', 600, "known", 3600, 10.0, (0, 0), [""])
        pushes = [core.service.push(conflict), core.service.push(line("b", "known"))]
        assert [await code_of(push) for push in pushes] == ["id_conflict", ""]

    async def test_two_streams_to_one_key_do_not_hold_each_other_up(self, core: Core) -> None:
        pushes = []
        for number in range(5):
            for stream in ("x", "y"):
                follows = f"{stream}{number - 1}" if number else ""
                pushes.append(core.service.push(line(f"{stream}{number}", follows)))
        assert [await code_of(push) for push in pushes] == [""] * 10

    async def test_a_push_that_names_not_one_for_each_key_is_refused(self, core: Core) -> None:
        await assert_refused(
            core.service.push(Push([BOB], b"1", 0, "a", 0, 10.0, (0, 0), ["", ""])), RequestError
        )
        assert core.comet.counted("pending_keys") == 0
