"""`encke nodes`: the table, the watch, the reasons why there is none."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from encke.commands.nodestable import lines_of, table, uptime
from tests.support.command import PATIENCE_S, run_encke, running_encke
from tests.support.system import Server, running

HEAD = ["KIND", "NAME", "KEYS", "ADDRESSES"]
ROWS = [["comet", "comet-1", "7", "ws=127.0.0.1:6968 tcp=127.0.0.1:6969"], ["web", "w", "", ""]]


def test_table_is_as_wide_as_its_cells() -> None:
    assert table(HEAD, ROWS, width=0) == [
        "KIND   NAME     KEYS  ADDRESSES",
        "comet  comet-1     7  ws=127.0.0.1:6968 tcp=127.0.0.1:6969",
        "web    w",
    ]


@pytest.mark.parametrize("width", [36, 46, 58])
def test_table_fits_the_terminal_by_cutting_the_widest_column(width: int) -> None:
    lines = table(HEAD, ROWS, width)
    assert max(len(line) for line in lines) <= width
    assert lines[1].startswith("comet  comet-1     7  ws=")
    assert lines[1].endswith("…") is (width < 58)


def test_table_stays_readable_on_a_terminal_that_is_too_narrow() -> None:
    assert table(HEAD, [["comet", "comet-1", "1,234,567", "ws=127.0.0.1:6968"]], width=1)[1] == (
        "comet  com…-1  1,234,567  ws=12…"
    )


def test_names_that_differ_at_their_end_are_told_apart_when_they_are_cut() -> None:
    rows = [["comet", f"push-production-eu-west-{number}", "", "ws=h:1"] for number in (1, 2)]
    lines = table(HEAD, rows, width=40)
    assert [line.split()[1] for line in lines[1:]] == ["push-pro…-west-1", "push-pro…-west-2"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0s"), (59.9, "59s"), (60, "1m"), (3725, "1h 2m"), (90_061, "1d 1h"), (-5, "0s")],
)
def test_uptime_is_told_in_two_units(seconds: float, words: str) -> None:
    assert uptime(seconds) == words


# -- an answer as lines


def node(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "name": name,
        "state": "serving",
        "addresses": {"rpc": ["10.0.0.1:6970"], "ws": ["push-1.example.org:6968"]},
        "weight": 1,
        "version": "0.1.0",
        "uptime_s": 272_000.0,
        "gone_s": None,
        **fields,
    }


ANSWER = {
    "nodes": [
        node("web", "web-1", connections=12, pushes=1_234_567, addresses={}),
        node("comet", "comet-2", share=0.5, connections=15_000, channels=14_987, pushes=1_234_567),
        node("comet", "comet-1", state="died", gone_s=12.2),
        node(
            "message",
            "message-1",
            stores=[
                {"location": "redis://h:6379/0", "durability": "everysec", "warning": "set it to always"},
                {"location": "redis://i:6379/0", "durability": "fsync", "warning": ""},
            ],
        ),
        node("message", "message-2", fault="no answer within 1 s"),
        node("message", "message-3", connections=4, fault="serves nobody"),
    ],
    "registry": "suspended",
}


def test_each_node_has_one_line_where_there_is_room() -> None:
    lines = lines_of(ANSWER, 0)
    assert [line.split()[1] for line in lines[:7]] == [
        "NAME", "comet-1", "comet-2", "message-1", "message-2", "message-3", "web-1",
    ]  # fmt: skip
    assert re.fullmatch(r"comet +comet-1 +died 12s ago +0\.1\.0 +1 +rpc=\S+ ws=\S+", lines[1])
    assert re.fullmatch(
        r"comet +comet-2 +serving +50% +15,000 +14,987 +1,234,567 +3d 3h +0\.1\.0 +1 .*", lines[2]
    )
    assert "redis://h:6379/0=everysec redis://i:6379/0=fsync" in lines[3]
    assert "serving, silent" in lines[4]
    assert "serving, not ready" in lines[5]


def test_node_that_does_not_say_when_it_was_started_has_no_uptime() -> None:
    answer = {"nodes": [node("web", "a", uptime_s=0.0), node("web", "b", uptime_s=0.4)]}
    silent, fresh = lines_of(answer, 0)[1:]
    assert silent.split()[:4] == ["web", "a", "serving", "0.1.0"]
    assert fresh.split()[:4] == ["web", "b", "serving", "0s"]


def test_what_to_look_at_stands_below() -> None:
    assert lines_of(ANSWER, 0)[7:] == [
        "! the web node that answers has lost the registry (suspended): the list may be old",
        "! message message-1: redis://h:6379/0: set it to always",
        "! message message-2: no answer within 1 s",
        "! message message-3: serves nobody",
    ]


def test_store_that_is_away_is_looked_at_before_its_settings() -> None:
    away = {"for_s": 3725.4, "reason": "Connection refused"}
    weak = {"location": "redis://h:6379/0", "durability": "everysec", "warning": "set it to always"}
    answer = {
        "nodes": [node("message", "message-1", stores=[{**weak, "away": away}, {**weak, "away": None}])]
    }
    assert lines_of(answer, 0)[2:] == [
        "! message message-1: redis://h:6379/0: away for 1h 2m: Connection refused",
        "! message message-1: redis://h:6379/0: set it to always",
    ]


def test_table_fits_a_terminal_of_80_columns_with_the_rest_below_each_line() -> None:
    lines = lines_of(ANSWER, 80)
    assert max(map(len, lines)) <= 80
    assert lines[3].split()[:3] == ["comet", "comet-2", "serving"]
    assert lines[4:6] == [
        "    version=0.1.0 weight=1 rpc=10.0.0.1:6970 ws=push-1.example.org:6968",
        lines[5],
    ]
    assert "redis://h:6379/0=everysec" in lines[6]
    # Nothing of the wide table is left out.
    words = {word for line in lines_of(ANSWER, 0) for word in line.split()} - {
        "VERSION", "WEIGHT", "STORE", "ADDRESSES", "0.1.0", "1",
    }  # fmt: skip
    assert words <= {word for line in lines for word in line.split()}


def test_what_nodes_say_does_not_steer_the_terminal() -> None:
    odd = {"nodes": [node("comet", "a\x1b[2Jb", fault="\x9b31m\n")]}
    assert all(line.isprintable() for line in lines_of(odd, 80))


def test_nodes_of_another_version_are_shown_with_what_they_say() -> None:
    assert lines_of({"nodes": [{"kind": "new", "later": 1}, {}]}, 80)[1].startswith("new")


# -- the command


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(Server(tmp_path_factory.mktemp("server"))) as started:
        yield started


def words(server: Server, *more: str) -> list[str]:
    host, port = server.addresses["admin"]
    return ["nodes", "--url", f"{host}:{port}", *more]


def listed(server: Server, **environ: str) -> CompletedProcess[str]:
    """The listing in a pipe, under an environment without a width of its own."""
    return run_encke(*words(server), environ={"COLUMNS": "", **environ})


@pytest.mark.parametrize("columns", ["", "0", "-5", "wide"])
def test_pipe_whose_reader_has_no_width_gets_a_line_per_node(server: Server, columns: str) -> None:
    assert len(listed(server, COLUMNS=columns).stdout.splitlines()) == 4


def test_pipe_gets_lines_of_the_width_that_its_reader_says(server: Server) -> None:
    lines = listed(server, COLUMNS="60").stdout.splitlines()
    assert len(lines) > 4
    assert max(map(len, lines)) <= 60


def test_nodes_of_one_process_are_listed(server: Server) -> None:
    done = listed(server)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert " ".join(lines[0].split()) == (
        "KIND NAME STATE SHARE CONNS KEYS PUSHES UP VERSION WEIGHT STORE ADDRESSES"
    )
    assert "100%" in lines[1]
    assert [line.split()[:3] for line in lines[1:4]] == [
        ["comet", "comet-1", "serving"],
        ["message", "message-1", "serving"],
        ["web", "web-1", "serving"],
    ]
    assert "=fsync" in lines[2]
    assert len(lines) == 4


def test_proxies_of_the_environment_are_not_asked(server: Server) -> None:
    done = listed(server, http_proxy="http://127.0.0.1:1", no_proxy="")
    assert (done.returncode, done.stderr) == (0, "")


def test_json_is_the_answer_as_it_is(server: Server) -> None:
    done = run_encke(*words(server, "--json"))
    answer = json.loads(done.stdout)
    assert [one["fault"] for one in answer["nodes"]] == [None] * 3
    message = next(one for one in answer["nodes"] if one["kind"] == "message")
    assert message["stores"][0]["durability"] == "fsync"


def test_watch_in_a_pipe_shows_each_list_whole_and_ends_with_its_reader(server: Server) -> None:
    with running_encke(*words(server, "--json", "--watch", "0.1")) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        pushes = []
        for _ in range(3):
            answer = json.loads(process.stdout.readline())
            pushes.append(next(one["pushes"] for one in answer["nodes"] if one["kind"] == "comet"))
            assert asyncio.run(server.push("bob", 1)) == 0
        process.stdout.close()
        assert process.wait(PATIENCE_S) == 141
        assert process.stderr.read() == ""
    assert pushes[0] < pushes[2]


def test_watch_goes_on_while_the_web_node_is_away(tmp_path: Path) -> None:
    with (
        running(Server(tmp_path)) as server,
        running_encke(*words(server, "--watch", "0.1")) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("KIND")
        server.kill()
        assert "no answer from" in process.stderr.readline()
        server.start()
        while "web-1" not in process.stdout.readline():
            pass
        # A whole list ends in an empty line.
        while process.stdout.readline() != "\n":
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130


def test_watch_on_a_terminal_paints_over_what_it_showed(server: Server) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 5, 80, 0, 0))
    environ = {"COLUMNS": "", "LINES": ""}
    watch = words(server, "--watch", "0.1")
    with running_encke(*watch, environ=environ, stdin=slave, stdout=slave) as process:
        os.close(slave)
        shown = read_until(master, rb"(\x1b\[H.*){4}")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
    os.close(master)
    screen = shown.split("\x1b[H")[2]
    lines = screen.replace("\x1b[K", "").replace("\x1b[J", "").replace("\r", "").splitlines()
    assert lines[0].startswith("KIND")
    # The list does not scroll away on five lines.
    assert re.fullmatch(r"… \d more lines", lines[2])
    assert re.fullmatch(r"\d\d:\d\d:\d\d", lines[3])
    assert len(lines) == 4


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "often"])
def test_watch_refuses_what_is_no_time(seconds: str) -> None:
    done = run_encke("nodes", f"--watch={seconds}")
    assert done.returncode == 2
    assert "--watch" in done.stderr


def read_until(descriptor: int, pattern: bytes) -> str:
    """What a terminal was sent, once it matches."""
    data = b""
    end = time.monotonic() + PATIENCE_S
    while not re.search(pattern, data, re.DOTALL):
        assert time.monotonic() < end, data
        if select.select([descriptor], [], [], 1.0)[0]:
            data += os.read(descriptor, 65536)
    return data.decode()
