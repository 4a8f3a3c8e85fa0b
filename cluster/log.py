"""Log lines on stderr, for people or as JSON. Decides their form, not what is logged.

A line ends with its fields, as its template names them: ``log.warning("save in
doubt: key=%s reason=%r", key, error)``. Never payloads, never tokens.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import TextIO

# Of a key in a line: strangers choose it, and it may be long. Its field of a JSON line has all of it.
SHOWN_CHARS = 100

# What a JSON line says of every record: a field of such a name stands in the text only.
RESERVED = frozenset(("time", "level", "process", "logger", "text", "error"))

# Lines of one place in the code that are logged in a second. Of a store that is away each key has
# something to tell: thousands of lines, in which nothing else is found, and each keeps the event loop.
MAX_LINES_PER_S = 20

# A conversion of a template, with the name of its field before it if it is one.
_CONVERSION = re.compile(
    r"(?:(?<!\S)([a-z][a-z0-9_]*)=)?"
    r"(%[-+ #0]*(?:\*|\d+)?(?:\.(?:\*|\d+)?)?[hlL]?([diouxXeEfFgGcrsa%]))"
)
# With one of these in it a value does not end where it seems to.
_AMBIGUOUS = re.compile(r"""[\s"'=]""")

Fields = dict[str, int | float | str]


@dataclass(frozen=True, slots=True)
class LogConfig:
    """What is logged, on standard error."""

    level: str = field(
        default="info",
        metadata={
            "doc": "Least level that is logged; debug tells of every connection.",
            "choices": ("debug", "info", "warning", "error"),
        },
    )
    format: str = field(
        default="text",
        metadata={"doc": "Lines for people, or one JSON object a line.", "choices": ("text", "json")},
    )


class TextFormatter(logging.Formatter):
    """``2027-01-02T03:04:05.678Z WARNING comet.pushing.saving: save in doubt: key='b o b' reason=...``"""

    def __init__(self, process: str = "") -> None:
        """Prepare; the name of the process stands before the logger's."""
        super().__init__()
        self._process = f"{process} " if process else ""

    def format(self, record: logging.LogRecord) -> str:
        where = self._process + record.name
        text, _ = _said(record)
        line = f"{_time(record)} {record.levelname:<7} {where}: {text}"
        return line.replace("\n", "\\n").replace("\r", "\\r") + _trace(self, record)


class JsonFormatter(logging.Formatter):
    """One object: time, level, (process,) logger, the same text, its fields, error with its trace."""

    def __init__(self, process: str = "") -> None:
        """Prepare; without a name of the process the field is left out."""
        super().__init__()
        self._process = {"process": process} if process else {}

    def format(self, record: logging.LogRecord) -> str:
        text, fields = _said(record)
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            **self._process,
            "logger": record.name,
            "text": text,
            **{name: value for name, value in fields.items() if name not in RESERVED},
        }
        trace = _trace(self, record)
        if trace:
            line["error"] = trace.strip()
        return json.dumps(line, ensure_ascii=False)


class Sparing(logging.Filter):
    """Leaves out lines that are too many of their kind; the next one that is logged says how many.

    Not at debug level: who turns that on wants all.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        # By place in the code.
        self._seconds: dict[tuple[str, int], _Second] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.INFO:
            return True
        now = self._monotonic()
        place = (record.pathname, record.lineno)
        second = self._seconds.get(place)
        if second is None or now - second.began_at >= 1.0:
            left_out = 0 if second is None else max(0, second.lines - MAX_LINES_PER_S)
            second = self._seconds[place] = _Second(now)
            if left_out:
                record.msg = f"{record.msg} ({left_out} lines like this were left out before)"
        second.lines += 1
        return second.lines <= MAX_LINES_PER_S


@dataclass(slots=True)
class _Second:
    """What one place has had to say since the first line of a second."""

    began_at: float
    lines: int = 0


def configure(config: LogConfig, stream: TextIO | None = None, *, process: str = "") -> None:
    """Send all log lines of this process to stderr (or a stream) in the configured form.

    Args:
        process: its name, where several log to one place.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    formatter = JsonFormatter if config.format == "json" else TextFormatter
    handler.setFormatter(formatter(process))
    handler.addFilter(Sparing())
    logging.basicConfig(level=config.level.upper(), handlers=[handler], force=True)
    # Tells at DEBUG which selector it uses, and nothing that anybody needs.
    logging.getLogger("asyncio").setLevel(max(logging.INFO, logging.getLogger().level))


def fill(template: str, args: tuple[object, ...]) -> tuple[str, Fields]:
    """Put arguments into a template as the operator % does, and take its fields out: `name=%s`.

    In the text, a field of %s is quoted where it could be taken for something
    else: keys come from strangers. Taken out, numbers are numbers, and all else is text.

    Raises:
        TypeError: too few arguments, too many, or of another type than the conversion's.
    """
    fields: Fields = {}
    rest = iter(args)

    def put(match: re.Match[str]) -> str:
        name, conversion, kind = match.groups()
        if kind == "%":
            return match[0][:-1]
        # A star takes its number from the arguments.
        values = tuple(islice(rest, conversion.count("*") + 1))
        text = conversion % values
        if name is None:
            return text
        value = values[-1]
        fields[name] = value if isinstance(value, int | float) and kind not in "oxXc" else text
        return f"{name}={_shown(name, text) if kind == 's' else text}"

    text = _CONVERSION.sub(put, template)
    if tuple(rest):
        raise TypeError("not all arguments converted")
    return text, fields


def _shown(name: str, text: str) -> str:
    if name == "key" and len(text) > SHOWN_CHARS:
        text = text[:SHOWN_CHARS] + "..."
    is_plain = text.isprintable() and not _AMBIGUOUS.search(text) and text
    return text if is_plain else repr(text)


def _time(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


def _said(record: logging.LogRecord) -> tuple[str, Fields]:
    """Its text and its fields."""
    try:
        if isinstance(record.msg, str) and isinstance(record.args, tuple) and record.args:
            return fill(record.msg, record.args)
        return record.getMessage(), {}
    except (TypeError, ValueError, KeyError):
        # Arguments that do not fit, a bug of the caller: what it had to say is not lost.
        return f"{record.msg} {record.args!r}", {}


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    trace = ""
    if record.exc_info:
        trace += "\n" + formatter.formatException(record.exc_info)
    if record.stack_info:
        trace += "\n" + formatter.formatStack(record.stack_info)
    return trace
