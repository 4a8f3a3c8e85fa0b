"""cluster/log.py."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

import pytest

from cluster.log import MAX_LINES_PER_S, RESERVED, SHOWN_CHARS, LogConfig, Sparing, configure, fill


@pytest.fixture(autouse=True)
def restored_root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(template: str, *args: object, form: str = "text") -> list[str]:
    """What a warning of these makes."""
    stream = io.StringIO()
    configure(LogConfig(format=form), stream)
    logging.getLogger("comet.pushing.push").warning(template, *args)
    return stream.getvalue().splitlines()


def said(template: str, *args: object) -> str:
    """The text of its one line."""
    (line,) = lines(template, *args)
    return line.partition(" comet.pushing.push: ")[2]


def as_json(template: str, *args: object) -> dict[str, object]:
    (line,) = lines(template, *args, form="json")
    found: dict[str, object] = json.loads(line)
    return found


def with_trace(form: str) -> list[str]:
    stream = io.StringIO()
    configure(LogConfig(format=form), stream)
    try:
        raise ValueError("bad")
    except ValueError:
        logging.getLogger("comet.pushing.push").exception("worse: key=%s", "bob")
    return stream.getvalue().splitlines()


def test_text_line_has_time_level_logger_and_text() -> None:
    (line,) = lines("save of %d\nfailed: key=%s took_ms=%d", 3, "bob", 12)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING comet\.pushing\.push: "
        r"save of 3\\nfailed: key=bob took_ms=12",
        line,
    )


def test_trace_stands_under_a_text_line_and_inside_a_json_one() -> None:
    first, *trace = with_trace("text")
    assert first.endswith("ERROR   comet.pushing.push: worse: key=bob")
    assert trace[-1] == "ValueError: bad"
    (line,) = with_trace("json")
    assert json.loads(line)["error"].endswith("ValueError: bad")


def test_json_line_is_one_object_with_the_fields_of_its_template() -> None:
    line = as_json("save of %d\nfailed: key=%s took_ms=%g reason=%r", 3, "bo\nb", 1.5, ValueError("bad"))
    assert str(line.pop("time")).endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "comet.pushing.push",
        "text": "save of 3\nfailed: key='bo\\nb' took_ms=1.5 reason=ValueError('bad')",
        "key": "bo\nb",
        "took_ms": 1.5,
        "reason": "ValueError('bad')",
    }


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("bob", "bob"),
        ("b:o-b@c/d", "b:o-b@c/d"),
        ("bö", "bö"),
        ("", "''"),
        ("b ob", "'b ob'"),
        ("x key=evil", "'x key=evil'"),
        ("a=b", "'a=b'"),
        ("'", '"\'"'),
        ('b"b', "'b\"b'"),
        ("b\n", "'b\\n'"),
        ("\x1b[2J", "'\\x1b[2J'"),
        ("b\u2028b", "'b\\u2028b'"),
        ("b\u202eb", "'b\\u202eb'"),
        (PurePosixPath("/a b"), "'/a b'"),
        (7, "7"),
    ],
)
def test_field_that_could_be_taken_for_more_is_quoted(value: object, shown: str) -> None:
    assert said("full: key=%s reason=none", value) == f"full: key={shown} reason=none"


def test_what_is_no_field_or_was_quoted_by_its_template_is_left_as_it_is() -> None:
    assert said("%s: web.max=%s reason=%r", "a b", "c d", "e f") == "a b: web.max=c d reason='e f'"


def test_long_key_is_cut_in_the_text_only() -> None:
    key = "k" * 500
    assert said("full: key=%s", key) == f"full: key={'k' * SHOWN_CHARS}..."
    assert said("full: key=%s", " " + key) == f"full: key=' {'k' * (SHOWN_CHARS - 1)}...'"
    assert as_json("full: key=%s", key)["key"] == key
    assert said("full: reason=%s", key) == f"full: reason={key}"


@pytest.mark.parametrize(
    ("template", "args", "fields"),
    [
        ("key=%s", ("bob",), {"key": "bob"}),
        ("%d%% of %s: key=%s", (5, "all", "bob"), {"key": "bob"}),
        ("x: key=%.*s mid=%05d", (3, "bobby", 12), {"key": "bob", "mid": 12}),
        ("x: took_ms=%*.1f", (8, 1.25), {"took_ms": 1.25}),
        ("x: node=%-8s peer=%s", ("a", None), {"node": "a       ", "peer": "None"}),
        ("x: session=%x", (255,), {"session": "ff"}),
        ("x: mid=%s", (2**62,), {"mid": 2**62}),
        ("x: epoch=%s", ((1, 2),), {"epoch": "(1, 2)"}),
        ("x: rate=%% key=%s", ("bob",), {"key": "bob"}),
        ("unnamed %s and web.most=%d (key=%s)", ("a", 1, "b"), {}),
    ],
)
def test_conversions_are_those_of_python_and_the_named_ones_are_fields(
    template: str, args: tuple[object, ...], fields: dict[str, object]
) -> None:
    text, found = fill(template, args)
    assert text.replace("'", "") == template % args
    assert found == fields


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    ("template", "args", "text"),
    [
        ("100% key=%s", (), "100% key=%s"),
        (ValueError("bad"), (), "bad"),
        ("key=%(key)s", ({"key": "bob"},), "key=bob"),
        ("key=%s mid=%d", ("bob",), "key=%s mid=%d ('bob',)"),
        ("key=%s", ("bob", 1), "key=%s ('bob', 1)"),
        ("mid=%d", ("bob",), "mid=%d ('bob',)"),
        ("key=%(key)s", ({"mid": 1},), "key=%(key)s {'mid': 1}"),
    ],
)
def test_arguments_that_do_not_fit_cost_the_fields_and_not_the_line(
    template: str, args: tuple[object, ...], text: str, form: str
) -> None:
    if form == "text":
        assert said(template, *args) == text
    else:
        assert as_json(template, *args).keys() == {"time", "level", "logger", "text"}
        assert as_json(template, *args)["text"] == text


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_field_does_not_replace_what_a_json_line_says_of_every_record(name: str) -> None:
    line, plain = as_json(f"x: {name}=%s", "evil"), as_json("x")
    assert line["text"] == f"x: {name}=evil"
    assert line.keys() == plain.keys()
    assert "evil" not in {value for field, value in line.items() if field != "text"}


def test_level_is_the_least_that_is_logged() -> None:
    stream = io.StringIO()
    configure(LogConfig(level="error"), stream)
    logging.getLogger("x").warning("a")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("form", ["text", "json"])
def test_where_several_processes_log_to_one_place_each_says_who_it_is(form: str) -> None:
    stream = io.StringIO()
    configure(LogConfig(format=form), stream, process="comet-1-0")
    logging.getLogger("comet.pushing.push").warning("late")
    line = stream.getvalue()
    if form == "json":
        assert json.loads(line)["process"] == "comet-1-0"
    else:
        assert re.search(r" WARNING comet-1-0 comet\.pushing\.push: late$", line.strip())


def test_of_a_flood_some_lines_are_logged_and_the_rest_is_counted() -> None:
    stream, now = io.StringIO(), [0.0]
    configure(LogConfig(level="debug"), stream)
    (handler,) = logging.getLogger().handlers
    handler.filters = [Sparing(lambda: now[0])]
    log = logging.getLogger("comet.pushing.push")
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
    log = logging.getLogger("comet.pushing.push")
    for number in range(10 * MAX_LINES_PER_S):
        log.debug("each %d", number)
        log.error("many %d", number)
    lines = stream.getvalue().splitlines()
    assert sum(" each " in line for line in lines) == 10 * MAX_LINES_PER_S
    assert sum(" many " in line for line in lines) < 10 * MAX_LINES_PER_S
