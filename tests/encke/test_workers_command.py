"""`--workers`: what is refused, before anything is started."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import PATIENCE_S, run_encke
from tests.support.system import ANY_PORTS


@pytest.mark.parametrize("command", ["serve", "comet"])
@pytest.mark.parametrize("count", ["0", "-1", "257", "two", "1.5", "9" * 5000, ""])
def test_wrong_number_of_workers_is_wrong_usage(command: str, count: str, tmp_path: Path) -> None:
    done = run_encke(command, "--workers", count, cwd=tmp_path)
    assert done.returncode == 2
    assert "whole number from 1 to 256" in done.stderr or "expected one argument" in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["serve", "comet"])
def test_port_in_use_ends_it_before_anything_is_started(command: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_encke(command, "--workers", "1", "--ws-bind", f"127.0.0.1:{port}", cwd=tmp_path)
    assert done.returncode == 2
    assert f"port {port} for WebSocket subscribers of comet-1-0 is in use by process" in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_worker_that_cannot_start_ends_all_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "store.db").write_text("not a database")
    done = run_encke("serve", "--workers", "2", "--data-dir", "data", *ANY_PORTS, cwd=tmp_path)
    assert done.returncode == 1
    assert "encke: message-1: " in done.stderr
    assert "encke: message-1 could not start: exit code 1" in done.stderr
    assert "ready" not in done.stdout.splitlines()


def test_a_worker_that_nobody_gave_a_job_ends(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "encke.workermain", "nobody"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
