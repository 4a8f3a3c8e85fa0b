"""web/quick/quick.py: what is recognised as a push that may go the short way."""

from __future__ import annotations

import time

import pytest

from cluster.failurelimiter import FailureLimiter
from cluster.members import Members
from cluster.model import Key
from cluster.registry.memory import MemoryRegistry
from cluster.stats import Stats
from tests.support.services import ScriptedComet
from tests.support.web import comet_info
from tests.web.quick.quick_requests import post
from web.metrics import WebMetrics
from web.pushing.owners import Owners
from web.pushing.push import Pusher
from web.quick.quick import MAX_BODY_BYTES, MAX_SECTIONS, QuickPushes
from web.serving.access import Access

HEAD = b"POST /1/admin/push/private?key=k&expire=60 HTTP/1.1\r\n"
TOKEN = "Authorization: Bearer s3cret"


class Quick:
    """The recogniser in front of a scripted comet node."""

    def __init__(self, token: str = "") -> None:
        self.comet = ScriptedComet()
        self.registry = MemoryRegistry()
        self.members = Members(self.registry)
        metrics = WebMetrics(Stats())
        owners = Owners(self.members, lambda _: self.comet, timeout_s=5.0, attempt_s=3.0)
        self.pusher = Pusher(owners, metrics, "web-", 3600)
        access = Access((), token, refuses_foreign=True, methods="POST", refuses_names=not token)
        limiter = FailureLimiter(60, time.monotonic)
        limiter.trust("127.0.0.1")
        self.pushes = QuickPushes(self.pusher, access, metrics, 64, limiter)

    def begins(self, data: bytes, host: str = "127.0.0.1") -> bool:
        return self.pushes.begin(data, (host, 12345)) is not None


@pytest.fixture
async def quick() -> Quick:
    made = Quick()
    await made.registry.register(comet_info("comet-1"))
    return made


@pytest.fixture
async def guarded() -> Quick:
    return Quick("s3cret")


async def test_push_to_a_name_that_may_be_refused_goes_the_usual_way(quick: Quick) -> None:
    assert not quick.begins(HEAD + b"Host: evil.example:8091\r\nContent-Length: 3\r\n\r\n[1]")


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"Host: a\r\nContent-Length: 3\r\n\r\n[1]",
        HEAD + b"host:a\r\ncontent-length:   3 \r\nContent-Type: application/json\r\n\r\n[1]",
        HEAD + b"Host: a\r\nConnection: Keep-Alive\r\nContent-Length: 3\r\nUser-Agent: x/1 (y)\r\n\r\n[1]",
        b"POST /admin/push?key=k&expire=60 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n[1]",
    ],
)
async def test_plain_push_is_recognised(quick: Quick, data: bytes) -> None:
    assert quick.begins(data)
    push = quick.comet.pushes[0]
    assert (push.keys, push.payload, push.expire_s, push.id_ttl_s) == (["k"], b"[1]", 60, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        HEAD,
        HEAD + b"Host: a\r\nContent-Length: 3\r\n\r\n[1",
        HEAD + b"Host: a\r\nContent-Length: 3\r\n\r\n[1]P",
        HEAD + b"Host: a\r\nContent-Length: 3\r\n\r\n{1]",
        HEAD + b"Host: a\r\n\r\n[1]",
        HEAD + b"Content-Length: 3\r\n\r\n[1]",
        HEAD + b"Host: a\r\nHost: b\r\nContent-Length: 3\r\n\r\n[1]",
        HEAD + b"Host: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n[1]",
        HEAD + b"Host: a\r\nContent-Length: +3\r\n\r\n[1]",
        HEAD + b"Host: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n[1]",
        HEAD + b"Host: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n[1]",
        HEAD + b"Host: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\n[1]",
        HEAD + b"Host: a\r\nContent-Length: 3\r\nOrigin: http://a\r\n\r\n[1]",
        HEAD + b"Host: a\r\nContent-Length: 3\r\nUpgrade: h2c\r\n\r\n[1]",
        HEAD + b"Host: a\r\nContent-Length : 3\r\n\r\n[1]",
        HEAD + b"Host: a\r\n Content-Length: 3\r\n\r\n[1]",
        HEAD + b"Host: a\r\nContent-Length: 3\r\nX: \xff\r\n\r\n[1]",
        HEAD + b"Host: a\r\nContent-Length: 3\nX: y\r\n\r\n[1]",
        HEAD + b"Host: a\r\nContent-Length: 3\r\nX: " + b"x" * 4096 + b"\r\n\r\n[1]",
        HEAD + b'Host: a\r\nContent-Length: 66\r\n\r\n"' + b"x" * 64 + b'"',
        HEAD.replace(b"1.1", b"1.0") + b"Host: a\r\nContent-Length: 3\r\n\r\n[1]",
        HEAD.replace(b"POST", b"GET") + b"Host: a\r\nContent-Length: 3\r\n\r\n[1]",
        HEAD.replace(b"private", b"mprivate") + b"Host: a\r\nContent-Length: 3\r\n\r\n[1]",
        HEAD.replace(b"private", b"private/") + b"Host: a\r\nContent-Length: 3\r\n\r\n[1]",
        HEAD.replace(b"/1", b"http://a/1") + b"Host: a\r\nContent-Length: 3\r\n\r\n[1]",
        HEAD.replace(b"key=k", b"key=") + b"Host: a\r\nContent-Length: 3\r\n\r\n[1]",
        HEAD.replace(b"key=k", b"key=k#") + b"Host: a\r\nContent-Length: 3\r\n\r\n[1]",
        HEAD.replace(b"=60", b"=-1") + b"Host: a\r\nContent-Length: 3\r\n\r\n[1]",
        HEAD.replace(b" HTTP", b"  HTTP") + b"Host: a\r\nContent-Length: 3\r\n\r\n[1]",
    ],
)
async def test_everything_else_goes_the_usual_way_and_nothing_is_pushed(quick: Quick, data: bytes) -> None:
    # Twice, because header sections are remembered.
    assert not quick.begins(data)
    assert not quick.begins(data)
    assert not quick.comet.pushes


