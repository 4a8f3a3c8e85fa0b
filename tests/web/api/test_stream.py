"""web/api/stream.py: NDJSON in, NDJSON out."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from cluster.errors import OverloadedError
from cluster.registry.memory import MemoryRegistry
from tests.support.eventually import eventually
from tests.support.peer import Peer
from tests.support.services import ScriptedComet, failing, not_owner
from tests.support.web import Web, comet_info, running_web
from tests.web.api.streams import HEAD, line, opened, outcome
from tests.web.conftest import no_messages
from web.api.stream import _Stream


async def test_each_line_is_answered_while_the_stream_is_open(web: Web, comet: ScriptedComet) -> None:
    async with opened(web) as stream:
        for n in range(3):
            await stream.push("k", n, id=f"id-{n}")
            assert await stream.answer() == {"results": [{"key": "k", "mid": 80, "online": 1}], "failed": []}
        await stream.end()
        assert await stream.rest() == []
    assert [(push.payload, push.push_id) for push in comet.pushes] == [
        (b"0", "id-0"), (b"1", "id-1"), (b"2", "id-2"),
    ]  # fmt: skip


async def test_lines_may_be_cut_anywhere_and_the_last_needs_no_end(web: Web, comet: ScriptedComet) -> None:
    text = line("a", "é") + b"\r\n \n" + line("b") + line("c")[:-1]
    async with opened(web, b"Expect: 100-continue") as stream:
        for byte in text:
            await stream.send(bytes([byte]))
        await stream.end()
        answers = await stream.rest()
    assert [answer["results"][0]["key"] for answer in answers] == ["a", "b", "c"]
    assert comet.pushes[0].payload == '"é"'.encode() or comet.pushes[0].payload == b'"\\u00e9"'


async def test_connection_serves_on_after_a_stream(web: Web) -> None:
    async with opened(web) as stream:
        await stream.push("k")
        await stream.end()
        assert len(await stream.rest()) == 1
        await stream.peer.send(b"GET /nope HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await stream.peer.reader.readline()) == b"HTTP/1.1 404 Not Found\r\n"


async def test_connection_ends_behind_a_stream_if_the_client_wants_that(web: Web) -> None:
    peer = await Peer.connect(web.address("admin"))
    await peer.send(HEAD + b"Connection: close\r\n\r\n0\r\n\r\n")
    async with asyncio.timeout(10):
        answer = await peer.reader.read()
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\n0\r\n\r\n")
    await peer.close()


async def test_bad_lines_are_answered_at_their_place(web: Web, comet: ScriptedComet) -> None:
    comet.fates.extend([failing({}), failing({"b": "storage"})])
    bad = [b"hello\n", b'{"key":"x","msg":1}\n', b'{"key":"","msg":1,"expire":0}\n', b'{"key":"\xff"}\n']
    async with opened(web) as stream:
        await stream.send(line("a") + b"".join(bad) + line("b") + line("c"))
        await stream.end()
        answers = await stream.rest()
    assert [outcome(answer) for answer in answers] == [
        "a", "bad_request", "bad_request", "bad_request", "bad_request", "storage", "c",
    ]  # fmt: skip


async def test_our_own_fault_cuts_a_stream_and_is_logged(
    web: Web, comet: ScriptedComet, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("broken")

    async with opened(web) as stream:
        await stream.push("a")
        assert outcome(await stream.answer()) == "a"
        monkeypatch.setattr(comet, "push", broken)
        await stream.push("b")
        # Neither a last chunk nor another answer.
        assert await stream.peer.read_to_end() == b""
    assert "broken" in caplog.text


async def test_drain_before_the_first_read_ends_a_stream(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_all = _Stream._answer_all

    async def drained(stream: _Stream) -> None:
        # Its reader has been made and has not run yet.
        stream.stop_reading()
        await answer_all(stream)

    monkeypatch.setattr(_Stream, "_answer_all", drained)
    async with opened(web) as stream:
        assert await stream.rest() == []


async def test_malformed_chunk_ends_a_stream(web: Web, comet: ScriptedComet) -> None:
    async with opened(web) as stream:
        await stream.push("a")
        assert outcome(await stream.answer()) == "a"
        await stream.peer.send(b"zz\r\n")
        # Without a last chunk: it is no good end.
        assert await stream.peer.read_to_end() == b""


async def test_too_long_line_of_blanks_is_answered_too(comet: ScriptedComet) -> None:
    async with (
        running_web({"comet-1": comet}, no_messages(), max_line_bytes=2000) as web,
        opened(web) as stream,
    ):
        await stream.send(b" " * 3000)
        assert outcome(await stream.answer()) == "too_large"
        await stream.send(line("a") + line("b"))
        await stream.end()
        assert [outcome(answer) for answer in await stream.rest()] == ["b"]


async def test_too_long_lines_are_skipped_without_holding_them(comet: ScriptedComet) -> None:
    async with (
        running_web({"comet-1": comet}, no_messages(), max_line_bytes=2000) as web,
        opened(web) as stream,
    ):
        await stream.push("a")
        await stream.send(b"x" * 3000)
        # Answered although its end has not come.
        answers = [await stream.answer(), await stream.answer()]
        for _ in range(50):
            await stream.send(b"x" * 3000)
        await stream.send(b"\n" + line("b", "y" * 3000) + line("c") + b"z" * 3000)
        answers += [await stream.answer() for _ in range(3)]
        await stream.end()
        assert await stream.rest() == []
    assert [outcome(answer) for answer in answers] == ["a", "too_large", "too_large", "c", "too_large"]
    assert [push.keys for push in comet.pushes] == [["a"], ["c"]]


async def test_answers_keep_the_order_of_the_lines(comet: ScriptedComet) -> None:
    slow = ScriptedComet()
    slow.is_holding = True
    async with running_web({"a": comet, "b": slow}, no_messages()) as web, opened(web) as stream:
        keys = [f"key-{n}" for n in range(30)]
        await stream.send(b"".join(map(line, keys)))
        await stream.end()
        await eventually(lambda: len(comet.pushes) + len(slow.pushes) == 30)
        assert slow.held_count
        slow.release(slow.held_count)
        answers = await stream.rest()
    assert [answer["results"][0]["key"] for answer in answers] == keys


async def test_reading_waits_when_too_many_lines_are_unanswered(comet: ScriptedComet) -> None:
    comet.is_holding = True
    async with running_web({"comet-1": comet}, no_messages(), stream_window=3) as web, opened(web) as stream:
        await stream.send(b"".join(line(f"k{n}") for n in range(10)))
        await eventually(lambda: len(comet.pushes) == 3)
        comet.release()
        await stream.answer()
        await eventually(lambda: len(comet.pushes) == 4)
        assert comet.held_count == 3
        comet.is_holding = False
        comet.release(3)
        await stream.end()
        assert len(await stream.rest()) == 9


async def test_reading_waits_when_too_many_bytes_are_unanswered(comet: ScriptedComet) -> None:
    comet.is_holding = True
    async with (
        running_web({"comet-1": comet}, no_messages(), stream_window_bytes=1024) as web,
        opened(web) as stream,
    ):
        await stream.push("big", "x" * 5000)
        await stream.push("small")
        await eventually(lambda: comet.held_count == 1)
        comet.release()
        await stream.answer()
        await eventually(lambda: len(comet.pushes) == 2)
        comet.release()
        await stream.end()
        assert len(await stream.rest()) == 1


async def test_lines_wait_for_those_sent_under_an_older_ring(comet: ScriptedComet) -> None:
    registry = MemoryRegistry()
    comet.is_holding = True
    comet.fates.append(not_owner())
    async with (
        running_web({"comet-1": comet}, no_messages(), registry=registry) as web,
        opened(web) as stream,
    ):
        await stream.push("k", 1)
        await eventually(lambda: comet.held_count == 1)
        await registry.register(comet_info("comet-0", weight=0))
        await stream.push("k", 2)
        comet.release()
        # The first is sent again before the second is sent at all.
        await eventually(lambda: comet.held_count == 1)
        assert [push.payload for push in comet.pushes] == [b"1", b"1"]
        comet.is_holding = False
        comet.release()
        await stream.end()
        assert len(await stream.rest()) == 2
    assert [push.payload for push in comet.pushes] == [b"1", b"1", b"2"]


async def test_no_comet_node_is_answered_line_by_line() -> None:
    async with running_web({}, no_messages()) as web, opened(web) as stream:
        await stream.push("k")
        assert (await stream.answer())["error"]["code"] == "no_node"
        await stream.end()
        assert await stream.rest() == []


async def test_node_that_refuses_is_answered_at_its_line(web: Web, comet: ScriptedComet) -> None:
    comet.fates.extend([failing({}), OverloadedError("full")])
    async with opened(web) as stream:
        await stream.send(line("a") + line("b") + line("c"))
        await stream.end()
        assert [outcome(answer) for answer in await stream.rest()] == ["a", "overloaded", "c"]


async def test_keys_that_are_none_fail_within_their_line(web: Web, comet: ScriptedComet) -> None:
    async with opened(web) as stream:
        await stream.send(b'{"keys":[""],"msg":1,"expire":0}\n')
        assert await stream.answer() == {"results": [], "failed": [{"key": "", "code": "bad_request"}]}
        await stream.end()
        await stream.rest()
    assert not comet.pushes


async def test_pushes_go_on_when_the_client_goes_away(web: Web, comet: ScriptedComet) -> None:
    comet.is_holding = True
    async with opened(web) as stream:
        await stream.push("k", 1)
        await stream.push("k", 2)
        await eventually(lambda: comet.held_count == 2)
    await eventually(lambda: not web.counted("http_admin_connections"))
    comet.release(2)
    await eventually(lambda: not web.admin_listener.in_progress)
    assert not web.node._streams._streams


async def test_silent_stream_is_ended(comet: ScriptedComet) -> None:
    async with (
        running_web({"comet-1": comet}, no_messages(), stream_idle_s=0.1) as web,
        opened(web) as stream,
    ):
        await stream.push("k")
        assert len(await stream.rest()) == 1


async def test_client_that_reads_no_answers_is_cut_off(comet: ScriptedComet) -> None:
    async with running_web({"comet-1": comet}, no_messages(), send_timeout_s=0.1) as web:
        peer = await Peer.connect(web.address("admin"), receive_buffer_bytes=4096)
        await peer.send(HEAD + b"\r\n")
        text = line("k" * 500) * 100
        with contextlib.suppress(ConnectionError):
            while web.counted("http_admin_connections"):
                await peer.send(b"%x\r\n%b\r\n" % (len(text), text))
        await eventually(lambda: not web.counted("http_admin_connections"))
        await peer.close()


async def test_streams_beyond_the_limit_are_refused(comet: ScriptedComet) -> None:
    async with running_web({"comet-1": comet}, no_messages(), max_streams=1) as web, opened(web) as stream:
        response = await web.admin("POST", "/2/admin/push/stream", line("k"))
        assert (response.status, response.json["error"]["code"]) == (503, "unavailable")
        await stream.push("k")
        assert (await stream.answer())["results"]


async def test_old_http_cannot_stream(web: Web) -> None:
    peer = await Peer.connect(web.address("admin"))
    await peer.send(b"POST /2/admin/push/stream HTTP/1.0\r\nContent-Length: 0\r\n\r\n")
    assert b" 400 Bad Request" in await peer.read_to_end()
    await peer.close()


async def test_drain_answers_what_was_read_and_ends_the_stream(web: Web, comet: ScriptedComet) -> None:
    comet.is_holding = True
    async with opened(web) as stream:
        await stream.push("k")
        await eventually(lambda: comet.held_count == 1)
        drain = asyncio.create_task(web.node.drain(5.0))
        await eventually(lambda: web.admin_listener.is_draining)
        await stream.push("late")
        comet.release()
        answers = await stream.rest()
        await drain
    assert [answer["results"][0]["key"] for answer in answers] == ["k"]


async def test_stream_goes_through_the_whole_server(system: Web) -> None:
    async with opened(system) as stream:
        for n in range(300):
            await stream.send(line(f"key-{n % 7}", n, expire=600))
        await stream.end()
        answers = await stream.rest()
    assert len(answers) == 300
    stored = (await system.get("/1/msg/get?k=key-3&m=0")).json["data"]["msgs"]
    assert [message["msg"] for message in stored] == list(range(3, 300, 7))
    assert [message["mid"] for message in stored] == [
        answer["results"][0]["mid"] for answer in answers if answer["results"][0]["key"] == "key-3"
    ]
