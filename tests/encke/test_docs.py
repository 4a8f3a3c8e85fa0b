"""The pages for people: commands that can be given, links that lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from encke.cli import COMMANDS, build_parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(rf"(?:^|[\s/])encke ({'|'.join(COMMANDS)})\b([^\n]*)")
# Where a command ends in a line of the shell.
SHELL = re.compile(r"\s(?:&&?|\|\|?|;|#|>)(?:\s|$)")
# Of words for an argument that is a number.
PLACEHOLDER = {"SECONDS": "1", "MID": "1", "N": "2"}


def commands(page: Path) -> list[str]:
    """What follows `encke` in the indented blocks of a page."""
    blocks = "\n".join(line for line in page.read_text().splitlines() if line.startswith("    "))
    found = COMMAND.finditer(blocks.replace("\\\n", " "))
    return [SHELL.split(f"{match[1]}{match[2]}", maxsplit=1)[0] for match in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_on_a_page_can_be_given(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong: list[str] = []
    for line in commands(page):
        words = [PLACEHOLDER.get(word, word) for word in shlex.split(line)]
        try:
            build_parser(words[0]).parse_args(words)
        except SystemExit:
            wrong.append(f"{line}: {capsys.readouterr().err}")
    assert wrong == []


def test_pages_that_show_commands_are_read() -> None:
    assert len(commands(ROOT / "README.md")) > 5
    assert len(commands(ROOT / "docs" / "cluster.md")) > 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    wrong: list[str] = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        place, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = page.parent / place if place else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            wrong.append(target)
    assert wrong == []


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
