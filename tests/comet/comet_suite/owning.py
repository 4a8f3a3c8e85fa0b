"""Whose keys are pushed to and deleted: those of the membership that the caller knows, or of a newer one."""

from __future__ import annotations

import asyncio

import pytest

from cluster.errors import DeadlinePassedError, NotOwnerError, UnavailableError
from cluster.mids import TICKS_PER_SECOND
from tests.comet.comet_suite.ground import (
    KEPT,
    LOST,
    Ground,
    Open,
    assert_refused,
    code_of,
    epoch_of,
    join,
    next_epoch,
    stored,
)
from tests.comet.nodes import Core, values
from tests.support.eventually import eventually


class Owning(Ground):
    """Part of the suite."""

    @pytest.mark.parametrize("expire_s", [0, 600])
    async def test_push_to_a_key_of_another_node_is_refused_whole(self, core: Core, expire_s: int) -> None:
        mine = await core.subscribe(KEPT[0])
        earlier = epoch_of(core)
        await join(core)

        for epoch in (earlier, epoch_of(core)):
            # One is enough: the caller asks again by its newer membership.
            push = core.push([KEPT[0], LOST[0], KEPT[1]], 1, expire_s=expire_s, epoch=epoch)
            await assert_refused(push, NotOwnerError)

        assert [await stored(core, key) for key in (KEPT[0], LOST[0], KEPT[1])] == [[], [], []]
        assert (await core.push(KEPT[0], "mine", expire_s=expire_s, epoch=epoch_of(core))).online == [1]
        assert values([await mine.next_document()]) == ["mine"]

    async def test_deletion_of_a_key_of_another_node_is_refused(self, core: Core) -> None:
        await core.push(LOST[0], "stays", expire_s=600)
        earlier = epoch_of(core)
        await join(core)

        for epoch in (earlier, epoch_of(core)):
            await assert_refused(core.service.delete_key(LOST[0], epoch), NotOwnerError)

        assert await stored(core, LOST[0]) == [b'"stays"']
        assert await core.service.delete_key(KEPT[0], epoch_of(core)) == 0

    async def test_what_is_asked_under_a_newer_membership_is_done_when_that_one_has_come(
        self, core: Core
    ) -> None:
        bob = await core.subscribe("bob")
        newer = next_epoch(core)
        pushes = [core.push("bob", n, expire_s=600 * (n % 2), epoch=newer) for n in range(4)]
        await eventually(lambda: len(core.node._keys._epochs._waiting) == 4)
        deletion = asyncio.ensure_future(core.service.delete_key(KEPT[0], newer))
        await eventually(lambda: len(core.node._keys._epochs._waiting) == 5)
        assert not any(push.done() for push in pushes)
        assert not deletion.done()

        await join(core, weight=0)

        assert [(await push).online for push in pushes] == [[1]] * 4
        assert values(await bob.documents(4)) == [0, 1, 2, 3]
        assert await deletion == 0

    async def test_what_a_newer_membership_takes_away_is_refused(self, core: Core) -> None:
        newer = next_epoch(core)
        push = core.push(LOST[0], 1, epoch=newer)
        deletion = asyncio.ensure_future(core.service.delete_key(LOST[0], newer))
        await eventually(lambda: len(core.node._keys._epochs._waiting) == 2)

        await join(core)

        await assert_refused(push, NotOwnerError)
        await assert_refused(deletion, NotOwnerError)

    async def test_membership_that_does_not_come_is_waited_for_only_so_long(self, opened: Open) -> None:
        async with opened(membership_wait_s=0.05) as core:
            newer = next_epoch(core)
            await assert_refused(core.push("bob", 1, epoch=newer), UnavailableError)
            await assert_refused(core.service.delete_key(LOST[0], newer), UnavailableError)
            # A caller with less time is not kept longer.
            await assert_refused(core.push("bob", 1, epoch=newer, timeout_s=0.0), UnavailableError)
            assert (await core.push("bob", "next", epoch=epoch_of(core))).failed == []

    async def test_time_for_a_membership_is_part_of_the_time_for_the_push(self, core: Core) -> None:
        early = core.push("bob", 1, expire_s=600, timeout_s=5.0, epoch=next_epoch(core))
        latest = await core.way.store.clock() + 5 * TICKS_PER_SECOND
        await eventually(lambda: core.node._keys._epochs._waiting)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await eventually(lambda: loop.time() - began > 0.1)

        await join(core, weight=0)

        assert await code_of(early) == ""
        # Nearly: the time of the loop stands still within a turn.
        assert core.way.batches[0].deadline <= latest + TICKS_PER_SECOND // 20

    async def test_push_whose_key_moves_while_it_waits_for_its_turn_is_refused_or_done(
        self, core: Core
    ) -> None:
        gate = core.way.close_gate(LOST[0])
        saving = core.push(LOST[0], "accepted", expire_s=600)
        await eventually(lambda: core.way.batches)
        waiting = core.push(LOST[0], "waits", expire_s=600)
        await eventually(lambda: core.comet.counted("pending_keys") == 2)

        await join(core)
        await assert_refused(core.push(LOST[0], "late", expire_s=600), NotOwnerError)
        gate.set()

        # What it had accepted it still saves, or says that it is not done.
        assert await code_of(saving) == ""
        told = await code_of(waiting)
        assert told in ("", NotOwnerError.code, DeadlinePassedError.code)
        assert await stored(core, LOST[0]) == [b'"accepted"', *([] if told else [b'"waits"'])]
