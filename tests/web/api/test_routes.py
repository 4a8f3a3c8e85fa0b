"""web/api/routes.py: tables, access, errors."""

from __future__ import annotations

import json
import logging
import re
from importlib import resources

import pytest

from cluster.errors import OverloadedError
from tests.support.services import ScriptedComet
from tests.support.web import Web, running_web
from tests.web.conftest import no_messages

PUSH = "/1/admin/push/private?key=k&expire=0"


@pytest.mark.parametrize(
    ("listener", "method", "path", "status", "body"),
    [
        ("public", "POST", "/1/server/get?k=u1&p=2", 405, b"Method Not Allowed\n"),
        ("public", "OPTIONS", "/1/server/get?k=u1&p=2", 405, b"Method Not Allowed\n"),
        ("public", "GET", "/", 404, b"404 page not found\n"),
        ("public", "GET", "/1/server/get/?k=u1&p=2", 404, b"404 page not found\n"),
        ("public", "POST", PUSH, 404, b"404 page not found\n"),
        ("public", "GET", "/1/x/../server/get?k=u1&p=2", 404, b"404 page not found\n"),
        ("admin", "GET", PUSH, 405, b"Method Not Allowed\n"),
        ("admin", "GET", "/1/server/get?k=u1&p=2", 404, b"404 page not found\n"),
        ("admin", "GET", "/admin/msg/clean", 405, b"Method Not Allowed\n"),
    ],
)
async def test_wrong_paths_and_methods_are_answered_as_the_original_did(
    web: Web, listener: str, method: str, path: str, status: int, body: bytes
) -> None:
    response = await web.ask(listener, method, path)
    assert (response.status, response.body) == (status, body)
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/2/admin/nope", 404, "not_found"),
        ("GET", "/2/admin/keys/", 400, "bad_request"),
        ("GET", "/2/admin/keys/a/b/c/d", 404, "not_found"),
        ("PUT", "/2/admin/keys/a", 405, "method_not_allowed"),
        ("POST", "/2/admin/keys/a/messages", 405, "method_not_allowed"),
    ],
)
async def test_version_2_says_so_in_json(web: Web, method: str, path: str, status: int, code: str) -> None:
    response = await web.admin(method, path)
    assert (response.status, response.json["error"]["code"]) == (status, code)


async def test_allowed_methods_are_told(web: Web) -> None:
    assert (await web.admin("GET", "/1/admin/msg/del")).headers["allow"] == "POST"
    assert (await web.admin("PUT", "/2/admin/keys/a")).headers["allow"] == "GET, DELETE"


async def test_old_names_push_and_delete(web: Web, comet: ScriptedComet) -> None:
    assert (await web.admin("POST", "/admin/push?key=k&expire=0", b"1")).body == b'{"ret":0}'
    assert (await web.admin("POST", "/admin/msg/clean", b"key=k")).body == b'{"ret":0}'
    assert [push.keys for push in comet.pushes] == [["k"]]
    assert comet.deleted == ["k"]


