"""`encke push` and `encke sub` as processes, against the real server."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess, Popen
from typing import IO

import pytest

from cluster.model import Key
from cluster.tokens import mint
from tests.encke.scripted_admin import Admin, served
from tests.support.command import PATIENCE_S, run_encke, running_encke
from tests.support.system import Server, running

SECRET = "s3cret"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    config = "[message]\nmax_messages_per_key = 20\n"
    with running(Server(tmp_path_factory.mktemp("server"), config=config)) as started:
        yield started


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


async def finish(process: Popen[str]) -> CompletedProcess[str]:
    out, err = await asyncio.to_thread(process.communicate, None, PATIENCE_S)
    return CompletedProcess(process.args, process.returncode, out, err)


async def run(*words: str, stdin: str = "") -> CompletedProcess[str]:
    return await asyncio.to_thread(run_encke, *words, stdin=stdin)


async def line(stream: IO[str] | None) -> str:
    assert stream is not None
    async with asyncio.timeout(PATIENCE_S):
        return (await asyncio.to_thread(stream.readline)).rstrip("\n")


def push_url(server: Server) -> tuple[str, str]:
    return "--url", "{}:{}".format(*server.addresses["admin"])


def sub_url(server: Server) -> tuple[str, str]:
    return "--url", "http://{}:{}".format(*server.addresses["public"])


async def test_push_tells_what_became_of_it(server: Server, key: str) -> None:
    done = await run("push", key, '{"n": 1}', "--expire", "60", *push_url(server))
    assert done.returncode == 0, done
    assert re.fullmatch(rf"{re.escape(key)}: mid \d+, nobody online\n", done.stdout)
    done = await run("push", key, "2", *push_url(server))
    assert done.stdout.endswith("nobody online, not stored (see --expire)\n")
    assert [m["msg"] for m in await server.fetch(key)] == [{"n": 1}]


async def test_push_to_several_keys_prints_a_line_for_each(server: Server, key: str) -> None:
    done = await run("push", f"{key}1", f"{key}2", '"x"', "--json", *push_url(server))
    assert done.returncode == 0, done
    results = [json.loads(text) for text in done.stdout.splitlines()]
    assert [(r["key"], r["online"], r["repeated"]) for r in results] == [
        (f"{key}1", 0, False),
        (f"{key}2", 0, False),
    ]


async def test_push_with_the_same_id_is_done_once(server: Server, key: str) -> None:
    words = ("push", key, "1", "--expire", "60", "--id", "one", *push_url(server))
    first, second = await run(*words), await run(*words)
    assert second.stdout == re.sub(r", .*", ", pushed before with this id", first.stdout)
    assert len(await server.fetch(key)) == 1


async def test_push_reads_json_from_stdin(server: Server, key: str) -> None:
    done = await run("push", key, "-", "--expire", "60", *push_url(server), stdin="[1,\n2]\n")
    assert done.returncode == 0, done
    assert [m["msg"] for m in await server.fetch(key)] == [[1, 2]]


async def test_push_streams_lines_and_counts_bad_ones(server: Server, key: str) -> None:
    lines = [
        {"key": key, "msg": 1},
        {"keys": [key, key + "2"], "msg": [2], "expire": 0},
        "nonsense",
        {"key": "", "msg": 1},
        {"key": key, "msg": {"n": 3}, "id": "three"},
    ]
    stdin = "\n".join(json.dumps(text) for text in lines)
    done = await run("push", "--stream", "--expire", "60", "--json", *push_url(server), stdin=stdin)
    assert done.returncode == 1, done
    assert [json.loads(text)["key"] for text in done.stdout.splitlines()] == [key, key, key + "2", key]
    assert "line 3 is no push" in done.stderr
    assert "line 4 is no push" in done.stderr
    assert "encke: 4 pushed, 2 failed" in done.stderr
    assert [m["msg"] for m in await server.fetch(key)] == [1, {"n": 3}]


async def test_push_streams_a_file(server: Server, key: str, tmp_path: Path) -> None:
    path = tmp_path / "pushes.ndjson"
    path.write_text("".join(json.dumps({"key": key, "msg": n}) + "\n" for n in range(10)))
    words = ("push", "--stream", "--expire", "60", *push_url(server))
    with path.open() as file, running_encke(*words, stdin=file) as process:
        done = await finish(process)
    assert done.returncode == 0, done
    assert [m["msg"] for m in await server.fetch(key)] == list(range(10))


async def test_stream_answers_while_its_input_is_still_open(server: Server, key: str) -> None:
    with running_encke("push", "--stream", *push_url(server)) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps({"key": key, "msg": 1}) + "\n")
        process.stdin.flush()
        assert (await line(process.stdout)).startswith(f"{key}: mid ")
        assert (await finish(process)).returncode == 0


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["push"], 2, "push what to whom"),
        (["push", "bob"], 2, "push what to whom"),
        (["push", "bob", "hello"], 1, "this is not JSON"),
        (["push", "bob", "1", "--expire", "-5"], 2, "not a number of seconds"),
        (["push", "bob", "1", "--timeout", "0"], 2, "must be at least 0.05 seconds"),
        (["push", "bob", "--expire", "5", "hello"], 1, "this is not JSON"),
        (["push", "", "1"], 1, "key is empty"),
        (["push", "--stream", "bob", "1"], 2, "come from stdin"),
        (["push", "bob", "1", "--timeout", "0.2", "--url", "http://127.0.0.1:1"], 1, "cannot be reached"),
        (["push", "bob", "1", "--url", "http://[::"], 1, "'http://[::' is no address of a server: "),
        (["push", "bob", "1", "--url", "ftp://x"], 1, "'ftp://x' is no address of a server: "),
        (["sub", "bob", "--url", "http://"], 1, "'http://' is no address of a server: "),
        (["nodes", "--url", "http://[::"], 1, "no answer from http://[::"),
        (["sub"], 2, "KEY"),
        (["sub", ""], 1, "key is empty"),
        (["sub", "bob", "--resume", "yesterday"], 2, "neither a mid nor"),
        (["sub", "bob", "--count", "0"], 2, "not a number of messages"),
    ],
)
async def test_wrong_words_are_answered_with_one_helpful_line(words: list[str], code: int, text: str) -> None:
    done = await run(*words)
    assert done.returncode == code, done
    assert text in done.stderr
    assert "Traceback" not in done.stderr


async def test_push_that_could_not_be_stored_says_where_the_reason_stands(admin: Admin) -> None:
    admin.failing = {"alice": "storage", "bob": "bad_request"}
    async with served(admin) as url:
        done = await run("push", "alice", "bob", "1", "--timeout", "0.1", "--url", url)
    assert (done.returncode, done.stdout) == (
        1,
        "alice: failed: storage (not stored; the server's log says why)\nbob: failed: bad_request\n",
    )


@pytest.mark.parametrize("words", [["bob", "1"], ["--stream"]])
async def test_push_says_once_that_it_waits_for_a_server(words: list[str]) -> None:
    with running_encke("push", *words, "--url", "127.0.0.1:1") as process:
        assert process.stdin is not None
        process.stdin.write('{"key":"bob","msg":1}\n')
        process.stdin.flush()
        said = await line(process.stderr)
        assert said.startswith("encke: http://127.0.0.1:1")
        assert " cannot be reached: " in said
        assert said.endswith("; trying for 30 s")
        process.send_signal(signal.SIGINT)
        done = await finish(process)
        assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize("transport", ["websocket", "tcp"])
async def test_sub_prints_messages_as_they_come(server: Server, key: str, transport: str) -> None:
    with running_encke("sub", key, "--transport", transport, *sub_url(server)) as process:
        assert await line(process.stderr) == "encke: subscribed to {} at {}:{}".format(
            key, *server.addresses["ws" if transport == "websocket" else "tcp"]
        )
        await server.push(key, '{"n": [1, "ü"]}'.encode())
        assert re.fullmatch(r'\d+ {"n":\[1,"ü"\]}', await line(process.stdout))
        process.send_signal(signal.SIGINT)
        done = await finish(process)
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


async def test_sub_ends_after_so_many_messages_and_resumes(server: Server, key: str) -> None:
    for number in range(4):
        await server.push(key, number, 60)
    done = await run("sub", key, "--resume", "0", "--count", "2", "--json", *sub_url(server))
    assert done.returncode == 0, done
    items = [json.loads(text) for text in done.stdout.splitlines()]
    assert [item["msg"] for item in items] == [0, 1]
    mid = str(items[-1]["mid"])
    done = await run("sub", key, "--resume", mid, "--count", "2", *sub_url(server))
    assert [text.split()[1] for text in done.stdout.splitlines()] == ["2", "3"]


async def test_sub_acknowledges_what_it_printed(server: Server, key: str) -> None:
    for number in range(3):
        await server.push(key, number, 60)
    words = ("sub", key, "--resume", "ack", "--device", "shell", "--json", *sub_url(server))
    done = await run(*words, "--count", "2")
    assert [json.loads(text)["msg"] for text in done.stdout.splitlines()] == [0, 1]
    done = await run(*words, "--count", "1")
    assert [json.loads(text)["msg"] for text in done.stdout.splitlines()] == [2]


async def test_sub_tells_of_a_gap(server: Server, key: str) -> None:
    for number in range(30):
        await server.push(key, number, 60)
    done = await run("sub", key, "--resume", "1", "--count", "1", "--json", *sub_url(server))
    gap, message = (json.loads(text) for text in done.stdout.splitlines())
    assert gap == {"gap": {"after": 1, "before": message["mid"]}}
    assert message["msg"] == 10
    assert "encke: gap: the server had to drop messages" in done.stderr


async def test_sub_waits_for_a_server_that_is_not_there() -> None:
    with running_encke("sub", "bob", "--url", "http://127.0.0.1:1") as process:
        assert re.match(
            r"encke: http://127.0.0.1:1 cannot be reached: .*; reconnecting in 0\.\d s",
            await line(process.stderr),
        )
        process.send_signal(signal.SIGINT)
        assert (await finish(process)).returncode == 130


async def test_sub_ends_quietly_when_nobody_reads(server: Server, key: str) -> None:
    with running_encke("sub", key, *sub_url(server)) as process:
        await line(process.stderr)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        await server.push(key, 1)
        assert await asyncio.to_thread(process.stderr.read) == ""
        assert process.wait(PATIENCE_S) == 141


@pytest.mark.parametrize("transport", ["websocket", "tcp"])
async def test_sub_ends_when_nobody_reads_also_without_another_message(
    server: Server, key: str, transport: str
) -> None:
    await server.push(key, 1, 60)
    words = ("sub", key, "--resume", "0", "--json", "--transport", transport, *sub_url(server))
    with running_encke(*words) as process:
        assert json.loads(await line(process.stdout))["msg"] == 1
        assert process.stdout is not None
        process.stdout.close()
        assert await asyncio.to_thread(process.wait, PATIENCE_S) == 141
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


async def test_sub_that_waits_for_a_server_ends_when_nobody_reads() -> None:
    with running_encke("sub", "bob", "--url", "http://127.0.0.1:1") as process:
        await line(process.stderr)
        assert process.stdout is not None
        process.stdout.close()
        assert await asyncio.to_thread(process.wait, PATIENCE_S) == 141


async def test_sub_says_that_its_token_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    config = f'[auth]\nsecrets = ["{SECRET}"]\n'
    with running(Server(tmp_path_factory.mktemp("guarded"), config=config)) as server:
        done = await run("sub", "bob", *sub_url(server))
        assert done.returncode == 1, done
        assert done.stderr.count("\n") == 1
        assert "token refused" in done.stderr
        await server.push("bob", 1, 60)
        token = mint(SECRET, Key("bob"), int(time.time()) + 60)
        words = ("sub", "bob", "--resume", "0", "--count", "1", *sub_url(server))
        with running_encke(*words, environ={"ENCKE_TOKEN": token}) as process:
            assert (await finish(process)).returncode == 0
