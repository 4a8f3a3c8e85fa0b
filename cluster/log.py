"""Log lines on stderr, for people or as JSON. Decides their form, not what is logged.

Fields with fixed names stand beside the text: ``log.warning("save failed",
extra={"key": key, "took_ms": 12})``. Never payloads, never tokens.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO

FIELDS = ("key", "mid", "node", "peer", "reason", "took_ms")

# A key comes from outside and may hold quotes or be long; it is quoted and cut.
SHOWN_CHARS = 100

# Lines of one place in the code that are logged in a second. Of a store that is away each key has
# something to tell: thousands of lines, in which nothing else is found, and each keeps the event loop.
MAX_LINES_PER_S = 20


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
    """``2027-01-02T03:04:05.678Z INFO  comet.push: text key='bob' took_ms=12``"""

    def __init__(self, process: str = "") -> None:
        """Prepare; the name of the process stands before the logger's."""
        super().__init__()
        self._process = f"{process} " if process else ""

    def format(self, record: logging.LogRecord) -> str:
        where = self._process + record.name
        words = [f"{_time(record)} {record.levelname:<7} {where}: {record.getMessage()}"]
        words += [f"{name}={_shown(value)}" for name, value in _fields(record).items()]
        line = " ".join(words).replace("\n", "\\n").replace("\r", "\\r")
        return line + _trace(self, record)


class JsonFormatter(logging.Formatter):
    """One object: time, level, (process,) logger, text, the fields, and error with its trace."""

    def __init__(self, process: str = "") -> None:
        """Prepare; without a name of the process the field is left out."""
        super().__init__()
        self._process = {"process": process} if process else {}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            **self._process,
            "logger": record.name,
            "text": record.getMessage(),
            **_fields(record),
        }
        trace = _trace(self, record)
        if trace:
            line["error"] = trace.strip()
        return json.dumps(line, ensure_ascii=False, default=str)


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


def _time(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: record.__dict__[name] for name in FIELDS if name in record.__dict__}


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "..."


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    trace = ""
    if record.exc_info:
        trace += "\n" + formatter.formatException(record.exc_info)
    if record.stack_info:
        trace += "\n" + formatter.formatStack(record.stack_info)
    return trace
