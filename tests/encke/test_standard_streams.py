"""Servers whose standard streams are closed, or cannot be written to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import PATIENCE_S, run_encke
from tests.support.servers import free_port
from tests.support.system import ANY_PORTS


def serve(directory: Path, redirection: str, *words: str) -> tuple[int, str]:
    """Run `encke serve` under such a redirection until it is ready; its exit code and its log then."""
    status = f"127.0.0.1:{free_port()}"
    binds = " ".join([*ANY_PORTS[:-1], f"--status-bind={status}", *words])
    with subprocess.Popen(
        ["sh", "-c", f'exec "{sys.executable}" -m encke.cli serve {binds} {redirection}'],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            asked = run_encke("ready", "serve", "--status-bind", status, "--within", "30")
            process.terminate()
            log = process.communicate(timeout=PATIENCE_S)[1]
        finally:
            process.kill()
    assert asked.returncode == 0, asked.stderr + log
    return process.returncode, log


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_server_whose_standard_streams_are_closed_ends_in_order(tmp_path: Path, closed: str) -> None:
    assert serve(tmp_path, closed)[0] == 0


def test_workers_of_a_server_without_standard_streams_end_in_order(tmp_path: Path) -> None:
    assert serve(tmp_path, "<&- >&- 2>&-", "--workers", "1")[0] == 0


@pytest.mark.parametrize("words", [[], ["--workers", "1"]])
def test_server_that_cannot_say_anything_serves_and_tells_it_once(tmp_path: Path, words: list[str]) -> None:
    code, log = serve(tmp_path, ">/dev/full", *words)
    assert code == 0
    assert log.count("standard output is not written any more: [Errno 28]") == 1
    assert "Traceback" not in log


def test_server_whose_output_and_log_are_on_a_full_disk_serves(tmp_path: Path) -> None:
    serve(tmp_path, ">/dev/full 2>&1")
