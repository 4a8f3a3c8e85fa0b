"""The client against the real server: what a user of both is promised."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.model import Key
from cluster.tokens import mint
from encke.client import (
    Connected,
    Gap,
    KeyDeletedError,
    Message,
    Publisher,
    Push,
    PushError,
    Reconnecting,
    Status,
    SubscribeError,
    Subscriber,
    SubscriberOptions,
    TokenRefusedError,
)
from tests.encke.subscribers import take
from tests.support.eventually import eventually
from tests.support.system import Server, running

DEADLINE_S = 30.0
FAST = SubscriberOptions(backoff_base_s=0.05, backoff_max_s=0.3)
SECRET = "s3cret"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(Server(tmp_path_factory.mktemp("server"))) as started:
        yield started


@pytest.fixture(scope="module")
def small_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Tight limits, so that they are reached soon."""
    config = "[message]\nmax_messages_per_key = 20\n[comet]\nmax_connections_per_key = 1\n"
    with running(Server(tmp_path_factory.mktemp("small"), config=config)) as started:
        yield started


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    with running(Server(tmp_path / "server")) as started:
        yield started


@pytest.fixture(scope="module")
def guarded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Asks subscribers for tokens."""
    config = f'[auth]\nsecrets = ["{SECRET}"]\n'
    with running(Server(tmp_path_factory.mktemp("guarded"), config=config)) as started:
        yield started


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """A key that no other test uses."""
    return str(request.node.name)


def url(server: Server, kind: str) -> str:
    host, port = server.addresses[kind]
    return f"http://{host}:{port}"


def subscriber(server: Server, key: str, **arguments: Any) -> Subscriber:
    return Subscriber(url(server, "public"), key, **{"options": FAST, **arguments})


def publisher(server: Server) -> Publisher:
    return Publisher(url(server, "admin"), timeout_s=DEADLINE_S, attempt_timeout_s=5.0)


async def values(source: Subscriber, count: int) -> list[Any]:
    items = await take(source, count)
    assert all(isinstance(item, Message) for item in items), items
    return [item.json() for item in items if isinstance(item, Message)]


async def test_what_is_pushed_after_entering_arrives(server: Server, key: str, transport: str) -> None:
    async with publisher(server) as backend, subscriber(server, key, transport=transport) as source:
        live = await backend.push(key, {"n": 1})
        assert live.online == 1
        stored = await backend.push(key, ["ü", 1.5, None], expire_s=60)
        assert await take(source, 2) == [
            Message(live.mid, b'{"n":1}'),
            Message(stored.mid, '["ü",1.5,null]'.encode()),
        ]


async def test_what_was_stored_before_is_left_out_unless_asked_for(
    server: Server, key: str, transport: str
) -> None:
    async with publisher(server) as backend:
        first = await backend.push(key, 1, expire_s=60)
        await backend.push(key, 2, expire_s=60)
        # Mids follow the clock, and so does the point from which we ask.
        await asyncio.to_thread(_wait_past, first.mid + 20_000)
        async with subscriber(server, key, transport=transport) as source:
            await backend.push(key, 3, expire_s=60)
            assert await values(source, 1) == [3]
        async with subscriber(server, key, transport=transport, resume=0) as source:
            assert await values(source, 3) == [1, 2, 3]
        async with subscriber(server, key, transport=transport, resume=first.mid) as source:
            assert await values(source, 2) == [2, 3]


def _wait_past(mid: int) -> None:
    while time.time_ns() // 100 < mid:
        time.sleep(0.001)


async def test_device_goes_on_after_what_it_acknowledged(server: Server, key: str, transport: str) -> None:
    options = {"transport": transport, "resume": "ack", "device": "phone", "auto_acknowledge": True}
    async with publisher(server) as backend:
        for number in range(5):
            await backend.push(key, number, expire_s=60)
        async with subscriber(server, key, **options) as source:
            assert await values(source, 4) == [0, 1, 2, 3]
        # The fourth was given out, and nobody asked for the next one.
        async with subscriber(server, key, **options) as source:
            assert await values(source, 2) == [3, 4]
            await source.acknowledge(source.last_mid)
        async with subscriber(server, key, **options) as source:
            await backend.push(key, 5, expire_s=60)
            assert await values(source, 1) == [5]
        async with subscriber(server, key, transport=transport, resume="ack", device="other") as source:
            assert await values(source, 6) == [0, 1, 2, 3, 4, 5]


async def test_kills_of_the_server_in_the_middle_of_pushes_are_survived(
    own_server: Server, transport: str
) -> None:
    count = 300
    async with publisher(own_server) as backend, subscriber(own_server, "bob", transport=transport) as source:

        async def push_all() -> list[int]:
            return [(await backend.push("bob", number, expire_s=600)).mid for number in range(count)]

        pushing = asyncio.create_task(push_all())
        received: list[Message | Gap] = []
        for stop in (count // 3, 2 * count // 3):
            received += await take(source, stop - len(received))
            await asyncio.to_thread(own_server.kill)
            await asyncio.to_thread(own_server.start)
        received += await take(source, count - len(received))
        mids = await pushing
        assert [item.mid for item in received if isinstance(item, Message)] == mids
        assert [item.json() for item in received if isinstance(item, Message)] == list(range(count))


async def test_stream_over_a_kill_stores_each_push_once_and_in_order(own_server: Server) -> None:
    count = 500

    async def pushes() -> AsyncIterator[Push]:
        for number in range(count):
            yield Push("bob", number, 600)

    async with publisher(own_server) as backend, subscriber(own_server, "bob") as source:
        answered = 0
        async for reply in backend.stream(pushes(), max_in_flight=32):
            assert reply.error is None
            assert not reply.failed
            answered += 1
            if answered == count // 2:
                await asyncio.to_thread(own_server.kill)
                await asyncio.to_thread(own_server.start)
        assert answered == count
        assert await values(source, count) == list(range(count))


async def test_drained_server_says_so_and_its_subscribers_come_back(
    own_server: Server, transport: str
) -> None:
    seen: list[Status] = []
    async with (
        publisher(own_server) as backend,
        subscriber(own_server, "bob", transport=transport, on_status=seen.append) as source,
    ):
        await backend.push("bob", 1, expire_s=60)
        assert await asyncio.to_thread(own_server.stop) == 0
        await asyncio.to_thread(own_server.start)
        await backend.push("bob", 2, expire_s=60)
        assert await values(source, 2) == [1, 2]
    assert isinstance(seen[1], Reconnecting)
    assert seen[1].code == 1001
    assert isinstance(seen[-1], Connected)


async def test_same_id_is_pushed_once(server: Server, key: str) -> None:
    async with publisher(server) as backend, subscriber(server, key, resume=0) as source:
        first = await backend.push(key, {"n": 1}, expire_s=60, id="one")
        second = await backend.push(key, {"n": 1}, expire_s=60, id="one")
        assert (second.mid, second.repeated) == (first.mid, True)
        with pytest.raises(PushError) as caught:
            await backend.push(key, {"n": 2}, expire_s=60, id="one")
        assert (caught.value.code, caught.value.status) == ("id_conflict", 409)
        await backend.push(key, 2, expire_s=60)
        assert await values(source, 2) == [{"n": 1}, 2]


async def test_many_keys_get_the_same_value(server: Server, key: str) -> None:
    keys = [f"{key}{n}" for n in range(300)]
    async with publisher(server) as backend, subscriber(server, keys[7]) as source:
        reply = await backend.push_many(keys, "hello", expire_s=60)
        assert [result.key for result in reply.results] == keys
        assert [result.online for result in reply.results] == [int(n == 7) for n in range(300)]
        assert await values(source, 1) == ["hello"]


async def test_refused_pushes_say_why(server: Server, key: str) -> None:
    async with publisher(server) as backend:
        with pytest.raises(PushError, match="id must have") as caught:
            await backend.push(key, 1, id="x" * 129)
        assert caught.value.status == 400
        assert not caught.value.is_retryable
        replies = [reply async for reply in backend.stream([Push(key, 1, id="x" * 129), Push(key, 2)])]
        assert replies[0].error is not None
        assert replies[0].error.code == "bad_request"
        assert replies[1].results[0].key == key


async def test_gap_is_told_before_the_messages_after_it(
    small_server: Server, key: str, transport: str
) -> None:
    async with publisher(small_server) as backend:
        mids = [(await backend.push(key, number, expire_s=60)).mid for number in range(30)]
        async with subscriber(small_server, key, transport=transport, resume=mids[2]) as source:
            gap, *messages = await take(source, 21)
    assert gap == Gap(mids[2], mids[10])
    assert [item.mid for item in messages if isinstance(item, Message)] == mids[10:]


async def test_one_connection_too_many_waits_for_its_turn(
    small_server: Server, key: str, transport: str
) -> None:
    seen: list[Status] = []
    async with asyncio.TaskGroup() as group:
        async with subscriber(small_server, key, transport=transport):
            second = subscriber(small_server, key, transport=transport, on_status=seen.append)
            entering = group.create_task(second.__aenter__())
            await eventually(lambda: seen)
        await entering
        await second.close()
    assert isinstance(seen[0], Reconnecting)
    assert seen[0].code == 4005


async def test_consumer_that_was_too_slow_misses_nothing(server: Server, key: str, transport: str) -> None:
    seen: list[Status] = []
    count, payload = 900, "x" * 4000
    options = SubscriberOptions(buffer_bytes=20_000, backoff_base_s=0.05, backoff_max_s=0.3)
    async with (
        publisher(server) as backend,
        subscriber(server, key, transport=transport, on_status=seen.append, options=options) as source,
    ):
        pushes = [Push(key, [number, payload], 600) for number in range(count)]
        replies = [reply async for reply in backend.stream(pushes)]
        assert all(reply.results for reply in replies)
        # Nothing was asked for so far, and more is unread than the server holds for anybody.
        assert [value[0] for value in await values(source, count)] == list(range(count))
    endings = [status for status in seen if isinstance(status, Reconnecting)]
    assert endings, "the server never gave up on us: the limits have changed, and so must this test"


async def test_deleted_key_ends_the_subscription(server: Server, key: str, transport: str) -> None:
    async with subscriber(server, key, transport=transport) as source:
        await server.ask("admin", "POST", f"/1/admin/msg/del?key={key}")
        with pytest.raises(KeyDeletedError):
            await take(source, 1)


async def test_token_is_asked_for_and_checked(guarded_server: Server, key: str, transport: str) -> None:
    good = mint(SECRET, Key(key), int(time.time()) + 60)
    async with subscriber(guarded_server, key, transport=transport, token=good):
        pass
    for bad in ("", "nonsense", mint("other", Key(key), int(time.time()) + 60)):
        with pytest.raises(TokenRefusedError):
            async with subscriber(guarded_server, key, transport=transport, token=bad):
                pass


async def test_token_that_expires_ends_the_subscription_or_is_replaced(
    guarded_server: Server, key: str, transport: str
) -> None:
    fetched: list[str] = []

    async def fetch() -> str:
        fetched.append(mint(SECRET, Key(key), int(time.time()) + 2))
        return fetched[-1]

    fixed = mint(SECRET, Key(key), int(time.time()) + 2)
    async with (
        publisher(guarded_server) as backend,
        subscriber(guarded_server, key, transport=transport, token=fetch) as renewed,
        subscriber(guarded_server, key, transport=transport, token=fixed) as ending,
    ):
        with pytest.raises(TokenRefusedError):
            await take(ending, 1)
        await eventually(lambda: len(fetched) > 1)
        await backend.push(key, 1, expire_s=60)
        assert await values(renewed, 1) == [1]


async def test_parameters_that_the_server_refuses_are_an_error(
    server: Server, key: str, transport: str
) -> None:
    with pytest.raises(SubscribeError):
        async with subscriber(server, key, transport=transport, device="x" * 65):
            pass


async def test_protocol_1_catches_up_over_http(own_server: Server, transport: str) -> None:
    options = SubscriberOptions(backoff_base_s=0.05, backoff_max_s=0.3, protocol=1)
    async with (
        publisher(own_server) as backend,
        subscriber(own_server, "bob", transport=transport, options=options) as source,
    ):
        await backend.push("bob", 1, expire_s=60)
        assert await values(source, 1) == [1]
        await asyncio.to_thread(own_server.kill)
        await asyncio.to_thread(own_server.start)
        await backend.push("bob", 2, expire_s=60)
        assert await values(source, 1) == [2]
