"""web/api/inspect.py: what the operator sees of keys, and removes."""

from __future__ import annotations

from pathlib import Path
from typing import cast
from urllib.parse import quote

import pytest

from cluster.contracts.message import MessageService
from cluster.errors import InDoubtError, UnavailableError
from cluster.stats import Stats
from message.storage.embedded.config import EmbeddedSettings
from message.storage.embedded.store import EmbeddedStore
from tests.support.services import ScriptedComet, SilentStore, not_owner
from tests.support.subscriber import subscribe_tcp
from tests.support.web import Web, running_web
from tests.web.conftest import no_messages


async def test_key_shows_its_connections_and_what_is_stored(system: Web) -> None:
    key = "a/b c+%ü"
    await system.push(key, b"[1]", 600)
    host, _, port = (
        (await system.get(f"/1/server/get?k={quote(key)}&p=2")).json["data"]["server"].rpartition(":")
    )
    subscriber = await subscribe_tcp((host, int(port)), key, version="2", mid="0", device="phone")
    try:
        await subscriber.open()
        await system.push(key, b"[2]", 600)
        state = (await system.admin("GET", f"/2/admin/keys/{quote(key, safe='')}")).json
    finally:
        await subscriber.close()
    assert (state["key"], state["owner"]) == (key, "comet-1")
    (connection,) = state["connections"]
    assert (connection["transport"], connection["device"]) == ("tcp", "phone")
    assert connection["acknowledged_mid"] == 0
    stored = state["stored"]
    assert (stored["messages"], stored["payload_bytes"]) == (2, 6)
    assert 0 < stored["first_mid"] < stored["last_mid"] == connection["sent_mid"]


async def test_unknown_key_is_shown_empty(system: Web) -> None:
    state = (await system.admin("GET", "/2/admin/keys/nobody")).json
    assert (state["connections"], state["stored"]["messages"]) == ([], 0)


async def test_messages_are_listed_in_pages_and_removed_one_by_one(system: Web) -> None:
    for n in range(3):
        await system.push("k", b'{"n":%d.0}' % n, 600)
    page = await system.admin("GET", "/2/admin/keys/k/messages?limit=2")
    assert page.json["has_more"] is True
    assert b'"msg":{"n":1.0}' in page.body
    first, second = page.json["messages"]
    rest = await system.admin("GET", f"/2/admin/keys/k/messages?after={second['mid']}")
    assert [message["msg"] for message in rest.json["messages"]] == [{"n": 2.0}]
    assert rest.json["has_more"] is False
    assert first["expires_at"] > 1_700_000_000
    removal = f"/2/admin/keys/k/messages/{first['mid']}"
    assert (await system.admin("DELETE", removal)).json == {"deleted": 1}
    again = await system.admin("DELETE", removal)
    assert (again.status, again.json["error"]["code"]) == (404, "not_found")
    left = await system.admin("GET", "/2/admin/keys/k/messages")
    assert len(left.json["messages"]) == 2


@pytest.mark.parametrize(
    "target",
    [
        "/2/admin/keys/k/messages?limit=0",
        "/2/admin/keys/k/messages?limit=1001",
        "/2/admin/keys/k/messages?after=x",
        "/2/admin/keys/%zz/messages",
        "/2/admin/keys/%00",
    ],
)
async def test_bad_parameters_are_400(system: Web, target: str) -> None:
    response = await system.admin("GET", target)
    assert (response.status, response.json["error"]["code"]) == (400, "bad_request")


@pytest.mark.parametrize("limit", ["0", "1001", "x"])
async def test_limit_that_is_out_of_bounds_is_answered_with_both_of_them(system: Web, limit: str) -> None:
    response = await system.admin("GET", f"/2/admin/keys/k/messages?limit={limit}")
    assert response.json["error"]["message"] == "limit must be a decimal number from 1 to 1000"


async def test_bad_mid_cannot_be_removed(system: Web) -> None:
    assert (await system.admin("DELETE", "/2/admin/keys/k/messages/x")).status == 400


