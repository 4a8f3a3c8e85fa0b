"""A subscriber that stops reading is closed at the limit; the others notice nothing, and nothing is lost."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.subscriber import (
    HEARTBEAT_LINE,
    Document,
    End,
    Line,
    Subscriber,
    subscribe_tcp,
    subscribe_websocket,
)
from tests.support.system import Server, private_target

CONFIG = """
[comet]
unread_limit_bytes = 65_536

[message]
durability = "os"
max_messages_per_key = 2000
max_bytes_per_key = 100_000_000
"""
PUSHES = 1500
PAYLOAD = b'"' + b"x" * 1000 + b'"'
# The limit, the kernel's buffers on both sides, and what a page of messages takes; far below what was pushed.
GROWTH_LIMIT_BYTES = 24 * 1024 * 1024


async def push_many(server: Server, key: str, count: int, expire_s: int) -> None:
    client = server.http("admin")
    try:
        for _ in range(count):
            answer = await client.request("POST", private_target(key, expire_s), PAYLOAD)
            assert answer.json == {"ret": 0}
    finally:
        await client.close()


@pytest.mark.parametrize("transport", ["tcp", "ws"])
async def test_stopped_reader_is_closed_and_the_others_of_its_key_get_everything(
    server: Server, transport: str
) -> None:
    key = f"slow-{transport}"
    subscribe = subscribe_tcp if transport == "tcp" else subscribe_websocket
    slow: Subscriber = await subscribe(
        server.addresses[transport], key, version="2", receive_buffer_bytes=1024
    )
    before = server.resident_bytes
    async with server.tcp(key, version="2") as fast, server.websocket(key) as other:
        pushing = asyncio.create_task(push_many(server, key, PUSHES, 600))
        # At the same time: one that waits for the other would be slow itself.
        received = await asyncio.gather(fast.documents(PUSHES, 60), other.documents(PUSHES, 60), pushing)
        over_tcp, over_websocket = ([document.mid for document in documents] for documents in received[:2])
    assert over_tcp == sorted(set(over_tcp))
    assert over_websocket == over_tcp
    assert server.resident_bytes - before < GROWTH_LIMIT_BYTES

    seen = await drain(slow)
    await slow.close()
    assert 0 < len(seen) < PUSHES
    assert seen == over_tcp[: len(seen)]
    async with server.subscriber(transport, key, version="2", mid=seen[-1]) as resumed:
        missed = [document.mid for document in await resumed.documents(PUSHES - len(seen), within=60)]
    assert seen + missed == over_tcp


async def drain(slow: Subscriber) -> list[int]:
    """Read what the kernel still holds, up to the end; the mids."""
    mids: list[int] = []
    while not isinstance(received := await slow.receive(), End):
        if isinstance(received, Document):
            mids.append(received.mid)
    return mids


async def test_stopped_reader_of_one_key_does_not_delay_pushes_to_another(server: Server) -> None:
    slow = await subscribe_tcp(server.addresses["tcp"], "stopped", receive_buffer_bytes=1024)
    async with server.tcp("swift", version="2") as swift:
        pushing = asyncio.create_task(push_many(server, "stopped", 500, 0))
        for number in range(50):
            assert await server.push("swift", number) == 0
            assert (await swift.next_document()).value["msg"] == number
        await pushing
    await slow.close()


async def test_slow_consumers_are_counted_and_so_is_every_message_that_they_lose(server: Server) -> None:
    closes, drops, deliveries = await readings(server)
    slow = await subscribe_tcp(server.addresses["tcp"], "counted", version="2", receive_buffer_bytes=1024)
    await push_many(server, "counted", 400, 0)
    closes, drops, deliveries = (
        after - before
        for before, after in zip((closes, drops, deliveries), await readings(server), strict=True)
    )
    received = await drain(slow)
    await slow.close()
    assert closes == 1
    # One found no room; what had not left the process had been counted as delivered.
    assert deliveries - (drops - 1) == len(received)


async def test_message_larger_than_the_limit_still_reaches_a_reader_that_is_not_behind(
    server: Server,
) -> None:
    async with server.tcp("large", version="2") as reader:
        payload = "y" * 500_000
        for _ in range(3):
            assert await server.push("large", payload) == 0
            assert (await reader.next_document()).value["msg"] == payload


@pytest.mark.parametrize("transport", ["tcp", "ws"])
async def test_heartbeats_while_a_large_message_is_under_way_are_no_reason_to_end(
    server: Server, transport: str
) -> None:
    key = f"beating-{transport}"
    subscribe = subscribe_tcp if transport == "tcp" else subscribe_websocket
    reader = await subscribe(server.addresses[transport], key, version="2", receive_buffer_bytes=1024)
    payload = "z" * 500_000
    assert await server.push(key, payload) == 0
    for _ in range(3):
        await reader.send_beat()
    async with server.subscriber(transport, "another") as another:
        # The server has read the heartbeats when it answers this one.
        await another.beat()
    assert (await reader.next_document()).value["msg"] == payload
    for _ in range(3):
        assert await reader.receive() == Line(HEARTBEAT_LINE)
    await reader.close()


async def readings(server: Server) -> tuple[float, ...]:
    """Slow consumers closed, messages that they lost, all that was delivered; so far."""
    lines = (await server.ask("status", "GET", "/metrics")).body.decode().splitlines()
    names = (
        'encke_closes_total{reason="slow_consumer"} ',
        'encke_drops_total{reason="slow_consumer"} ',
        "encke_deliveries_total ",
    )
    return tuple(
        sum(float(line.removeprefix(name)) for line in lines if line.startswith(name)) for name in names
    )
