"""A node that drains, or is cut, while something is in progress."""

from __future__ import annotations

import asyncio
from typing import Any

from cluster.errors import EnckeError, InDoubtError, NotOwnerError, UnavailableError
from cluster.model import Key
from tests.comet.comet_suite.ground import Ground, assert_refused, code_of, failures
from tests.comet.nodes import Core, values
from tests.support.eventually import eventually


class Stopping(Ground):
    """Part of the suite."""

    async def test_drain_finishes_what_was_begun_and_refuses_the_rest(self, core: Core) -> None:
        bob = await core.subscribe("bob")
        gate = core.way.close_gate("bob")
        begun = core.push("bob", "begun", expire_s=600)
        await eventually(lambda: core.way.batches)

        drain = asyncio.ensure_future(core.node.drain(5.0))
        await eventually(lambda: not core.comet.owns("bob"))
        # It has left the ring, so nobody owns the key.
        await assert_refused(core.push("bob", "too late"), NotOwnerError)
        await assert_refused(core.service.delete_key(Key("bob"), (0, 0)), NotOwnerError)
        gate.set()

        assert (await begun).online == [1]
        assert values([await bob.next_document()]) == ["begun"]
        assert (await bob.end()).code == 1001
        await drain

    async def test_drain_whose_time_is_up_answers_by_what_is_known(self, core: Core) -> None:
        gate = core.way.close_gate("bob")
        saving = core.push("bob", 1, expire_s=600)
        await eventually(lambda: core.way.batches)
        waiting = core.push("bob", 2)
        await eventually(lambda: core.comet.counted("pending_keys") == 2)

        await core.node.drain(0.2)

        assert [failures(await push) for push in (saving, waiting)] == [
            [(0, InDoubtError.code)],
            [(0, UnavailableError.code)],
        ]
        gate.set()

    async def test_node_that_is_cut_answers_by_what_is_known(self, core: Core) -> None:
        gates = [core.way.close_gate(key) for key in ("hot", "gone")]
        saving = core.push("hot", 1, expire_s=600)
        await eventually(lambda: core.way.batches)
        waiting, unsaved = core.push("hot", 2, expire_s=600), core.push("hot", 3)
        running = asyncio.ensure_future(core.service.delete_key(Key("gone"), (0, 0)))
        queued = asyncio.ensure_future(core.service.delete_key(Key("hot"), (0, 0)))
        await eventually(lambda: core.way.loads_waiting and len(core.node._keys.pusher._outcomes) == 2)

        await core.node.stop()

        # It may have been stored.
        assert await code_of(saving) == InDoubtError.code
        assert await code_of(waiting) == await code_of(unsaved) == UnavailableError.code
        assert await error_of(running) == InDoubtError.code
        assert await error_of(queued) == UnavailableError.code
        for gate in gates:
            gate.set()
        await eventually(lambda: core.comet.counted("pending_keys") == 0)

    async def test_node_that_has_stopped_does_nothing(self, core: Core) -> None:
        await core.node.stop()

        for answer in (core.push("bob", 1), core.service.delete_key(Key("bob"), (0, 0))):
            assert await error_of(answer) in (UnavailableError.code, NotOwnerError.code)


async def error_of(answer: Any) -> str:
    """The code of the error that a call ends with."""
    try:
        await answer
    except EnckeError as error:
        return error.code
    raise AssertionError("the call succeeded")
