"""cluster/log.py."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from cluster.log import LogConfig, configure


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
