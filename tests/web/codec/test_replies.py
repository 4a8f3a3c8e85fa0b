"""web/codec/replies.py: the exact bytes of answers."""

from __future__ import annotations

import pytest

from cluster import errors
from cluster.errors import EnckeError
from web.codec import replies
from web.codec.replies import Api


def all_errors(base: type[EnckeError] = EnckeError) -> list[type[EnckeError]]:
    return [base, *(found for child in base.__subclasses__() for found in all_errors(child))]


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (replies.compatible(), b'{"ret":0}'),
        (replies.compatible(b'{"a":1}'), b'{"data":{"a":1},"ret":0}'),
        (replies.compatible(b'{"a":1}', callback="x.y"), b'x.y({"data":{"a":1},"ret":0})'),
        (replies.compatible(ret=65534), b'{"ret":65534}'),
        (replies.oldest(), b'{"msg":"ok","ret":0}'),
        (replies.oldest(b'{"a":1}'), b'{"data":{"a":1},"msg":"ok","ret":0}'),
        (replies.oldest(ret=65534, callback="cb"), b'cb({"msg":"ok","ret":65534})'),
        (replies.not_found(Api.COMPATIBLE), b"404 page not found\n"),
        (replies.wrong_method(Api.COMPATIBLE, "GET"), b"Method Not Allowed\n"),
        (replies.v2({"a": "<"}), b'{"a":"\\u003c"}'),
    ],
)
def test_answers_have_the_bytes_of_the_original(answer: replies.Answer, body: bytes) -> None:
    assert answer.body == body


def test_heads_tell_type_length_and_not_to_guess() -> None:
    json = replies.compatible()
    assert json.head == (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json;charset=utf-8\r\n"
        b"X-Content-Type-Options: nosniff\r\nContent-Length: 9\r\n"
    )
    assert b"application/javascript;charset=utf-8\r\n" in replies.compatible(callback="f").head
    assert b"Content-Length" not in replies.no_content({"Vary": "Origin"}).head


@pytest.mark.parametrize(
    ("error", "ret", "status"),
    [
        (errors.RequestError("x"), 65534, 400),
        (errors.ConflictError("x"), 65534, 409),
        (errors.NoNodeError("x"), 1001, 503),
        (errors.NotOwnerError("x"), 1001, 503),
        (errors.UnavailableError("x"), 65535, 503),
        (errors.InDoubtError("x"), 65535, 504),
        (errors.StorageError("x"), 65535, 503),
        (errors.EnckeError("x"), 65535, 500),
    ],
)
def test_each_error_has_its_code_and_status(error: EnckeError, ret: int, status: int) -> None:
    compatible = replies.failure(error, Api.COMPATIBLE)
    assert (compatible.status, compatible.body) == (200, b'{"ret":%d}' % ret)
    v2 = replies.failure(error, Api.V2)
    assert v2.status == status
    assert v2.body == b'{"error":{"code":"%b","message":"x"}}' % error.code.encode()


def test_too_large_is_413_in_every_dialect() -> None:
    error = errors.TooLargeError("x")
    assert [replies.failure(error, api).status for api in Api] == [413, 413, 413]
    assert replies.failure(error, Api.OLDEST).body == b'{"msg":"ok","ret":65534}'


def test_every_error_of_the_tree_has_a_rule() -> None:
    for kind in all_errors():
        if kind.__module__ != "cluster.errors" or kind is errors.ConfigError:
            continue
        assert kind.code in replies._RULES, kind
        assert replies.failure_code(kind.code, "", Api.COMPATIBLE).body.endswith(b":%d}" % kind.ret)


def test_unknown_codes_of_newer_nodes_are_internal_errors() -> None:
    assert replies.failure_code("invented_later", "", Api.COMPATIBLE).body == b'{"ret":65535}'
    assert replies.failure_status("invented_later") == 500


@pytest.mark.parametrize(
    ("status", "ret"), [(401, 65534), (403, 65534), (408, 65535), (429, 65535), (503, 65535)]
)
def test_refusals_say_whether_to_try_again(status: int, ret: int) -> None:
    assert replies.refusal(status, Api.COMPATIBLE, "x").body == b'{"ret":%d}' % ret
    assert replies.refusal(status, Api.OLDEST, "x").body == b'{"msg":"ok","ret":%d}' % ret


def test_overload_has_the_code_that_clients_retry() -> None:
    assert b'"code":"unavailable"' in replies.refusal(503, Api.V2, "x").body
