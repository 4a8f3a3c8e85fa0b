"""encke/cli.py and the commands that need no server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from cluster.tokens import TokenVerifier
from encke.cli import COMMANDS, main
from tests.support.command import PATIENCE_S, run_encke, running_encke
from tests.support.system import LISTENS_ON


def test_help_names_every_command_and_exits_0(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert all(f"\n    {command} " in text for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: encke {command} ")


@pytest.mark.parametrize("command", [*([name] for name in COMMANDS), ["config", "check"]])
def test_help_says_what_every_argument_is_for(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    lines = capsys.readouterr().out.splitlines()
    # An argument stands at two spaces, with its words behind it or in the next line.
    for line, below in pairwise([*lines, ""]):
        if re.match(r"  \S", line) and not line.startswith("  encke "):
            assert re.search(r"\S  +\S", line.strip()) or re.match(r" {8}", below), line


@pytest.mark.parametrize(
    "words", [[], ["no-such"], ["--no-such"], ["serve", "--no-such"], ["token"], ["config"]]
)
def test_wrong_usage_is_told_on_stderr_and_exits_2(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "usage: encke" in err


@pytest.mark.parametrize("command", COMMANDS)
def test_flag_of_a_command_is_not_taken_for_a_longer_one(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    flags = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    needed = {"config": ["check", "FILE"], "token": ["bob"], "ready": ["web"], "backup": ["DIR"]}
    for flag in sorted({flag[:-1] for flag in flags} - flags):
        with pytest.raises(SystemExit) as ended:
            main([command, *needed.get(command, ["bob"]), flag])
        assert ended.value.code == 2
        assert f"there is no {flag}" in capsys.readouterr().err


def test_flag_that_does_not_exist_is_answered_with_those_that_were_meant_and_never_with_its_value(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["push", "--admin=s3cret", "--exprie", "9", "alice", "1"])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: encke push KEY [KEY ...] JSON [options]")
    assert err.endswith(
        "encke push: error: there is no --admin (did you mean --admin-token?)"
        " and no --exprie (did you mean --expire?); see encke push --help\n"
    )
    assert "s3cret" not in err


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "soon", ""])
@pytest.mark.parametrize(
    "words", [["ready", "web", "--within"], ["push", "a", "1", "--timeout"], ["nodes", "--watch"]]
)
def test_a_time_that_is_none_is_wrong_usage(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    *words, flag = words
    with pytest.raises(SystemExit) as ended:
        main([*words, f"{flag}={text}"])
    assert ended.value.code == 2
    assert f"seconds, got {text!r}" in capsys.readouterr().err


def test_argument_that_is_not_utf8_is_told_without_a_trace() -> None:
    done = run_encke("token", b"\xff", "--secret-env", "S")
    assert done.returncode == 2
    assert "key is not valid UTF-8" in done.stderr


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("encke ")


def test_reader_that_goes_away_is_no_error_to_speak_of() -> None:
    with running_encke("config", "example") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(PATIENCE_S) == 141
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("words", "closed", "code", "text"),
    [
        ("--version", ">&-", 0, ""),
        ("config example", ">&-", 0, ""),
        ("--version", ">/dev/full", 1, "No space left on device"),
        ("push bob -", "<&-", 2, "standard input is closed"),
        ("push --stream", "<&-", 2, "standard input is closed"),
    ],
)
def test_what_is_closed_before_the_start_makes_no_trace(
    monkeypatch: pytest.MonkeyPatch, words: str, closed: str, code: int, text: str
) -> None:
    # Unbuffered, nothing is left to be written at exit.
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    line = f'exec "{sys.executable}" -m encke.cli {words} {closed}'
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert text in done.stderr


# What is imported before it looks at its arguments, and what it needs to do its work.
IMPORTS = [*((command, "argparse") for command in COMMANDS), ("push", "aiohttp"), ("sub", "aiohttp")]
IMPORTS += [(command, "uvloop") for command in ("serve", "comet", "message", "web")]


@pytest.mark.parametrize(("command", "module"), IMPORTS)
def test_interrupt_ends_a_command_that_is_starting_without_a_word(
    command: str, module: str, tmp_path: Path
) -> None:
    # Some of what is imported swallows an interrupt, as a callback of the garbage collector does. It sleeps
    # in short pieces: a signal just before a sleep would be noticed behind it.
    (tmp_path / f"{module}.py").write_text(
        "import sys, time\n"
        "print('importing', file=sys.stderr, flush=True)\n"
        "while True:\n"
        "    try:\n"
        "        time.sleep(0.1)\n"
        "    except KeyboardInterrupt:\n"
        "        print('swallowed', file=sys.stderr)\n"
    )
    words = {"push": ["bob", "1"], "sub": ["bob"]}.get(command, [])
    binds = [word for kind in LISTENS_ON.get(command, ()) for word in (f"--{kind}-bind", "127.0.0.1:0")]
    environ = {"PYTHONPATH": f"{tmp_path}:{os.getcwd()}"}
    with running_encke(command, *words, *binds, cwd=tmp_path, environ=environ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=PATIENCE_S) == ("", "")
        assert process.returncode == 130


def test_token_is_minted_from_the_environment_or_a_config_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "encke.toml"
    config.write_text('[auth]\nsecrets = ["new", "old"]\n')
    monkeypatch.setenv("MY_SECRET", "from env")
    for source, secret in ((["--config", str(config)], "new"), (["--secret-env", "MY_SECRET"], "from env")):
        assert main(["token", "bob", "--ttl", "2m", *source]) == 0
        token = capsys.readouterr().out.strip()
        expiry = TokenVerifier([secret]).expiry("bob", token, time.time())
        assert expiry is not None
        assert 100 < expiry - time.time() < 125


def test_token_is_minted_from_a_file_whose_admin_token_only_the_server_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "encke.toml"
    config.write_text('[web]\nadmin_bind = "0.0.0.0:8091"\n[auth]\nsecrets = ["s3cret"]\n')
    assert main(["config", "check", str(config)]) == 2
    assert "web.admin_token" in capsys.readouterr().err
    assert main(["token", "bob", "--config", str(config)]) == 0
    config.write_text("[web]\nadmin_bimd = 1\n[auth]\nsecrets = ['']\n")
    assert main(["token", "bob", "--config", str(config)]) == 2
    assert "admin_bimd" in (err := capsys.readouterr().err)
    assert "auth.secrets: must not be empty" in err


@pytest.mark.parametrize("source", [[], ["--secret-env", "NOT_SET"]])
def test_token_without_a_secret_says_where_to_give_one(
    source: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["token", "bob", *source]) == 2
    assert "NOT_SET is not set" in (err := capsys.readouterr().err) or "--secret-env NAME" in err


@pytest.mark.parametrize("ttl", ["0", "1w", "-1", "1.5h", ""])
def test_token_refuses_what_is_no_time(ttl: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["token", "bob", f"--ttl={ttl}"])
    assert ended.value.code == 2


def test_config_check_tells_what_differs_without_secrets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "encke.toml"
    config.write_text('[comet]\nweight = 2\n[auth]\nsecrets = ["hunter2"]\n')
    assert main(["config", "check", str(config)]) == 0
    out = capsys.readouterr().out
    assert out == (
        f'{config}: good; 2 settings differ from their defaults\n  comet.weight = 2\n  auth.secrets = "***"\n'
    )


def test_config_check_tells_all_faults_and_exits_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "encke.toml"
    config.write_text(
        '[comet]\nweight = -1\nws_bnid = "x"\n[message]\ndurability = "ram"\n[storage]\n'
        '[web]\nadmin_bind = "0.0.0.0:8091"\n[auth]\nsecrets = [""]\n'
    )
    assert main(["config", "check", str(config)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.partition(str(config))[2].split(" ")[0] for line in err.splitlines()] == [
        ":2:",
        ":3:",
        ":5:",
        ":6:",
        ":8:",
        ":10:",
    ]
    assert "did you mean ws_bind?" in err


def test_config_check_tells_which_node_nobody_could_reach(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "encke.toml"
    config.write_text(
        '[comet]\nws_bind = ""\ntcp_bind = ""\nweight = -1\n[web]\npublic_bind = ""\nadmin_bind = ""\n'
    )
    assert main(["config", "check", str(config)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.partition(str(config))[2].split(" ")[:2] for line in err.splitlines()] == [
        [":4:", "comet.weight:"],
        [":3:", "comet.tcp_bind:"],
        [":7:", "web.admin_bind:"],
    ]


def test_config_check_shows_what_is_switched_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "encke.toml"
    config.write_text('[comet]\ntcp_bind = ""\n[web]\nadmin_bind = ""\n')
    assert main(["config", "check", str(config)]) == 0
    assert capsys.readouterr().out == (
        f"{config}: good; 2 settings differ from their defaults\n"
        '  comet.tcp_bind = ""\n  web.admin_bind = ""\n'
    )


def test_address_for_calls_is_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "encke.toml"
    config.write_text('[comet]\nrpc_bind = ""\n')
    assert main(["config", "check", str(config)]) == 2
    assert f'{config}:2: comet.rpc_bind: expected "host:port"' in capsys.readouterr().err


NO_HOST = (
    "encke: {0}.rpc_advertise: set the host:port at which other nodes call this one;"
    " {0}.rpc_bind ({1}) names no host that they could connect to\n"
)


def test_config_check_tells_which_nodes_of_a_cluster_could_not_be_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "encke.toml"
    config.write_text('[comet]\nrpc_bind = "[::]:6970"\n[message]\nrpc_bind = ":8070"\n')
    assert main(["config", "check", str(config)]) == 2
    assert capsys.readouterr().err == NO_HOST.format("comet", "[::]:6970") + NO_HOST.format(
        "message", ":8070"
    )


@pytest.mark.parametrize("kind", ["comet", "message"])
def test_node_that_others_could_not_call_says_what_to_set_before_it_waits_for_anything(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([kind, "--rpc-bind", "0.0.0.0:0"]) == 2
    assert capsys.readouterr().err == NO_HOST.format(kind, "0.0.0.0:0")


def test_tables_are_made_for_the_store_of_a_file_that_has_to_be_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["message", "--init-schema"]) == 2
    assert capsys.readouterr().err == (
        'encke: message.store is "embedded": only "mysql" has tables to make;'
        " give the --config FILE of its nodes\n"
    )


def test_backup_of_nothing_fails_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backup", str(tmp_path / "copy"), "--data-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"encke: {tmp_path}/store.db: there is no store\n"


def test_nodes_without_a_server_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nodes", "--url", "127.0.0.1:1"]) == 1
    assert capsys.readouterr().err == (
        "encke: no answer from 127.0.0.1:1 ([Errno 111] Connection refused): "
        "is the server running? give --url URL\n"
    )
