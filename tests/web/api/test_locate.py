"""web/api/locate.py: which server a subscriber is sent to."""

from __future__ import annotations

import pytest

from cluster.registry.memory import MemoryRegistry
from tests.support.services import ScriptedComet
from tests.support.web import Web, comet_info, running_web
from tests.web.conftest import no_messages


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/1/server/get?k=u1&p=1", b'{"data":{"server":"comet-1.example:6968"},"ret":0}'),
        ("/1/server/get?k=%E4%BD%A0&p=2", b'{"data":{"server":"comet-1.example:6969"},"ret":0}'),
        ("/2/server/get?k=u1&p=1", b'{"data":{"server":["comet-1.example:6968"]},"ret":0}'),
        ("/1/server/get?k=u1&p=2&cb=foo", b'foo({"data":{"server":"comet-1.example:6969"},"ret":0})'),
        ("/2/server/get?k=u1&p=2&cb=a.b", b'a.b({"data":{"server":["comet-1.example:6969"]},"ret":0})'),
        ("/server/get?key=u1&proto=2", b'{"data":{"server":"comet-1.example:6969"},"msg":"ok","ret":0}'),
        (
            "/server/get?key=u1&proto=1&callback=foo",
            b'foo({"data":{"server":"comet-1.example:6968"},"msg":"ok","ret":0})',
        ),
        ("/1/server/get?k=u1&p=3", b'{"ret":65534}'),
        ("/1/server/get?k=u1&p=02", b'{"ret":65534}'),
        ("/1/server/get?k=u1&p=", b'{"ret":65534}'),
        ("/1/server/get?k=u1", b'{"ret":65534}'),
        ("/1/server/get?p=2", b'{"ret":65534}'),
        ("/1/server/get?k=&p=2", b'{"ret":65534}'),
        ("/1/server/get?k=a%00b&p=2", b'{"ret":65534}'),
        ("/1/server/get?k=u1;p=2", b'{"ret":65534}'),
        ("/1/server/get?k=u1&p=9&cb=foo", b'foo({"ret":65534})'),
        ("/1/server/get?k=u1&p=2&cb=%3Cscript%3E", b'{"ret":65534}'),
        ("/server/get?k=u1&p=2", b'{"msg":"ok","ret":65534}'),
        ("/server/get?key=u1&proto=2&callback=a()", b'{"msg":"ok","ret":65534}'),
        ("/1/server/get?k=u1&p=2&callback=foo", b'{"data":{"server":"comet-1.example:6969"},"ret":0}'),
    ],
)
async def test_server_is_answered_as_the_original_did(web: Web, target: str, body: bytes) -> None:
    response = await web.get(target)
    assert (response.status, response.body) == (200, body)


async def test_jsonp_has_the_type_of_a_script(web: Web) -> None:
    response = await web.get("/1/server/get?k=u1&p=2&cb=foo")
    assert response.headers["content-type"] == "application/javascript;charset=utf-8"
    response = await web.get("/1/server/get?k=u1&p=2&cb=1")
    assert response.headers["content-type"] == "application/json;charset=utf-8"


@pytest.mark.parametrize(
    ("host", "server"),
    [
        ("push.example:8090", "push.example:6968"),
        ("push.example", "push.example:6968"),
        ("10.0.0.7:8090", "10.0.0.7:6968"),
        ("[2001:db8::1]:8090", "[2001:db8::1]:6968"),
        ('evil"<x>', "127.0.0.1:6968"),
        ("", "127.0.0.1:6968"),
    ],
)
async def test_node_that_tells_no_host_is_where_the_client_asked(host: str, server: str) -> None:
    registry = MemoryRegistry()
    await registry.register(comet_info("all", addresses={"ws": (":6968",)}))
    async with running_web({}, no_messages(), registry=registry) as web:
        response = await web.get("/1/server/get?k=u1&p=1", {"Host": host})
        assert response.json["data"]["server"] == server
        # It has no TCP address at all.
        assert (await web.get("/1/server/get?k=u1&p=2")).json == {"ret": 1001}


@pytest.mark.parametrize("version", [1, 2])
async def test_key_whose_node_does_not_take_the_transport_is_sent_to_no_other(version: int) -> None:
    registry = MemoryRegistry()
    await registry.register(comet_info("both"))
    await registry.register(comet_info("half", addresses={"ws": ("half.example:6968",)}))
    by_tcp: dict[str, set[int]] = {"both.example:6968": set(), "half.example:6968": set()}
    async with running_web({}, no_messages(), registry=registry) as web:
        for key in (f"key-{n}" for n in range(40)):
            owner = (await web.get(f"/1/server/get?k={key}&p=1")).json["data"]["server"]
            by_tcp[owner].add((await web.get(f"/{version}/server/get?k={key}&p=2")).json["ret"])
    # The other node would answer that the key is not its own.
    assert by_tcp == {"both.example:6968": {0}, "half.example:6968": {1001}}


async def test_keys_are_sent_to_their_own_nodes() -> None:
    async with running_web({"a": ScriptedComet(), "b": ScriptedComet()}, no_messages()) as web:
        asked = [await web.get(f"/1/server/get?k=key-{n}&p=1") for n in range(40)]
        again = [await web.get(f"/1/server/get?k=key-{n}&p=1") for n in range(40)]
    servers = [response.json["data"]["server"] for response in asked]
    assert set(servers) == {"a.example:6968", "b.example:6968"}
    assert [response.body for response in asked] == [response.body for response in again]
