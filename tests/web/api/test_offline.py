"""web/api/offline.py: stored messages and the time, from the real store."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.model import Key
from cluster.tokens import mint
from tests.support.web import Web, running_system


async def mids(system: Web, key: str) -> list[int]:
    response = await system.get(f"/1/msg/get?k={key}&m=0")
    return [message["mid"] for message in response.json.get("data", {}).get("msgs", [])]


async def test_stored_messages_come_in_both_shapes(system: Web) -> None:
    await system.push("k", b'{"test": 1}', 600)
    await system.push("k", '{"s":"a<b 你"}'.encode(), 600)
    first, second = await mids(system, "k")
    new = await system.get("/1/msg/get?k=k&m=0")
    assert new.body == (
        r'{"data":{"msgs":[{"msg":{"test":1},"mid":%d,"gid":0},'
        r'{"msg":{"s":"a\u003cb 你"},"mid":%d,"gid":0}]},"ret":0}'
    ).encode() % (first, second)
    old = await system.get("/msg/get?key=k&mid=0")
    assert old.body == (
        r'{"data":{"msgs":["{\"msg\":\"{\\\"test\\\":1}\",\"mid\":%d,\"gid\":0}",'
        r'"{\"msg\":\"{\\\"s\\\":\\\"a\\\\u003cb 你\\\"}\",\"mid\":%d,\"gid\":0}"],"pmsgs":[]},'
        r'"msg":"ok","ret":0}'
    ).encode() % (first, second)


async def test_only_messages_above_the_mid_come(system: Web) -> None:
    for n in range(3):
        await system.push("k", b"%d" % n, 600)
    found = await mids(system, "k")
    assert found == sorted(found)
    after = await system.get(f"/1/msg/get?k=k&m={found[0]}")
    assert [message["mid"] for message in after.json["data"]["msgs"]] == found[1:]
    before = await system.get(f"/1/msg/get?k=k&m={found[0] - 1}")
    assert len(before.json["data"]["msgs"]) == 3


async def test_no_messages_are_no_data(system: Web) -> None:
    await system.push("k", b"1", 0)
    assert (await system.get("/1/msg/get?k=k&m=0")).body == b'{"ret":0}'
    assert (await system.get("/msg/get?key=k&mid=0&callback=f")).body == b'f({"msg":"ok","ret":0})'


@pytest.mark.parametrize(
    "target",
    [
        "/1/msg/get?m=0",
        "/1/msg/get?k=u1",
        "/1/msg/get?k=u1&m=abc",
        "/1/msg/get?k=u1&m=-1",
        "/1/msg/get?k=u1&m=1.5",
        "/1/msg/get?k=u1&m=9223372036854775808",
        "/1/msg/get?k=u1&m=%201",
        "/1/msg/get?k=%FF&m=1",
    ],
)
async def test_bad_parameters_are_65534(system: Web, target: str) -> None:
    assert (await system.get(target)).body == b'{"ret":65534}'


async def test_many_messages_come_whole_over_several_pages(system: Web) -> None:
    for n in range(800):
        await system.push("k", b"%d" % n, 600)
    messages = (await system.get("/1/msg/get?k=k&m=0")).json["data"]["msgs"]
    assert [message["msg"] for message in messages] == list(range(800))


async def test_answer_is_bounded_and_goes_on_from_its_last_mid(tmp_path: Path) -> None:
    async with running_system(tmp_path, max_fetch_bytes=3000) as system:
        for n in range(10):
            await system.push("k", b'"%d%b"' % (n, b"x" * 1000), 600)
        seen: list[str] = []
        after = 0
        while messages := (await system.get(f"/1/msg/get?k=k&m={after}")).json.get("data", {}).get("msgs"):
            assert len(messages) <= 4
            seen += [message["msg"][0] for message in messages]
            after = messages[-1]["mid"]
        assert seen == [str(n) for n in range(10)]


async def test_time_is_not_above_the_mid_of_a_later_push(system: Web) -> None:
    for n in range(20):
        answer = await system.get("/1/time/get")
        timeid = answer.json["data"]["timeid"]
        assert answer.body == b'{"data":{"timeid":%d},"ret":0}' % timeid
        assert timeid % 80 == 0
        expire = 600 if n % 2 else 0
        pushed = await system.admin(
            "POST", "/2/admin/push", b'{"key":"k%d","msg":1,"expire":%d}' % (n, expire)
        )
        assert pushed.json["results"][0]["mid"] >= timeid


async def test_time_has_the_oldest_shape_too(system: Web) -> None:
    body = (await system.get("/time/get?callback=f")).body
    assert body.startswith(b'f({"data":{"timeid":')
    assert body.endswith(b'},"msg":"ok","ret":0})')


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Web]:
    async with running_system(tmp_path, secrets=("s3cret",), token_failures_per_minute=3) as running:
        yield running


async def test_token_of_the_key_is_wanted_when_tokens_are_on(guarded: Web) -> None:
    await guarded.push("bob", b"1", 600)
    good = mint("s3cret", Key("bob"), int(time.time()) + 60)
    assert (await guarded.get(f"/1/msg/get?k=bob&m=0&token={good}")).json["data"]["msgs"][0]["msg"] == 1
    assert (await guarded.get(f"/msg/get?key=bob&mid=0&token={good}")).json["ret"] == 0
    assert (await guarded.get("/1/msg/get?k=bob&m=0")).body == b'{"ret":65534}'
    assert (await guarded.get(f"/1/msg/get?k=eve&m=0&token={good}&cb=f")).body == b'f({"ret":65534})'
    expired = mint("s3cret", Key("bob"), int(time.time()) - 1)
    assert (await guarded.get(f"/1/msg/get?k=bob&m=0&token={expired}")).body == b'{"ret":65534}'


async def test_address_that_guesses_tokens_has_to_wait(guarded: Web) -> None:
    good = mint("s3cret", Key("bob"), int(time.time()) + 60)
    for _ in range(3):
        assert (await guarded.get("/1/msg/get?k=bob&m=0&token=x")).status == 200
    for token in ("x", good):
        response = await guarded.get(f"/1/msg/get?k=bob&m=0&token={token}")
        assert (response.status, response.body) == (429, b'{"ret":65535}')
        assert 1 <= int(response.headers["retry-after"]) <= 20
    assert (await guarded.get("/1/server/get?k=bob&p=1")).json["ret"] == 0
    assert guarded.counted("http_refusals_total", "token") == 3
    assert guarded.counted("http_refusals_total", "rate") == 2


async def test_bad_tokens_do_not_lock_out_an_address_that_has_shown_a_good_one(guarded: Web) -> None:
    good = mint("s3cret", Key("bob"), int(time.time()) + 60)
    assert (await guarded.get(f"/1/msg/get?k=bob&m=0&token={good}")).json["ret"] == 0
    for _ in range(5):
        assert (await guarded.get("/1/msg/get?k=bob&m=0&token=x")).body == b'{"ret":65534}'
    assert (await guarded.get(f"/1/msg/get?k=bob&m=0&token={good}")).json["ret"] == 0
