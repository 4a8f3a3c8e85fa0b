"""What a server writes about what it does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import quote

from tests.support.eventually import eventually
from tests.support.subscriber import subscribe_tcp
from tests.support.system import Server, running

# Small, so that few pushes fill it.
UNREAD_LIMIT_BYTES = 65_536
# A stranger's, who would have it look as if something else had happened to somebody else.
FORGING = "x messages=9 key=bob"


async def test_fields_of_json_lines_are_what_they_are_said_to_be(tmp_path: Path) -> None:
    with running(Server(tmp_path, config='[log]\nformat = "json"\n')) as server:
        assert await server.push(FORGING, 1, expire_s=60) == 0
        answer = await server.ask("admin", "DELETE", f"/2/admin/keys/{quote(FORGING, safe='')}")
        assert answer.status == 200
        lines = [json.loads(line) for line in server.log.splitlines()]
    (deleted,) = [line for line in lines if line["text"].startswith("key deleted by the operator")]
    assert (deleted["level"], deleted["logger"]) == ("info", "web.api.inspect")
    assert (deleted["key"], deleted["messages"]) == (FORGING, 1)
    assert deleted["text"].endswith(f": key='{FORGING}' messages=1")


async def test_debug_level_tells_of_subscribers_over_both_transports(tmp_path: Path) -> None:
    with running(Server(tmp_path, config='[log]\nlevel = "debug"\n')) as server:
        for transport in ("tcp", "ws"):
            async with server.subscriber(transport, f"{transport} key", version="2", mid=80):
                pass
        await eventually(lambda: server.log.count("connection ended") == 2)
        lines = [line.partition(" comet.reception: ")[2] for line in server.log.splitlines()]
    peer = r"127\.0\.0\.1:\d+"
    for transport in ("tcp", "ws"):
        begin = rf"subscribed: key='{transport} key' peer={peer} transport={transport} resume=80"
        end = rf"connection ended: key='{transport} key' peer=({peer}|'') reason=peer_\w+"
        assert [bool(re.fullmatch(begin, line)) for line in lines].count(True) == 1
        assert [bool(re.fullmatch(end, line)) for line in lines].count(True) == 1


async def test_slow_consumer_is_warned_of_and_others_are_no_news_at_level_info(tmp_path: Path) -> None:
    config = f"[comet]\nunread_limit_bytes = {UNREAD_LIMIT_BYTES}\n"
    with running(Server(tmp_path, config=config)) as server:
        slow = await subscribe_tcp(server.addresses["tcp"], "bob", version="2", receive_buffer_bytes=1024)
        # The kernel's buffers on both sides take some of it.
        for _ in range(300):
            if "slow consumer" in server.log:
                break
            assert await server.push("bob", "x" * 100_000) == 0
        await slow.close()
        (line,) = [line for line in server.log.splitlines() if " comet.reception: " in line]
    told = re.search(r" WARNING comet\.reception: slow consumer, cut: key=bob unread_bytes=(\d+)$", line)
    assert told is not None
    assert int(told[1]) > UNREAD_LIMIT_BYTES
