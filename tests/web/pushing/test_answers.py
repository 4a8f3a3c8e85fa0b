"""web/pushing/answers.py and places.py: who waits for nodes that do not answer, and who is given up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from cluster.errors import InDoubtError, UnavailableError
from cluster.model import Key
from tests.support.eventually import eventually
from tests.support.services import not_owner
from tests.web.pushing.pusher import Pushing

AWAY = UnavailableError("refused")
LONG_S = 3600.0


@pytest.fixture
async def patient() -> AsyncIterator[Pushing]:
    """Holds two pushes, for as long as a test may take."""
    made = Pushing(timeout_s=LONG_S, attempt_s=LONG_S, max_held=2)
    yield made
    made.pusher.close()
    made.members.close()


async def test_node_that_never_answers_leaves_the_push_in_doubt() -> None:
    pushing = Pushing(timeout_s=0.05)
    comet = await pushing.add("a")
    comet.fates.extend([None, None])
    one = asyncio.create_task(pushing.pusher.push_one(Key("k"), b"1", 60))
    many = asyncio.create_task(pushing.push("k", "l"))
    for task in (one, many):
        with pytest.raises(InDoubtError):
            await task
    assert len(comet.pushes) == 2
    # The timer has gone with the last of them.
    assert await pushing.pusher.push_one(Key("k"), b"1", 60) == ""


async def test_pushes_that_wait_are_given_up_one_after_the_other() -> None:
    pushing = Pushing(timeout_s=0.05)
    comet = await pushing.add("a")
    comet.is_holding = True
    first = asyncio.create_task(pushing.push("k"))
    second = asyncio.create_task(pushing.push("k"))
    await eventually(lambda: comet.held_count == 2)
    comet.release()
    assert not (await first).failed
    with pytest.raises(InDoubtError):
        await second


async def test_silent_node_is_given_up_in_time_behind_a_push_that_may_take_longer(pushing: Pushing) -> None:
    comet = await pushing.add("a")
    comet.is_holding = True
    # As lines of a stream, which are waited for one after the other: an older one may come later.
    older = pushing.pusher.begin([Key("k")], b"1", 60)
    younger = pushing.pusher.begin([Key("k")], b"2", 60)
    younger.answer_by += 3600
    waiting = asyncio.create_task(pushing.pusher.finish(younger))
    await asyncio.sleep(0)
    older.answer_by = older.deadline = 0.0
    with pytest.raises(InDoubtError):
        async with asyncio.timeout(10):
            await pushing.pusher.finish(older)
    assert not waiting.done()
    comet.release(2)
    assert not (await waiting).failed


async def test_pushes_to_a_silent_node_are_given_up_but_for_some_and_others_go_on(patient: Pushing) -> None:
    comets = {"a": await patient.add("a"), "b": await patient.add("b")}
    comets["a"].is_holding = True
    silent, healthy = owned(patient, "a"), owned(patient, "b")
    tasks = [asyncio.create_task(patient.pusher.push_one(silent, b"1", 60)) for _ in range(300)]
    await eventually(lambda: sum(task.done() for task in tasks) == 298)
    assert patient.pusher.held_count == 2
    assert {type(task.exception()) for task in tasks if task.done()} == {InDoubtError}
    # Nothing was sent again.
    assert len(comets["a"].pushes) == 300
    assert await patient.pusher.push_one(healthy, b"1", 60) == ""
    waiting = [task for task in tasks if not task.done()]
    comets["a"].release(300)
    assert [await task for task in waiting] == ["", ""]
    assert patient.pusher.held_count == 0


async def test_pushes_that_no_node_takes_are_given_up_but_for_some(
    patient: Pushing, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "web.pushing.places")
    comet = await patient.add("a")
    comet.fates.extend([AWAY] * 100)
    tasks = [asyncio.create_task(patient.pusher.push_one(Key(f"k{n}"), b"1", 60)) for n in range(5)]
    await eventually(lambda: sum(task.done() for task in tasks) == 3)
    assert {type(task.exception()) for task in tasks if task.done()} == {UnavailableError}
    # Those that wait are done when there is a node.
    waiting = [task for task in tasks if not task.done()]
    comet.fates.clear()
    assert [await task for task in waiting] == ["", ""]
    assert patient.pusher.held_count == 0
    # Said once.
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_young_push_is_tried_again_while_others_have_all_places(patient: Pushing) -> None:
    comets = {"a": await patient.add("a"), "b": await patient.add("b")}
    comets["a"].is_holding = True
    silent = owned(patient, "a")
    waiting = [asyncio.create_task(patient.pusher.push_one(silent, b"1", 60)) for _ in range(2)]
    await eventually(lambda: patient.pusher.held_count == 2)
    comets["b"].fates.extend([not_owner(), AWAY])
    assert await patient.pusher.push_one(owned(patient, "b"), b"1", 60) == ""
    comets["a"].release(2)
    assert [await task for task in waiting] == ["", ""]


async def test_of_a_push_to_several_nodes_what_is_answered_is_kept(patient: Pushing, keys: list[str]) -> None:
    comets = {"a": await patient.add("a"), "b": await patient.add("b")}
    comets["a"].is_holding = True
    silent = owned(patient, "a")
    waiting = [asyncio.create_task(patient.pusher.push_one(silent, b"1", 60)) for _ in range(2)]
    await eventually(lambda: patient.pusher.held_count == 2)
    reply = await patient.push(*keys)
    assert {failure.code for failure in reply.failed} == {"in_doubt"}
    assert {keys[f.index] for f in reply.failed} == {key for key in keys if patient.owner(key) == "a"}
    comets["a"].release(2)
    assert [await task for task in waiting] == ["", ""]


async def test_later_try_needs_a_place_too(patient: Pushing) -> None:
    comet = await patient.add("a")
    comet.is_holding = True
    waiting = [asyncio.create_task(patient.pusher.push_one(Key("k"), b"1", 60)) for _ in range(2)]
    await eventually(lambda: patient.pusher.held_count == 2)
    comet.is_holding = False
    comet.fates.append(AWAY)
    late = asyncio.create_task(patient.pusher.push_one(Key("k"), b"1", 60))
    await eventually(lambda: len(comet.pushes) == 3)
    comet.is_holding = True
    with pytest.raises(InDoubtError):
        await late
    assert len(comet.pushes) == 4
    comet.release(2)
    assert [await task for task in waiting] == ["", ""]


async def test_place_is_free_again_whatever_became_of_the_push(patient: Pushing) -> None:
    comet = await patient.add("a")
    comet.is_holding = True
    cancelled = asyncio.create_task(patient.push("k"))
    quick = patient.pusher.begin_one(Key("k"), b"1", 60)
    patient.pusher.expect(quick)
    await eventually(lambda: patient.pusher.held_count == 2)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    assert patient.pusher.held_count == 1
    comet.release(2)
    assert patient.pusher.take_success(quick)
    assert patient.pusher.held_count == 0


async def test_held_push_is_given_up_when_its_try_is_over() -> None:
    pushing = Pushing(timeout_s=1.2, attempt_s=1.2, max_held=2)
    comet = await pushing.add("a")
    comet.fates.extend([None] * 4)
    for expire_s in (0, 60):
        with pytest.raises(InDoubtError):
            await pushing.pusher.push_one(Key("k"), b"1", expire_s)
    assert pushing.pusher.held_count == 0
    pushing.pusher.close()


def owned(pushing: Pushing, name: str) -> Key:
    """A key of a node."""
    return next(Key(f"k{n}") for n in range(1000) if pushing.owner(f"k{n}") == name)
