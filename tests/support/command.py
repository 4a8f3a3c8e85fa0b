"""`encke` as a command, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from subprocess import PIPE, CompletedProcess, Popen
from typing import IO

ENCKE = (sys.executable, "-m", "encke.cli")

PATIENCE_S = 60.0


def run_encke(
    *words: str | bytes, cwd: Path | None = None, environ: Mapping[str, str] | None = None, stdin: str = ""
) -> CompletedProcess[str]:
    """Run it to its end.

    Args:
        environ: variables on top of this process's.
        stdin: all that it can read.
    """
    return subprocess.run(
        [*ENCKE, *words],
        cwd=cwd,
        env={**os.environ, **(environ or {})},
        input=stdin,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=PATIENCE_S,
        check=False,
    )


@contextlib.contextmanager
def running_encke(
    *words: str,
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
    stdin: int | IO[str] = PIPE,
    stdout: int = PIPE,
    under: tuple[str, ...] = (),
) -> Iterator[Popen[str]]:
    """Let it run during the block; it is killed at the end, if it still runs.

    Args:
        environ: variables on top of this process's.
        under: a command that starts it: "strace", with its options.
    """
    process = Popen(
        [*under, *ENCKE, *words],
        cwd=cwd,
        env={**os.environ, **(environ or {})},
        stdin=stdin,
        stdout=stdout,
        stderr=PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def said_until_ready(process: Popen[str]) -> list[str]:
    """The lines that a server says before "ready"."""
    assert process.stdout is not None
    said: list[str] = []
    for line in process.stdout:
        if line == "ready\n":
            return said
        said.append(line.rstrip("\n"))
    raise AssertionError(f"it ended before it was ready: {said}")