async def test_page_of_another_origin_cannot_push(web: Web, comet: ScriptedComet) -> None:
    response = await web.ask("admin", "POST", PUSH, b"1", {"Origin": "http://evil.example"})
    assert (response.status, response.json) == (403, {"ret": 65534})
    preflight = await web.ask(
        "admin",
        "OPTIONS",
        PUSH,
        None,
        {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"},
    )
    assert preflight.status == 403
    assert not comet.pushes
    assert web.counted("http_refusals_total", "foreign_origin") == 2


async def test_page_that_had_its_own_name_pointed_at_us_reads_and_pushes_nothing(
    comet: ScriptedComet,
) -> None:
    rebound = {"Host": "evil.example:8091"}
    async with running_web({"comet-1": comet}, no_messages()) as web:
        for method, path in (("POST", PUSH), ("GET", "/2/admin/nodes"), ("GET", "/openapi.json")):
            assert (await web.ask("admin", method, path, b"1", rebound)).status == 403
        assert not comet.pushes
        assert web.counted("http_refusals_total", "foreign_name") == 3
    for settings in ({"admin_token": "s3cret"}, {"admin_insecure": True}):
        async with running_web({"comet-1": comet}, no_messages(), **settings) as web:
            assert (await web.ask("admin", "POST", PUSH, b"1", {**rebound, **GOOD})).status == 200


async def test_page_of_a_listed_origin_can_push_after_a_preflight(comet: ScriptedComet) -> None:
    origin = "http://page.example"
    async with running_web({"comet-1": comet}, no_messages(), admin_origins=(origin,)) as web:
        preflight = await web.ask(
            "admin", "OPTIONS", PUSH, None, {"Origin": origin, "Access-Control-Request-Method": "POST"}
        )
        assert (preflight.status, preflight.body) == (204, b"")
        assert preflight.headers["access-control-allow-origin"] == origin
        assert "POST" in preflight.headers["access-control-allow-methods"]
        response = await web.ask("admin", "POST", PUSH, b"1", {"Origin": origin})
        assert response.json == {"ret": 0}
        assert response.headers["access-control-allow-origin"] == origin


async def test_public_answers_tell_listed_origins_only(comet: ScriptedComet) -> None:
    path = "/1/server/get?k=u1&p=1"
    async with running_web({"comet-1": comet}, no_messages(), public_origins=("http://page.example",)) as web:
        listed = await web.get(path, {"Origin": "http://page.example"})
        foreign = await web.get(path, {"Origin": "http://other.example"})
        assert listed.headers["access-control-allow-origin"] == "http://page.example"
        assert "access-control-allow-origin" not in foreign.headers
        assert listed.body == foreign.body


async def test_admin_token_is_wanted_for_everything(comet: ScriptedComet) -> None:
    async with running_web({"comet-1": comet}, no_messages(), admin_token="s3cret") as web:
        for method, path in (
            ("POST", PUSH),
            ("GET", "/2/admin/nodes"),
            ("GET", "/nope"),
            ("GET", "/openapi.json"),
        ):
            for headers in ({}, {"Authorization": "Bearer wrong"}):
                response = await web.ask("admin", method, path, b"1", headers)
                assert response.status == 401
                assert response.headers["www-authenticate"] == "Bearer"
        assert not comet.pushes
        good = await web.ask("admin", "POST", PUSH, b"1", {"Authorization": "Bearer s3cret"})
        assert good.json == {"ret": 0}
        assert (await web.get("/1/server/get?k=u1&p=1")).json["ret"] == 0


GOOD = {"Authorization": "Bearer s3cret"}
BAD = {"Authorization": "Bearer wrong"}


async def test_an_address_that_guesses_the_admin_token_has_to_wait(comet: ScriptedComet) -> None:
    settings = {"admin_token": "s3cret", "token_failures_per_minute": 3}
    async with running_web({"comet-1": comet}, no_messages(), **settings) as web:
        for _ in range(3):
            assert (await web.ask("admin", "POST", PUSH, b"1", BAD)).status == 401
        for headers in (BAD, GOOD, GOOD):
            response = await web.ask("admin", "POST", PUSH, b"1", headers)
            assert (response.status, response.body) == (429, b'{"ret":65535}')
            assert 0 < int(response.headers["retry-after"]) <= 20
        assert not comet.pushes
        assert web.counted("http_refusals_total", "rate") == 3
        # The public API has nothing to do with it, also for pages.
        answer = await web.get("/1/server/get?k=u1&p=1", {"Origin": "http://page.example"})
        assert answer.status == 200


async def test_each_way_to_be_turned_away_is_described(comet: ScriptedComet) -> None:
    document = json.loads(resources.files("web.api").joinpath("openapi.json").read_bytes())
    settings = {"admin_token": "s3cret", "token_failures_per_minute": 1}
    async with running_web({"comet-1": comet}, no_messages(), **settings) as web:
        assert (await web.ask("admin", "POST", PUSH, b"1", BAD)).status == 401
        for path, item in document["paths"].items():
            if "admin" not in path:
                continue
            for method, operation in item.items():
                waiting = await web.ask("admin", method.upper(), re.sub(r"{\w+}", "1", path), b"1", BAD)
                assert waiting.status == 429
                assert {"401", "403", "429"} <= operation["responses"].keys()
                assert waiting.json.get("error", {}).get("code", "too_many_requests") == "too_many_requests"


async def test_bad_tokens_do_not_lock_out_an_address_that_knows_the_token(comet: ScriptedComet) -> None:
    settings = {"admin_token": "s3cret", "token_failures_per_minute": 3}
    async with running_web({"comet-1": comet}, no_messages(), **settings) as web:
        assert (await web.ask("admin", "POST", PUSH, b"1", GOOD)).json == {"ret": 0}
        for _ in range(5):
            assert (await web.ask("admin", "POST", PUSH, b"1", BAD)).status == 401
        assert (await web.ask("admin", "POST", PUSH, b"1", GOOD)).json == {"ret": 0}


async def test_our_own_fault_is_logged_once_with_its_traceback(
    web: Web, comet: ScriptedComet, caplog: pytest.LogCaptureFixture
) -> None:
    def break_down(_: object) -> object:
        raise ZeroDivisionError("broken")

    comet.push = break_down  # type: ignore[method-assign, assignment]
    assert (await web.push("k")).body == b'{"ret":65535}'
    response = await web.admin("POST", "/2/admin/push", b'{"key":"k","msg":1,"expire":0}')
    assert (response.status, response.json["error"]["code"]) == (500, "internal")
    assert "broken" not in response.body.decode()
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 2
    assert all(record.exc_info for record in errors)
    assert web.counted("http_errors_total") == 2


async def test_errors_of_nodes_become_answers(web: Web, comet: ScriptedComet) -> None:
    comet.fates.extend([OverloadedError("full"), OverloadedError("full")])
    assert (await web.push("k")).body == b'{"ret":65535}'
    response = await web.admin("POST", "/2/admin/push", b'{"key":"k","msg":1,"expire":0}')
    assert (response.status, response.json) == (503, {"error": {"code": "overloaded", "message": "full"}})


async def test_no_comet_node_is_1001() -> None:
    async with running_web({}, no_messages()) as web:
        assert (await web.push("k")).body == b'{"ret":1001}'
        assert (await web.get("/1/server/get?k=u1&p=1")).body == b'{"ret":1001}'
        assert (await web.admin("POST", "/1/admin/push/mprivate?expire=0", b'{"m":"1","k":"a"}')).json == {
            "ret": 1001
        }
        assert (await web.admin("DELETE", "/2/admin/keys/k")).status == 503


async def test_requests_are_counted_by_route(web: Web) -> None:
    await web.push("k")
    await web.admin("GET", "/2/admin/keys/a%2Fb/messages/x")
    await web.admin("DELETE", "/2/admin/keys/a%2Fb/messages/x")
    assert web.counted("http_requests_total", "/1/admin/push/private") == 1
    assert web.counted("http_requests_total", "/2/admin/keys/{key}/messages/{mid}") == 1
