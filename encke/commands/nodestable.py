"""How `encke nodes` shows nodes: a table as wide as the terminal, or as wide as it needs."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

# The widest columns of text are cut first, never below this.
NARROWEST = 6

# Of these the table consists always. The others follow in the same line where there is room for
# all, else below it.
HEAD = ("KIND", "NAME", "STATE", "SHARE", "CONNS", "KEYS", "PUSHES", "UP")
MORE = ("VERSION", "WEIGHT", "STORE", "ADDRESSES")
_NUMBERS = {"SHARE", "CONNS", "KEYS", "PUSHES", "WEIGHT"}
# Cut in the middle: names differ mostly at their ends.
_NAMES = {"NAME"}

_KINDS = ("comet", "message", "web")
_INDENT = "    "


def lines_of(answer: dict[str, Any], width: int) -> list[str]:
    """The table of an answer of GET /2/admin/nodes, and what there is to warn of.

    Args:
        width: of the terminal; 0 = as wide as needed, one line per node.
    """
    nodes = sorted(answer["nodes"], key=lambda node: (_place(node), str(node.get("name", ""))))
    rows = [_row(node) for node in nodes]
    more = [_more(node) for node in nodes]
    lines = table([*HEAD, *MORE], [row + rest for row, rest in zip(rows, more, strict=True)], 0)
    if width and max(map(len, lines)) > width:
        head, *lines = table(HEAD, rows, width)
        lines = [
            line
            for row, rest in zip(lines, more, strict=True)
            for line in (row, *_wrapped(_INDENT, _words(rest), width))
        ]
        lines.insert(0, head)
    for note in _notes(answer, nodes):
        lines.extend(_wrapped("! ", note.split(" "), width))
    # What nodes say of themselves must not steer the terminal.
    return ["".join(c if c.isprintable() else "?" for c in line) for line in lines]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Lay out columns; numbers stand at the right.

    Args:
        width: of the terminal; 0 = as wide as needed.
    """
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    # Half a number would be another number.
    texts = [column for column, name in enumerate(head) if name not in _NUMBERS]
    while width and sum(widths) + 2 * (len(widths) - 1) > width:
        widest = max(texts, key=widths.__getitem__)
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
    return ["  ".join(map(_cell, head, line, widths)).rstrip() for line in lines]


def uptime(seconds: float) -> str:
    """Tell a time in its largest two units: "3d 4h"."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        if left >= size or (unit == "s" and not parts):
            parts.append(f"{left // size}{unit}")
            left %= size
    return " ".join(parts[:2])


def _place(node: dict[str, Any]) -> int:
    kind = node.get("kind")
    return _KINDS.index(kind) if kind in _KINDS else len(_KINDS)


def _row(node: dict[str, Any]) -> list[str]:
    share = node.get("share")
    return [
        str(node.get("kind", "")),
        str(node.get("name", "")),
        _state(node),
        "" if share is None else f"{share:.0%}",
        _count(node.get("connections")),
        _count(node.get("channels")),
        _count(node.get("pushes")),
        _uptime(node),
    ]


def _more(node: dict[str, Any]) -> list[str]:
    addresses = node.get("addresses") or {}
    stores = node.get("stores") or []
    return [
        str(node.get("version", "")),
        str(node.get("weight", "")),
        " ".join(f"{store['location']}={store['durability']}" for store in stores),
        " ".join(f"{purpose}={','.join(where)}" for purpose, where in addresses.items()),
    ]


def _words(more: Sequence[str]) -> list[str]:
    """The same for a line of its own; no word is broken."""
    version, weight, *rest = more
    named = [f"version={version}" if version else "", f"weight={weight}" if weight else ""]
    return [word for text in (*named, *rest) for word in text.split(" ") if word]


def _state(node: dict[str, Any]) -> str:
    state = str(node.get("state", ""))
    if node.get("gone_s") is not None:
        return f"{state} {uptime(node['gone_s'])} ago"
    if not node.get("fault") or state == "draining":
        return state
    return f"{state}, silent" if node.get("connections") is None else f"{state}, not ready"


def _uptime(node: dict[str, Any]) -> str:
    # 0: it does not say when it was started.
    seconds = node.get("uptime_s") or 0.0
    return uptime(seconds) if seconds and node.get("gone_s") is None else ""


def _notes(answer: dict[str, Any], nodes: Sequence[dict[str, Any]]) -> list[str]:
    """What an operator should look at."""
    notes = []
    if (registry := answer.get("registry", "connected")) != "connected":
        notes.append(f"the web node that answers has lost the registry ({registry}): the list may be old")
    for node in nodes:
        who = f"{node.get('kind')} {node.get('name')}"
        if node.get("fault"):
            notes.append(f"{who}: {node['fault']}")
        for store in node.get("stores") or []:
            if away := store.get("away"):
                since = uptime(away["for_s"])
                notes.append(f"{who}: {store['location']}: away for {since}: {away['reason']}")
            elif store.get("warning"):
                notes.append(f"{who}: {store['location']}: {store['warning']}")
    return notes


def _wrapped(first: str, words: Sequence[str], width: int) -> list[str]:
    text = " ".join(words)
    if not width:
        return [first + text]
    return textwrap.wrap(
        text,
        max(width, len(first) + NARROWEST),
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_on_hyphens=False,
    )


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _cell(column: str, text: str, width: int) -> str:
    if len(text) > width:
        end = (width - 1) // 2 if column in _NAMES else 0
        return text[: width - 1 - end] + "…" + text[len(text) - end :]
    return text.rjust(width) if column in _NUMBERS else text.ljust(width)
