"""comet/pushing/saving.py: what becomes of a batch that is refused, or whose answer is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.errors import DeadlinePassedError, InDoubtError, OverloadedError, StorageError
from cluster.mids import TICKS_PER_SECOND
from tests.comet.nodes import running_core, values
from tests.support.eventually import eventually


async def test_what_has_no_id_is_not_repeated_in_doubt_and_is_not_hidden(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        bob = await core.subscribe("bob")
        core.way.answers_to_lose = 1
        reply = await core.push("bob", "doubtful", expire_s=600, has_id=False)
        assert [failure.code for failure in reply.failed] == ["in_doubt"]
        assert len(core.way.batches) == 1
        # It was stored all the same.
        assert (await core.push("bob", "unsaved")).failed == []
        assert values(await bob.documents(2)) == ["doubtful", "unsaved"]


async def test_one_without_an_id_leaves_its_whole_batch_in_doubt(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        bob = await core.subscribe("bob")
        gate = core.way.close_gate("bob")
        first = core.push("bob", 0, expire_s=600)
        named = core.push("bob", "named", expire_s=600, push_id="mine")
        nameless = core.push("bob", "nameless", expire_s=600, has_id=False)
        core.way.answers_to_lose_of = 2
        gate.set()
        assert (await first).failed == []
        for push in (named, nameless):
            assert [failure.code for failure in (await push).failed] == ["in_doubt"]
        assert [len(batch.items) for batch in core.way.batches] == [1, 2]
        assert (await core.push("bob", "named", expire_s=600, push_id="mine")).repeated == [0]
        assert (await core.push("bob", "unsaved")).failed == []
        assert values(await bob.documents(4)) == [0, "named", "nameless", "unsaved"]
        await bob.beat()


@pytest.mark.parametrize(
    "error", [OverloadedError("too many saves wait"), InDoubtError("disk I/O error", is_rolled_back=True)]
)
async def test_what_has_no_id_is_repeated_when_it_was_not_done(tmp_path: Path, error: Exception) -> None:
    async with running_core(tmp_path) as core:
        bob = await core.subscribe("bob")
        core.way.refusals.append(error)
        assert (await core.push("bob", "kept", expire_s=600, has_id=False)).failed == []
        assert len(core.way.batches) == 2
        assert values(await bob.documents(1)) == ["kept"]
        await bob.beat()


async def test_a_store_whose_clock_was_set_ahead_is_asked_again_with_a_deadline_in_that_clock(
    tmp_path: Path,
) -> None:
    async with running_core(tmp_path) as core:
        bob = await core.subscribe("bob")
        core.way.refusals.append(DeadlinePassedError("by the new clock"))
        core.way.clock_step = 60 * TICKS_PER_SECOND
        reply = await core.push("bob", "in time", expire_s=600)
        assert reply.failed == []
        assert values([await bob.next_document()]) == ["in time"]
        refused, saved = core.way.batches
        assert saved.deadline - refused.deadline >= 59 * TICKS_PER_SECOND
        assert saved.items == refused.items


async def test_a_refusal_for_a_deadline_that_has_not_passed_by_the_stores_clock_is_not_repeated(
    tmp_path: Path,
) -> None:
    async with running_core(tmp_path) as core:
        core.way.refusals.append(DeadlinePassedError("who knows why"))
        reply = await core.push("bob", 1, expire_s=600)
        assert [failure.code for failure in reply.failed] == ["deadline_passed"]
        assert len(core.way.batches) == 1


@pytest.mark.parametrize("failure", [StorageError("no"), ZeroDivisionError("a bug")])
async def test_a_late_save_is_answered_when_the_stores_clock_cannot_be_asked_for(
    tmp_path: Path, failure: Exception
) -> None:
    async with running_core(tmp_path) as core:
        core.way.refusals.append(DeadlinePassedError("by the new clock"))
        core.way.clock_refusals.append(failure)
        reply = await core.push("bob", "late", expire_s=600)
        assert [failed.code for failed in reply.failed] == ["deadline_passed"]
        assert (await core.push("bob", "next", expire_s=600)).failed == []


async def test_a_bug_in_a_save_fails_its_batch_and_the_key_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_core(tmp_path) as core:
        core.way.refusals.append(ZeroDivisionError("a bug"))
        reply = await core.push("bob", "unlucky", expire_s=600)
        assert [failed.code for failed in reply.failed] == ["internal"]
        assert "a bug" in caplog.text
        assert (await core.push("bob", "next", expire_s=600)).failed == []


async def test_an_unsaved_message_does_not_hide_what_a_save_in_doubt_has_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comet.pushing.saving.DOUBT_GRACE_S", 0.05)
    async with running_core(tmp_path) as core:
        bob = await core.subscribe("bob")
        core.way.answers_to_lose = 1000
        reply = await core.push("bob", "doubtful", expire_s=600, push_id="again", timeout_s=0.05)
        assert [failure.code for failure in reply.failed] == ["in_doubt"]
        core.way.answers_to_lose = 0
        # To many keys and to one: both ways to a key that nothing waits for.
        assert (await core.push(["alice", "bob"], "unsaved")).failed == []
        assert (await core.push("bob", "unsaved, too")).failed == []
        again = await core.push("bob", "doubtful", expire_s=600, push_id="again")
        assert (again.failed, again.repeated) == ([], [0])
        documents = await bob.documents(3)
        assert values(documents) == ["doubtful", "unsaved", "unsaved, too"]
        assert documents[0].mid == again.mids[0]
        await bob.beat()


async def test_that_a_repeat_fails_does_not_tell_what_became_of_the_first_attempt(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        bob = await core.subscribe("bob")
        core.way.answers_to_lose = 1
        push = core.push("bob", "stored", expire_s=600)
        await eventually(lambda: core.way.answers_to_lose == 0)
        core.way.refusals.append(StorageError("read only for a moment"))
        reply = await push
        assert (reply.failed, reply.repeated, reply.online) == ([], [], [1])
        assert values([await bob.next_document()]) == ["stored"]
