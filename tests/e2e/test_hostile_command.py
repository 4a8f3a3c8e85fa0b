"""Bad configurations and command lines: all faults at once, exit code 2, before anything is bound or made.

More of both, without a process: tests/cluster/test_config.py and tests/encke.
"""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.support.command import run_encke
from tests.support.system import ANY_PORTS, KINDS, Server, running

USAGE = {
    "no arguments": (),
    "unknown command": ("explode",),
    "unknown flag": ("serve", "--explode"),
    "flag without a value": ("serve", "--data-dir"),
    "push without a payload": ("push", "key"),
    "argument not UTF-8": ("serve", b"--\xff\xfe"),
}


@pytest.mark.parametrize("name", USAGE)
def test_wrong_command_line_is_told_on_stderr_and_exits_2(tmp_path: Path, name: str) -> None:
    done = run_encke(*USAGE[name], cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(("usage: encke", "encke: "))
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("--help",), ("serve", "--help"), ("push", "--help")])
def test_help_is_on_stdout_and_exits_0(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run_encke(*arguments, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: encke")
    assert done.stderr == ""


CONFIGS: dict[str, tuple[str | bytes, list[str]]] = {
    "unknown key": ("[comet]\nws_bindd = 'x:1'\n", ["comet.ws_bindd", ":2"]),
    "unknown table": ("[commet]\n", ["commet"]),
    "wrong type": ("[comet]\nws_bind = 5\n", ["comet.ws_bind", ":2"]),
    "out of range": ("[comet]\nmax_connections = -1\n", ["comet.max_connections"]),
    "not an address": ("[comet]\ntcp_bind = 'here'\n", ["comet.tcp_bind"]),
    "port too high": ("[comet]\ntcp_bind = 'localhost:70000'\n", ["comet.tcp_bind"]),
    "unknown durability": ("[message]\ndurability = 'mongodb'\n", ["message.durability"]),
    "empty data directory": ("[message]\ndata_dir = ''\n", ["message.data_dir"]),
    "syntax": ("[comet\n", [":1"]),
    "not UTF-8": (b"\xff", ["UTF-8"]),
    "several": (
        "[comet]\nws_bindd = 'x:1'\ntcp_bind = 5\n[web]\nmax_requests = 'many'\n",
        ["comet.ws_bindd", "comet.tcp_bind", "web.max_requests"],
    ),
    "advertised address that nobody can reach": (
        "[comet]\nws_advertise = '0.0.0.0:6968'\n",
        ["comet.ws_advertise"],
    ),
    "advertised host that nobody can reach": ("[serve]\nadvertise_host = '::'\n", ["serve.advertise_host"]),
    "admin open to all without a token": ("[web]\nadmin_bind = '0.0.0.0:0'\n", ["web.admin_bind"]),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_wrong_configuration_is_refused_whole_with_places(tmp_path: Path, name: str) -> None:
    content, words = CONFIGS[name]
    path = tmp_path / "encke.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = run_encke("serve", "--config", str(path), cwd=tmp_path)
    assert done.returncode == 2, done
    assert all(word in done.stderr for word in words), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == [path]


def test_config_check_finds_what_serve_would(tmp_path: Path) -> None:
    content, words = CONFIGS["several"]
    path = tmp_path / "encke.toml"
    path.write_text(str(content))
    done = run_encke("config", "check", str(path), cwd=tmp_path)
    assert done.returncode == 2
    assert all(word in done.stderr for word in words), done.stderr


def test_missing_configuration_file_is_told(tmp_path: Path) -> None:
    done = run_encke("serve", "--config", "nowhere.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert "nowhere.toml" in done.stderr


def test_wrong_environment_is_refused_with_its_name(tmp_path: Path) -> None:
    environ = {"ENCKE_COMET__MAX_CONNECTIONS": "lots"}
    done = run_encke("serve", *ANY_PORTS, cwd=tmp_path, environ=environ)
    assert done.returncode == 2
    assert "ENCKE_COMET__MAX_CONNECTIONS" in done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_port_in_use_is_told_with_its_holder(tmp_path: Path, kind: str) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        done = run_encke("serve", *ANY_PORTS, f"--{kind}-bind=127.0.0.1:{port}", cwd=tmp_path)
    assert done.returncode == 2
    assert str(port) in done.stderr
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


# Commands that open the embedded store, a port of each, and what chooses its directory.
STORING: dict[str, tuple[tuple[str, ...], str, str]] = {
    "serve": (("serve", *ANY_PORTS), "public", "--data-dir or message.data_dir"),
    "workers": (("serve", "--workers", "2", *ANY_PORTS), "public", "--data-dir or message.data_dir"),
    "message": (("message", "--rpc-bind=127.0.0.1:0"), "status", "message.data_dir"),
}


@pytest.mark.parametrize("name", STORING)
def test_port_in_use_and_directory_that_cannot_be_made_are_told_at_once(tmp_path: Path, name: str) -> None:
    command, taken, chosen_with = STORING[name]
    (tmp_path / "file").write_text("")
    environ = {"ENCKE_MESSAGE__DATA_DIR": "file/data"}
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        bind = f"--{taken}-bind=127.0.0.1:{port}"
        done = run_encke(*command, bind, cwd=tmp_path, environ=environ)
    assert done.returncode == 2
    assert done.stdout == ""
    told_port, told_directory = done.stderr.splitlines()
    assert told_port.startswith(f"encke: port {port} for ")
    assert told_directory == (
        f"encke: cannot use file/data as data directory: Not a directory; choose another with {chosen_with}"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_data_directory_in_use_is_told_with_its_holder(tmp_path: Path) -> None:
    with running(Server(tmp_path / "first")) as first:
        done = run_encke("serve", *ANY_PORTS, "--data-dir", str(first.data_dir), cwd=tmp_path)
        assert done.returncode == 2
        assert f"{first.data_dir} is in use by another process (pid {first.pid})" in done.stderr
        assert first.is_running
