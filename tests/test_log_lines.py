"""The templates of log lines, of which cluster/log.py makes fields: written in the same way everywhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from cluster.log import RESERVED
from tests.test_layering import MAY_IMPORT, ROOT

LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}
_FIELD = re.compile(r" ([a-z_]+)=%[.*]*[a-z]")


def calls(path: Path) -> Iterator[ast.Call]:
    """Calls of a file's logger."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and ast.unparse(node.func.value) == "log"
            and node.func.attr in {*LEVELS, "log"}
        ):
            yield node


def template_of(call: ast.Call) -> str:
    """The words of one; log.log() has its level before them."""
    assert isinstance(call.func, ast.Attribute)
    template = call.args[1 if call.func.attr == "log" else 0]
    assert isinstance(template, ast.Constant), ast.unparse(call)
    return str(template.value)


ALL = [call for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py") for call in calls(path)]


def test_fields_of_a_log_line_stand_at_its_end_under_names_of_their_own() -> None:
    templates = [template_of(call) for call in ALL]
    told = [template for template in templates if _FIELD.search(template)]
    assert len(told) > 50
    for template in told:
        fields = list(_FIELD.finditer(template))
        names = [field[1] for field in fields]
        assert template[fields[0].start() :] == "".join(field[0] for field in fields), template
        assert len(set(names)) == len(names), template
        assert not RESERVED & set(names), template


def test_a_log_line_says_what_it_says_in_its_template() -> None:
    assert {keyword.arg for call in ALL for keyword in call.keywords} <= {"exc_info"}
