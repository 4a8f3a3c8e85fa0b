"""web/api/pushapi.py: pushes by HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.http import Response
from tests.support.services import ScriptedComet, failing
from tests.support.web import Web, running_web
from tests.web.conftest import no_messages


async def many(web: Web, keys: str, payload: str = "1", expire: str = "0") -> Response:
    body = json.dumps({"m": payload, "k": keys}).encode()
    return await web.admin("POST", f"/1/admin/push/mprivate?expire={expire}", body)


async def push(web: Web, **body: Any) -> Response:
    return await web.admin("POST", "/2/admin/push", json.dumps({"msg": 1, "expire": 0, **body}).encode())


async def test_payload_is_pushed_in_its_canonical_form(web: Web, comet: ScriptedComet) -> None:
    assert (await web.push("k", b' {"b": 1.50, "a": "<"} ', 600)).body == b'{"ret":0}'
    assert (await many(web, "k", ' {"b": 1.50, "a": "<"} ')).body == b'{"ret":0}'
    body = b'{"key":"k","expire":0,"msg": {"b": 1.50, "a": "<"} }'
    assert (await web.admin("POST", "/2/admin/push", body)).status == 200
    assert {pushed.payload for pushed in comet.pushes} == {b'{"b":1.50,"a":"\\u003c"}'}
    assert [pushed.expire_s for pushed in comet.pushes] == [600, 0, 0]


@pytest.mark.parametrize(
    "query",
    ["expire=600", "key=&expire=600", "key=k", "key=k&expire=", "key=k&expire=-1", "key=k&expire=4294967296",
     "key=k&expire=x", "key=%00&expire=0", "key=%FF&expire=0", "k=k&expire=0"],
)  # fmt: skip
async def test_bad_parameters_push_nothing(web: Web, comet: ScriptedComet, query: str) -> None:
    assert (await web.admin("POST", f"/1/admin/push/private?{query}", b"1")).body == b'{"ret":65534}'
    assert not comet.pushes


@pytest.mark.parametrize(
    "body", [b"", b"  ", b"hello", b"{}{}", b"NaN", b'"\xff"', b'{"a":1', b"[" * 200 + b"]" * 200]
)
@pytest.mark.parametrize("expire", ["0", "600"])
async def test_bad_payloads_push_nothing(web: Web, comet: ScriptedComet, body: bytes, expire: str) -> None:
    assert (
        await web.admin("POST", f"/1/admin/push/private?key=k&expire={expire}", body)
    ).body == b'{"ret":65534}'
    assert not comet.pushes


async def test_parameters_in_the_body_do_not_count(web: Web, comet: ScriptedComet) -> None:
    response = await web.admin("POST", "/1/admin/push/private", b"key=u1&expire=600")
    assert response.body == b'{"ret":65534}'
    assert not comet.pushes


async def test_failed_key_is_answered_with_its_code(web: Web, comet: ScriptedComet) -> None:
    comet.fates.extend([failing({"k": "storage"}), failing({"k": "no_node"})])
    assert (await web.push("k")).body == b'{"ret":65535}'
    assert (await web.push("k")).body == b'{"ret":1001}'


async def test_push_to_many_takes_each_key_once_and_tells_those_that_failed(
    web: Web, comet: ScriptedComet
) -> None:
    assert (await many(web, "a,b,a,, c")).body == b'{"ret":0}'
    assert comet.pushes[0].keys == ["a", "b", " c"]
    comet.fates.append(failing({"b": "storage", "<&": "overloaded"}))
    response = await many(web, f"a,b,<&,{'x' * 600}")
    assert response.body == b'{"data":{"fk":["%b","b","\\u003c\\u0026"]},"ret":0}' % (b"x" * 600)


async def test_push_to_many_without_a_good_key_asks_nobody(web: Web, comet: ScriptedComet) -> None:
    assert (await many(web, "x" * 600)).json == {"data": {"fk": ["x" * 600]}, "ret": 0}
    response = await push(web, keys=["", "a\x00"])
    assert response.json == {
        "results": [],
        "failed": [{"key": "", "code": "bad_request"}, {"key": "a\x00", "code": "bad_request"}],
    }
    assert not comet.pushes


@pytest.mark.parametrize("expire", ["", "-1", "abc"])
async def test_push_to_many_needs_a_lifetime(web: Web, comet: ScriptedComet, expire: str) -> None:
    assert (await many(web, "a", expire=expire)).body == b'{"ret":65534}'
    assert not comet.pushes


async def test_push_to_many_refuses_a_bad_payload_as_a_whole(web: Web, comet: ScriptedComet) -> None:
    assert (await many(web, "a,b", "hello")).body == b'{"ret":65534}'
    assert (await many(web, "a,b", "")).body == b'{"ret":65534}'
    assert not comet.pushes


async def test_sizes_over_their_limits_are_413(comet: ScriptedComet) -> None:
    settings = {"max_payload_bytes": 1000, "max_many_body_bytes": 5000, "max_keys_per_push": 10}
    async with running_web({"comet-1": comet}, no_messages(), **settings) as web:
        text = json.dumps("x" * 999)
        for response in (
            await web.push("k", text.encode()),
            await many(web, "a", text),
            await many(web, "a" * 6000),
            await many(web, ",".join(f"k{n}" for n in range(11))),
        ):
            assert (response.status, response.json) == (413, {"ret": 65534})
        response = await push(web, key="k", msg="x" * 999)
        assert (response.status, response.json["error"]["code"]) == (413, "too_large")
        assert not comet.pushes


async def test_version_2_answers_mids_and_connections(web: Web, comet: ScriptedComet) -> None:
    response = await push(web, keys=["a", "b"], id="mine")
    assert response.json == {
        "results": [{"key": "a", "mid": 80, "online": 1}, {"key": "b", "mid": 160, "online": 1}],
        "failed": [],
    }
    assert (comet.pushes[0].push_id, comet.pushes[0].id_ttl_s) == ("mine", 3600)


async def test_version_2_lists_failed_keys_of_a_list(web: Web, comet: ScriptedComet) -> None:
    comet.fates.append(failing({"a": "id_conflict"}))
    response = await push(web, keys=["a", "b"])
    assert response.status == 200
    assert response.json == {
        "results": [{"key": "b", "mid": 160, "online": 1}],
        "failed": [{"key": "a", "code": "id_conflict"}],
    }


@pytest.mark.parametrize(
    ("code", "status"), [("id_conflict", 409), ("storage", 503), ("in_doubt", 504), ("invented_later", 500)]
)
async def test_version_2_answers_the_failure_of_a_single_key_with_its_status(
    web: Web, comet: ScriptedComet, code: str, status: int
) -> None:
    comet.fates.append(failing({"a": code}))
    response = await push(web, key="a")
    assert (response.status, response.json["error"]["code"]) == (status, code)


async def test_version_2_explains_what_is_wrong(web: Web) -> None:
    response = await web.admin("POST", "/2/admin/push", b'{"key":"a","msg":1}')
    assert response.status == 400
    assert "expire" in response.json["error"]["message"]
    response = await web.admin("POST", "/2/admin/push", b'{"key":"a","msg":1,"expire":0,"ttl":1}')
    assert "ttl" in response.json["error"]["message"]


async def test_callers_id_makes_a_push_repeatable(system: Web) -> None:
    first = await push(system, key="k", expire=60, id="once")
    again = await push(system, key="k", expire=60, id="once")
    (result,) = first.json["results"]
    assert again.json["results"] == [{**result, "repeated": True}]
    other = await push(system, key="k", expire=60, id="once", msg=2)
    assert (other.status, other.json["error"]["code"]) == (409, "id_conflict")
    of_many = await push(system, keys=["k", "l"], expire=60, id="once", msg=2)
    assert of_many.json["failed"] == [{"key": "k", "code": "id_conflict"}]
    assert len(of_many.json["results"]) == 1


async def test_callers_id_makes_a_push_that_is_not_stored_repeatable_too(system: Web) -> None:
    first = await push(system, key="k", expire=0, id="once")
    again = await push(system, key="k", expire=0, id="once")
    assert again.json["results"][0]["mid"] == first.json["results"][0]["mid"]
    assert again.json["results"][0]["repeated"] is True