async def test_push_without_a_comet_node_goes_the_usual_way() -> None:
    assert not Quick().begins(post(b"1"))


async def test_large_body_goes_the_usual_way(quick: Quick) -> None:
    assert not quick.begins(post(b" " * MAX_BODY_BYTES + b"1"))


@pytest.mark.parametrize(
    "query",
    [
        "key=k&expire=60",
        "expire=60&key=k",
        "key=%6b&expire=060",
        "key=k&expire=60&x=1",
        "x=1&key=k&expire=60",
    ],
)
async def test_key_and_expire_are_the_same_however_they_are_written(quick: Quick, query: str) -> None:
    assert quick.begins(post(b"1", target=f"/1/admin/push/private?{query}"))
    (push,) = quick.comet.pushes
    assert (push.keys, push.expire_s) == ([Key("k")], 60)


@pytest.mark.parametrize(
    ("query", "is_begun"),
    [
        (f"key={'k' * 512}&expire=0", True),
        (f"key={'k' * 513}&expire=0", False),
        ("key=&expire=0", False),
        ("key=k&expire=4294967295", True),
        ("key=k&expire=4294967296", False),
        ("key=k&expire=999999999", True),
        ("key=k&expire=", False),
        ("key=k&expire=-1", False),
    ],
)
async def test_bounds_of_the_parameters_hold(quick: Quick, query: str, is_begun: bool) -> None:
    assert quick.begins(post(b"1", target=f"/1/admin/push/private?{query}")) is is_begun


async def test_token_is_asked_for_each_time(guarded: Quick) -> None:
    await guarded.registry.register(comet_info("comet-1"))
    assert guarded.begins(post(b"1", TOKEN))
    # Who has not shown the token yet may be guessing: the usual way counts.
    assert not guarded.begins(post(b"1", TOKEN), "10.0.0.7")
    assert not guarded.begins(post(b"1"))
    assert not guarded.begins(post(b"1", TOKEN + "x"))
    assert guarded.begins(post(b"1", TOKEN))


async def test_remembered_header_sections_are_bounded(quick: Quick) -> None:
    for number in range(MAX_SECTIONS * 2):
        assert quick.begins(post(b"1", f"X-Request-Id: {number}"))
    assert len(quick.pushes._lengths) <= MAX_SECTIONS
