"""cluster/log.py."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from cluster.log import MAX_LINES_PER_S, LogConfig, Sparing, configure


@pytest.fixture(autouse=True)
def restored_root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def logged(config: LogConfig) -> str:
    stream = io.StringIO()
    configure(config, stream)
    log = logging.getLogger("comet.push")
    log.debug("not shown")
    log.warning("save of %d\nfailed", 3, extra={"key": "bo\nb", "took_ms": 12, "other": 1})
    try:
        raise ValueError("bad")
    except ValueError:
        log.exception("worse")
    return stream.getvalue()


def test_text_line_has_time_level_logger_and_fields_on_one_line() -> None:
    first, second, *trace = logged(LogConfig()).splitlines()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING comet\.push: save of 3\\nfailed "
        r"key='bo\\nb' took_ms=12",
        first,
    )
    assert second.endswith("ERROR   comet.push: worse")
    assert trace[-1] == "ValueError: bad"


def test_json_line_is_one_object_with_the_same_fields() -> None:
    first, second = (json.loads(line) for line in logged(LogConfig(format="json")).splitlines())
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "warning",
        "logger": "comet.push",
        "text": "save of 3\nfailed",
        "key": "bo\nb",
        "took_ms": 12,
    }
    assert second["error"].endswith("ValueError: bad")


def test_long_field_is_cut() -> None:
    stream = io.StringIO()
    configure(LogConfig(), stream)
    logging.getLogger("x").info("a", extra={"key": "k" * 500})
    assert len(stream.getvalue()) < 200


def test_level_is_the_least_that_is_logged() -> None:
    stream = io.StringIO()
    configure(LogConfig(level="error"), stream)
    logging.getLogger("x").warning("a")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("form", ["text", "json"])
def test_where_several_processes_log_to_one_place_each_says_who_it_is(form: str) -> None:
    stream = io.StringIO()
    configure(LogConfig(format=form), stream, process="comet-1-0")
    logging.getLogger("comet.push").warning("late")
    line = stream.getvalue()
    if form == "json":
        assert json.loads(line)["process"] == "comet-1-0"
    else:
        assert re.search(r" WARNING comet-1-0 comet\.push: late$", line.strip())


def test_of_a_flood_some_lines_are_logged_and_the_rest_is_counted() -> None:
    stream, now = io.StringIO(), [0.0]
    configure(LogConfig(level="debug"), stream)
    (handler,) = logging.getLogger().handlers
    handler.filters = [Sparing(lambda: now[0])]
    log = logging.getLogger("comet.push")
    for moment in (0.0, 1.5, 3.0):
        now[0] = moment
        for key in range(MAX_LINES_PER_S + 5 if moment < 1 else 1):
            log.warning("in doubt: %s", f"{moment}-{key}%")
        # Another place is another matter.
        log.info("other")
    lines = stream.getvalue().splitlines()
    assert sum("in doubt: 0.0-" in line for line in lines) == MAX_LINES_PER_S
    (later,) = [line for line in lines if "in doubt: 1.5-0%" in line]
    assert later.endswith("in doubt: 1.5-0% (5 lines like this were left out before)")
    (last,) = [line for line in lines if "in doubt: 3.0-0%" in line]
    assert last.endswith("in doubt: 3.0-0%")
    assert sum(line.endswith("other") for line in lines) == 3


def test_who_wants_debug_lines_gets_all_and_a_flood_of_others_is_cut_as_configured() -> None:
    stream = io.StringIO()
    configure(LogConfig(level="debug"), stream)
    log = logging.getLogger("comet.push")
    for number in range(10 * MAX_LINES_PER_S):
        log.debug("each %d", number)
        log.error("many %d", number)
    lines = stream.getvalue().splitlines()
    assert sum(" each " in line for line in lines) == 10 * MAX_LINES_PER_S
    assert sum(" many " in line for line in lines) < 10 * MAX_LINES_PER_S
