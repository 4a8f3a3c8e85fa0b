"""The Redis store while its server is killed, frozen, full, read-only, or robbed of its scripts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from cluster.contracts.message import Outcome, SaveBatch, SaveItem
from cluster.errors import InDoubtError, StorageError, UnavailableError
from cluster.model import Key, Mid
from tests.message.storage.redis_stores import open_redis
from tests.message.storage.saving import (
    BOB,
    batch_of,
    item,
    load_all,
    save,
    save_one,
    save_until_it_fails,
    until_saved,
)
from tests.support.eventually import eventually, eventually_done
from tests.support.proxy import FaultProxy
from tests.support.servers import RedisServer


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that a test may ill-treat; 50 ms each."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def timed_server(tmp_path: Path) -> Iterator[RedisServer]:
    """As `server`, with a clock that is set. What was told a second ago is kept anew."""
    with RedisServer(tmp_path / "timed", has_own_time=True) as server:
        yield server


@pytest.fixture
def promoted(tmp_path: Path) -> Iterator[RedisServer]:
    """Another server, which takes the first one's place."""
    with RedisServer(tmp_path) as server:
        yield server


def ask(server: RedisServer, *command: str | int) -> Any:
    """Run a command as an operator would."""
    with redis.Redis.from_url(server.url, socket_timeout=5.0) as client:
        return client.execute_command(*command)


async def test_everything_that_was_answered_survives_a_kill_of_the_server(server: RedisServer) -> None:
    async with open_redis(server.url, retry_s=0.02) as store:
        keys = [Key(f"user:{n}") for n in range(8)]
        saving = [asyncio.create_task(save_until_it_fails(store, key)) for key in keys]
        await eventually(lambda: store.queued == len(keys))
        await save_one(store, Key("while-they-save"), "some")

        server.kill()
        results = await asyncio.gather(*saving)
        server.start()

        for key, (answered, broken) in zip(keys, results, strict=True):
            outcome = await until_saved(store, broken)
            stored = await load_all(store, key)
            assert outcome in (Outcome.SAVED, Outcome.REPEATED)
            assert stored == [*answered, broken.items[0].payload]


@asynccontextmanager
async def server_of_ones(config: bytes = b"*0\r\n") -> AsyncIterator[str]:
    """Address of something that speaks Redis and whose scripts return the number 1, but for the expiry's.

    Args:
        config: its answer to CONFIG.
    """
    replies = {b"EVALSHA": b":1\r\n", b"CONFIG": config, b"SCRIPT": b"$1\r\nx\r\n"}
    nothing_expired = b"*3\r\n$1\r\n1\r\n:0\r\n:0\r\n"

    served: list[asyncio.Task[Any] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.current_task())
        try:
            while head := await reader.readline():
                words: list[bytes] = []
                for _ in range(int(head[1:])):
                    size = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(size + 2))[:size])
                is_expiry = words[0] == b"EVALSHA" and words[2] == b"0" and len(words) == 5
                writer.write(nothing_expired if is_expiry else replies.get(words[0], b"+OK\r\n"))
        except ConnectionError:
            # The store cuts its connections.
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        await asyncio.gather(*filter(None, served))


async def test_save_that_gets_an_answer_of_another_kind_is_in_doubt() -> None:
    async with server_of_ones() as url, open_redis(url) as store:
        saving = store.save(await batch_of(store, BOB, "1", b"[1]"))
        with pytest.raises(InDoubtError):
            await asyncio.wait_for(saving, 20)
        assert store.queued == 0