async def test_deleting_a_key_removes_messages_and_connections(system: Web) -> None:
    for path, method, body in (("/2/admin/keys/k", "DELETE", None), ("/1/admin/msg/del", "POST", b"key=k")):
        await system.push("k", b"1", 600)
        host, _, port = (await system.get("/1/server/get?k=k&p=2")).json["data"]["server"].rpartition(":")
        subscriber = await subscribe_tcp((host, int(port)), "k")
        await subscriber.open()
        response = await system.admin(method, path, body)
        assert response.json == ({"deleted": 1} if body is None else {"ret": 0})
        await subscriber.end()
        await subscriber.close()
        assert (await system.get("/1/msg/get?k=k&m=0")).body == b'{"ret":0}'


@pytest.mark.parametrize(
    ("target", "body", "answer"),
    [
        ("/1/admin/msg/del", b"key=k", b'{"ret":0}'),
        ("/1/admin/msg/del?key=k", b"", b'{"ret":0}'),
        ("/1/admin/msg/del?key=other", b"key=k", b'{"ret":0}'),
        ("/1/admin/msg/del", b"key=", b'{"ret":65534}'),
        ("/1/admin/msg/del", b'{"key":"k"}', b'{"ret":65534}'),
        ("/1/admin/msg/del", b"key=%zz", b'{"ret":65534}'),
        ("/1/admin/msg/del?key=k", b"key=%zz", b'{"ret":65534}'),
        ("/1/admin/msg/del", b"key=a;b=c", b'{"ret":65534}'),
        ("/1/admin/msg/del", b"", b'{"ret":65534}'),
    ],
)
async def test_key_to_delete_comes_in_a_form_or_the_query(
    web: Web, comet: ScriptedComet, target: str, body: bytes, answer: bytes
) -> None:
    assert (await web.admin("POST", target, body)).body == answer
    assert comet.deleted == (["k"] if answer == b'{"ret":0}' else [])


async def test_deletion_follows_the_key_to_its_new_owner(web: Web, comet: ScriptedComet) -> None:
    comet.refusals.extend([not_owner(), UnavailableError("draining")])
    assert (await web.admin("DELETE", "/2/admin/keys/k")).json == {"deleted": 3}
    comet.refusals.append(InDoubtError("the answer was lost"))
    assert (await web.admin("DELETE", "/2/admin/keys/k")).status == 504
    assert comet.deleted == ["k"]


async def test_deletion_that_no_node_takes_fails_in_time(comet: ScriptedComet) -> None:
    comet.refusals.extend([not_owner()] * 20)
    async with running_web({"comet-1": comet}, no_messages(), request_timeout_s=0.25) as web:
        response = await web.admin("DELETE", "/2/admin/keys/k")
        assert (response.status, response.json["error"]["code"]) == (503, "not_owner")


async def test_node_that_is_silent_leaves_a_deletion_in_doubt(comet: ScriptedComet) -> None:
    comet.is_silent = True
    async with running_web({"comet-1": comet}, no_messages(), request_timeout_s=0.05) as web:
        response = await web.admin("DELETE", "/2/admin/keys/k")
        assert (response.status, response.json["error"]["code"]) == (504, "in_doubt")


async def test_store_that_is_silent_is_unavailable(comet: ScriptedComet) -> None:
    store = cast(MessageService, SilentStore())
    async with running_web({"comet-1": comet}, store, request_timeout_s=0.05) as web:
        for method, target in (
            ("GET", "/2/admin/keys/k"),
            ("GET", "/2/admin/keys/k/messages"),
            ("DELETE", "/2/admin/keys/k/messages/80"),
        ):
            response = await web.admin(method, target)
            assert (response.status, response.json["error"]["code"]) == (503, "unavailable")
        for target in ("/1/msg/get?k=k&m=0", "/1/time/get"):
            assert (await web.get(target)).body == b'{"ret":65535}'


async def test_key_can_be_looked_at_when_no_comet_node_is_left(tmp_path: Path) -> None:
    store = EmbeddedStore(EmbeddedSettings(data_dir=str(tmp_path)), Stats())
    await store.start()
    try:
        async with running_web({}, store) as web:
            state = (await web.admin("GET", "/2/admin/keys/k")).json
            assert (state["owner"], state["connections"], state["stored"]["messages"]) == (None, [], 0)
    finally:
        await store.stop()
