"""What a server writes about what it does."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

from tests.support.system import Server, running

# A stranger's, who would have it look as if something else had happened to somebody else.
FORGING = "x messages=9 key=bob"


async def test_fields_of_json_lines_are_what_they_are_said_to_be(tmp_path: Path) -> None:
    with running(Server(tmp_path, config='[log]\nformat = "json"\n')) as server:
        assert await server.push(FORGING, 1, expire_s=60) == 0
        answer = await server.ask("admin", "DELETE", f"/2/admin/keys/{quote(FORGING, safe='')}")
        assert answer.status == 200
        lines = [json.loads(line) for line in server.log.splitlines()]
    (deleted,) = [line for line in lines if line["text"].startswith("key deleted by the operator")]
    assert (deleted["level"], deleted["logger"]) == ("info", "web.inspect")
    assert (deleted["key"], deleted["messages"]) == (FORGING, 1)
    assert deleted["text"].endswith(f": key='{FORGING}' messages=1")