async def test_server_that_answers_what_redis_would_not_is_unavailable(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with server_of_ones(config=b":1\r\n") as url, open_redis(url, retry_s=0.01) as store:
        batch = SaveBatch(BOB, [SaveItem("1", b"[1]", 600)], Mid(0), Mid(80))
        for _ in range(3):
            with pytest.raises(UnavailableError):
                await asyncio.wait_for(store.save(batch), 20)

    assert caplog.text.count("redis does not answer, messages") == 1


async def test_save_to_a_frozen_server_is_in_doubt_and_the_next_ones_are_unavailable(
    server: RedisServer,
) -> None:
    async with open_redis(server.url, timeout_s=0.3, connect_timeout_s=0.2, retry_s=0.02) as store:
        first, second = await batch_of(store, BOB, "1", b"[1]"), await batch_of(store, BOB, "2", b"[2]")
        server.freeze()

        with pytest.raises(InDoubtError):
            await store.save(first)
        with pytest.raises(UnavailableError) as refused:
            await store.save(second)
        server.thaw()
        outcomes = [await until_saved(store, first), await until_saved(store, second)]

        assert not isinstance(refused.value, InDoubtError)
        # The server reads what the broken connection had sent before it reads the next one.
        assert outcomes == [Outcome.REPEATED, Outcome.SAVED]
        assert await load_all(store, BOB) == [b"[1]", b"[2]"]


async def test_reads_of_a_frozen_server_end(server: RedisServer) -> None:
    async with open_redis(server.url, timeout_s=0.3, connect_timeout_s=0.2) as store:
        await save_one(store, BOB, "1")
        server.freeze()

        with pytest.raises(UnavailableError):
            await store.load_after(BOB, Mid(0), 10, 1000)
        server.thaw()


async def test_server_that_is_away_is_unavailable_at_once_and_nothing_is_in_doubt(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with open_redis(server.url, retry_s=0.02) as store:
        batch = await batch_of(store, BOB, "1")
        server.kill()
        await eventually(lambda: store._writing._connection is None)

        for _ in range(3):
            with pytest.raises(UnavailableError) as refused:
                await store.save(batch)
            assert not isinstance(refused.value, InDoubtError)
        # Reads have a connection of their own.
        with pytest.raises(UnavailableError):
            await store.clock()
        server.start()
        assert await until_saved(store, batch) is Outcome.SAVED
        await store.clock()

    # However often it was tried.
    assert caplog.text.count("redis does not answer, messages") == 1
    assert caplog.text.count("redis is back") == 1


async def test_full_server_refuses_and_goes_on_when_there_is_room(server: RedisServer) -> None:
    async with open_redis(server.url) as store:
        await save_one(store, BOB, "1", b"[1]")
        ask(server, "CONFIG", "SET", "maxmemory", "1")

        with pytest.raises(StorageError, match="maxmemory"):
            await store.save(await batch_of(store, BOB, "2"))
        kept = await load_all(store, BOB)
        ask(server, "CONFIG", "SET", "maxmemory", "0")
        await save_one(store, BOB, "2", b"[2]")

        assert kept == [b"[1]"]
        assert await load_all(store, BOB) == [b"[1]", b"[2]"]


async def test_full_server_frees_what_has_expired_keeps_its_clock_and_fences(
    timed_server: RedisServer,
) -> None:
    async with open_redis(timed_server.url) as store:
        await save(store, BOB, *[item(str(n), expire_s=5) for n in range(20)])
        ask(timed_server, "CONFIG", "SET", "maxmemory", "1")
        timed_server.clock.set("+20")

        assert await store.remove_expired(100) == 20
        assert ask(timed_server, "ZCARD", BOB) == 0
        timed_server.clock.set("+40")
        told = await store.clock()
        assert int(ask(timed_server, "GET", "\x01clock")) == told
        await store.fence("gone-1")
        assert await store.is_fenced("gone-1")

    timed_server.clock.set("+60")
    async with open_redis(timed_server.url) as store:
        assert store.start_fault() is None
        assert await store.clock() > told
        with pytest.raises(StorageError, match="maxmemory"):
            await save_one(store, BOB, "20")


async def test_server_without_enough_replicas_tells_its_clock(timed_server: RedisServer) -> None:
    async with open_redis(timed_server.url) as store:
        before = await store.clock()
        ask(timed_server, "CONFIG", "SET", "min-replicas-to-write", "1")
        timed_server.clock.set("+20")

        assert await store.clock() > before
        with pytest.raises(StorageError, match="NOREPLICAS"):
            await save_one(store, BOB, "1")


async def test_clock_of_a_replica_is_asked_of_who_took_its_place(
    timed_server: RedisServer, promoted: RedisServer
) -> None:
    name = FaultProxy(f"127.0.0.1:{timed_server.port}")
    await name.start()
    async with open_redis(f"redis://{name.address}/0", retry_s=0.02) as store:
        await store.clock()
        ask(timed_server, "REPLICAOF", "127.0.0.1", 1)
        timed_server.clock.set("+20")
        name.target = f"127.0.0.1:{promoted.port}"

        with pytest.raises(StorageError, match="READONLY"):
            await store.clock()
        await store.clock()
        assert ask(promoted, "EXISTS", "\x01clock") == 1
    await name.stop()


async def test_replica_refuses_saves_and_nothing_is_half_done(server: RedisServer) -> None:
    async with open_redis(server.url) as store:
        batch = await batch_of(store, BOB, "1", b"[1]")
        ask(server, "REPLICAOF", "127.0.0.1", 1)

        with pytest.raises(StorageError):
            await store.save(batch)
        with pytest.raises(StorageError):
            await store.fence("gone-1")
        ask(server, "REPLICAOF", "NO", "ONE")

        assert await load_all(store, BOB) == []
        assert await until_saved(store, batch) is Outcome.SAVED


async def test_scripts_that_were_flushed_are_sent_again(server: RedisServer) -> None:
    async with open_redis(server.url) as store:
        batches = [await batch_of(store, Key(f"user:{n}"), str(n), b"[%d]" % n) for n in range(50)]
        ask(server, "SCRIPT", "FLUSH")

        replies = await asyncio.gather(*map(store.save, batches))

        assert {reply.results[0].outcome for reply in replies} == {Outcome.SAVED}
        assert await load_all(store, Key("user:49")) == [b"[49]"]


async def test_connections_that_the_operator_kills_are_replaced(server: RedisServer) -> None:
    async with open_redis(server.url, retry_s=0.02) as store:
        await save_one(store, BOB, "1", b"[1]")
        await load_all(store, BOB)
        ask(server, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        # The batch needs the clock of a server to which the store may just be connecting again.
        batch = await eventually_done(lambda: batch_of(store, BOB, "2", b"[2]"), UnavailableError)
        assert await until_saved(store, batch) is Outcome.SAVED
        assert await load_all(store, BOB) == [b"[1]", b"[2]"]


async def test_two_nodes_save_to_one_key_without_a_repeat_or_a_loss(server: RedisServer) -> None:
    async with open_redis(server.url) as one, open_redis(server.url) as other:
        same = await batch_of(one, BOB, "same", b'"same"')

        async def save_all(store: Any, name: str) -> list[Mid]:
            return [(await save_one(store, BOB, f"{name}-{n}")).results[0].mid for n in range(50)]

        mids, more, *repeated = await asyncio.gather(
            save_all(one, "one"), save_all(other, "other"), one.save(same), other.save(same)
        )

        assert mids == sorted(mids)
        assert more == sorted(more)
        assert len({*mids, *more}) == 100
        assert len({reply.results[0].mid for reply in repeated}) == 1
        assert (await load_all(one, BOB)).count(b'"same"') == 1
        assert len(await load_all(other, BOB)) == 101


async def test_store_finds_the_new_primary_after_the_old_one_became_a_replica(
    server: RedisServer, promoted: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    # A name that is given to another machine: connections to the old one stay.
    name = FaultProxy(f"127.0.0.1:{server.port}")
    await name.start()
    async with open_redis(f"redis://{name.address}/0", retry_s=0.02) as store:
        before = await batch_of(store, BOB, "1", b"[1]")
        ask(server, "REPLICAOF", "127.0.0.1", 1)
        name.target = f"127.0.0.1:{promoted.port}"

        with pytest.raises(StorageError, match="READONLY"):
            await store.save(before)
        assert (await store.save(before)).results[0].outcome is Outcome.SAVED
        read = await load_all(store, BOB)

    await name.stop()
    assert read == [b"[1]"]
    # However often, and whatever else, is refused.
    assert caplog.text.count("redis refuses") == 1
