"""web/api/stream.py: lines to one key are done in their order, whatever happens between them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from random import Random

import msgspec

from cluster.contracts.comet import CometService, CometStatus, ConnectionInfo, Push, PushReply
from cluster.errors import EnckeError, InDoubtError, OverloadedError, UnavailableError
from cluster.model import Epoch, Key
from tests.comet.nodes import running_core, values
from tests.support.eventually import eventually
from tests.support.services import ScriptedComet, accepted, failing
from tests.support.web import running_web
from tests.web.api.streams import line, opened, outcome
from tests.web.conftest import no_messages


def sent(comet: ScriptedComet) -> list[str]:
    """What the node was asked to push, each with what it follows."""
    return [f"{json.loads(push.payload)}{push.follows}" for push in comet.pushes]


async def test_a_line_names_the_unanswered_one_before_it(comet: ScriptedComet) -> None:
    comet.is_holding = True
    async with running_web({"comet-1": comet}, no_messages()) as web, opened(web) as stream:
        await stream.send(line("k", "a", id="1") + line("other", "b", id="2") + line("k", "c", id="3"))
        await eventually(lambda: comet.held_count == 3)
        comet.release(3)
        assert [outcome(await stream.answer()) for _ in range(3)] == ["k", "other", "k"]
        await stream.send(line("k", "d", id="4"))
        await eventually(lambda: comet.held_count == 1)
        assert sent(comet) == ["a['']", "b['']", "c['1']", "d['']"]
        comet.release()
        await stream.end()
        assert [outcome(answer) for answer in await stream.rest()] == ["k"]


async def test_each_key_of_a_line_follows_its_own(comet: ScriptedComet) -> None:
    comet.is_holding = True
    async with running_web({"comet-1": comet}, no_messages()) as web, opened(web) as stream:
        await stream.send(line("a", 1, id="1") + line("b", 2, id="2"))
        await stream.send(b'{"keys":["b","c","a"],"msg":3,"expire":0,"id":"3"}\n' + line("c", 4, id="4"))
        await eventually(lambda: comet.held_count == 4)
        assert sent(comet)[2:] == ["3['2', '', '1']", "4['3']"]
        comet.release(4)
        await stream.end()
        assert len(await stream.rest()) == 4


async def test_what_followed_a_line_that_was_refused_is_sent_again_behind_it(comet: ScriptedComet) -> None:
    comet.is_holding = True
    comet.fates.extend([UnavailableError("busy"), failing({"k": "out_of_order"})])
    async with running_web({"comet-1": comet}, no_messages()) as web, opened(web) as stream:
        await stream.send(line("k", "a", id="1") + line("k", "b", id="2"))
        await eventually(lambda: comet.held_count == 2)
        comet.release(2)
        await eventually(lambda: comet.held_count == 1)
        # The first is tried again: what comes now has to wait, but only for its own key.
        await stream.send(line("k", "c", id="3") + line("other", "d", id="4"))
        await eventually(lambda: comet.held_count == 2)
        assert sent(comet) == ["a['']", "b['1']", "aNone", "d['']"]
        comet.is_holding = False
        comet.release(2)
        await stream.end()
        assert [outcome(answer) for answer in await stream.rest()] == ["k", "k", "k", "other"]
    assert sent(comet)[4:] == ["bNone", "c['']"]


async def test_what_follows_a_line_that_has_failed_for_good_is_still_done(comet: ScriptedComet) -> None:
    comet.is_holding = True
    comet.fates.extend([OverloadedError("full"), failing({"k": "out_of_order"})])
    async with running_web({"comet-1": comet}, no_messages()) as web, opened(web) as stream:
        await stream.send(line("k", "a", id="1") + line("k", "b", id="2"))
        await eventually(lambda: comet.held_count == 2)
        comet.is_holding = False
        comet.release(2)
        await stream.end()
        assert [outcome(answer) for answer in await stream.rest()] == ["overloaded", "k"]


async def test_lines_that_had_to_wait_are_sent_behind_each_other_again(comet: ScriptedComet) -> None:
    comet.is_holding = True
    comet.fates.append(UnavailableError("busy"))
    async with running_web({"comet-1": comet}, no_messages()) as web, opened(web) as stream:
        await stream.push("k", "a", id="1")
        await eventually(lambda: comet.held_count == 1)
        comet.release()
        await eventually(lambda: sent(comet)[1:] == ["aNone"])
        # Of another key, so that it is known when all have been read.
        await stream.send(b"".join(line("k", value, id=value) for value in "bcd") + line("other", "e"))
        await eventually(lambda: comet.held_count == 2)
        comet.release()
        await eventually(lambda: comet.held_count == 4)
        assert sent(comet)[3:] == ["b['']", "c['b']", "d['c']"]
        # And so is what comes now.
        await stream.push("k", "f", id="f")
        await eventually(lambda: comet.held_count == 5)
        assert sent(comet)[6:] == ["f['d']"]
        comet.release(5)
        await stream.end()
        assert [outcome(answer) for answer in await stream.rest()] == ["k", "k", "k", "k", "other", "k"]


async def test_lines_that_have_to_wait_for_another_key_still_wait(comet: ScriptedComet) -> None:
    comet.is_holding = True
    comet.fates.extend([UnavailableError("busy"), UnavailableError("busy")])
    async with running_web({"comet-1": comet}, no_messages()) as web, opened(web) as stream:
        await stream.send(line("a", 1, id="1") + line("b", 2, id="2"))
        await eventually(lambda: comet.held_count == 2)
        comet.release(2)
        await eventually(lambda: sent(comet)[2:] == ["1None"])
        both = b'{"keys":["a","b"],"msg":4,"expire":0,"id":"4"}\n'
        await stream.send(line("a", 3, id="3") + both + line("a", 5, id="5") + line("other", 6))
        await eventually(lambda: comet.held_count == 2)
        comet.release()
        await eventually(lambda: sent(comet)[4:] == ["2None"])
        assert comet.held_count == 2
        comet.is_holding = False
        comet.release(2)
        await stream.end()
        assert len(await stream.rest()) == 6
    # Nothing was sent before the second was done, though the fourth waits for it only at one of its keys.
    assert sent(comet)[5:] == ["3['']", "4['3', '']", "5['4']"]


async def test_answers_do_not_wait_for_a_line_that_is_tried_again(comet: ScriptedComet) -> None:
    comet.is_holding = True
    comet.fates.extend([accepted, UnavailableError("busy")])
    async with running_web({"comet-1": comet}, no_messages()) as web, opened(web) as stream:
        await stream.send(line("k", 1) + line("busy", 2))
        await eventually(lambda: comet.held_count == 2)
        comet.release(2)
        assert outcome(await stream.answer()) == "k"
        await eventually(lambda: comet.held_count == 1)
        comet.release()
        await stream.end()
        assert [outcome(answer) for answer in await stream.rest()] == ["busy"]


async def test_a_line_with_very_many_keys_is_sent_by_itself(comet: ScriptedComet) -> None:
    comet.is_holding = True
    keys = json.dumps([f"k{n}" for n in range(129)])
    large = f'{{"keys":{keys},"msg":"large","expire":0}}\n'.encode()
    async with running_web({"comet-1": comet}, no_messages()) as web, opened(web) as stream:
        await stream.send(line("k7", "before") + large + line("k8", "behind") + line("other", "beside"))
        await eventually(lambda: comet.held_count == 2)
        assert sent(comet) == ["before['']", "beside['']"]
        comet.release()
        await eventually(lambda: comet.held_count == 2)
        assert sent(comet)[2:] == ["largeNone"]
        comet.is_holding = False
        comet.release(2)
        await stream.end()
        assert len(await stream.rest()) == 4
    assert sent(comet)[3:] == ["behind['']"]


class LossyComet:
    """A way to a real comet node on which pushes and answers get lost."""

    def __init__(self, node: CometService, random: Random) -> None:
        self._node = node
        self._random = random
        self.lost = 0

    def push(self, push: Push) -> asyncio.Future[PushReply]:
        # The registries of the two are not the same.
        push = msgspec.structs.replace(push, epoch=(0, 0))
        chance = self._random.random()
        if chance > 0.15:
            return self._node.push(push)
        self.lost += 1
        if chance > 0.10:
            return _failed(UnavailableError("not reached"))
        if chance > 0.05:
            # Too late for its turn.
            return self._node.push(msgspec.structs.replace(push, timeout_s=0.0))
        self._node.push(push)
        return _failed(InDoubtError("the answer was lost"))

    async def delete_key(self, key: Key, epoch: Epoch) -> int:
        raise NotImplementedError

    async def connections(self, key: Key) -> list[ConnectionInfo]:
        raise NotImplementedError

    async def status(self) -> CometStatus:
        raise NotImplementedError


def _failed(error: EnckeError) -> asyncio.Future[PushReply]:
    future: asyncio.Future[PushReply] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future


async def test_subscribers_get_the_lines_in_order_when_pushes_and_answers_get_lost(tmp_path: Path) -> None:
    keys = ["a", "b", "c"]
    random = Random(5)
    lines = random.choices(keys, k=120)
    async with running_core(tmp_path) as core:
        subscribers = {key: await core.subscribe(key) for key in keys}
        lossy = LossyComet(core.node, random)
        async with running_web({"comet-1": lossy}, no_messages()) as web, opened(web) as stream:
            for number, key in enumerate(lines):
                await stream.push(key, number, expire=600)
            await stream.end()
            assert [outcome(answer) for answer in await stream.rest()] == lines
        assert lossy.lost
        for key, subscriber in subscribers.items():
            wanted = [number for number, name in enumerate(lines) if name == key]
            assert values(await subscriber.documents(len(wanted))) == wanted
