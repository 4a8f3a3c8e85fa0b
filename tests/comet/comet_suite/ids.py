"""Push ids: what is done once however often it is asked for."""

from __future__ import annotations

import pytest

from tests.comet.comet_suite.ground import Ground, failures, stored
from tests.comet.nodes import Core, values


class Ids(Ground):
    """Part of the suite."""

    @pytest.mark.parametrize("expire_s", [0, 600])
    async def test_repeat_is_answered_with_the_first_mid_and_not_delivered(
        self, core: Core, expire_s: int
    ) -> None:
        bob = await core.subscribe("bob")
        first = await core.push("bob", "once", expire_s=expire_s, push_id="order 7")

        again = await core.push("bob", "once", expire_s=expire_s, push_id="order 7")
        other = await core.push("bob", "other payload", expire_s=expire_s, push_id="order 7")

        assert first.repeated == []
        assert (again.mids, again.repeated, again.online, again.failed) == (first.mids, [0], [0], [])
        assert (failures(other), other.mids, other.repeated) == ([(0, "id_conflict")], [0], [])
        assert values([await bob.next_document()]) == ["once"]
        await bob.beat()

    async def test_repeat_to_more_keys_is_done_for_those_that_are_new(self, core: Core) -> None:
        first = await core.push(["a", "b"], 1, expire_s=600, push_id="mine")
        await core.push("d", 2, expire_s=600, push_id="mine")

        again = await core.push(["b", "c", "d", "a"], 1, expire_s=600, push_id="mine")

        assert again.repeated == [0, 3]
        assert [again.mids[0], again.mids[3]] == [first.mids[1], first.mids[0]]
        assert failures(again) == [(2, "id_conflict")]
        assert [mid > 0 for mid in again.mids] == [True, True, False, True]
        assert [await stored(core, key) for key in "abcd"] == [[b"1"], [b"1"], [b"1"], [b"2"]]

    async def test_repeat_at_the_same_time_is_done_once(self, core: Core) -> None:
        bob = await core.subscribe("bob")

        pushes = [core.push("bob", 1, expire_s=600, push_id="mine") for _ in range(5)]
        replies = [await push for push in pushes]

        assert [reply.repeated for reply in replies] == [[], [0], [0], [0], [0]]
        assert len({reply.mids[0] for reply in replies}) == 1
        assert values([await bob.next_document()]) == [1]
        await bob.beat()

    async def test_what_has_no_id_is_done_each_time(self, core: Core) -> None:
        bob = await core.subscribe("bob")
        for expire_s in (0, 600):
            for _ in range(2):
                reply = await core.push("bob", expire_s, expire_s=expire_s, has_id=False)
                assert (reply.online, reply.failed, reply.repeated) == ([1], [], [])

        assert values(await bob.documents(4)) == [0, 0, 600, 600]
