"""The programs of docs/python-client.md run, and print what the page says they print."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.system import Server, running

DEADLINE_S = 60.0
PAGE = Path(__file__).parents[2] / "docs" / "python-client.md"

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples() -> list[tuple[str, str]]:
    """Each program of the page with what the block after it says it prints."""
    blocks = _BLOCK.findall(PAGE.read_text())
    following = [*blocks[1:], ("", "")]
    return [
        (code, printed if kind == "text" else "")
        for (language, code), (kind, printed) in zip(blocks, following, strict=True)
        if language == "python"
    ]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(Server(tmp_path_factory.mktemp("server"))) as started:
        yield started


@pytest.mark.parametrize("number", range(len(examples())))
def test_example_prints_what_the_page_says(server: Server, number: int) -> None:
    code, printed = examples()[number]
    for usual, kind in (("localhost:8090", "public"), ("localhost:8091", "admin")):
        code = code.replace(usual, "{}:{}".format(*server.addresses[kind]))
    words = [sys.executable, "-X", "dev", "-W", "error", "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert (done.stdout, done.stderr, done.returncode) == (printed, "", 0)


def test_the_page_has_programs() -> None:
    assert len(examples()) >= 6
