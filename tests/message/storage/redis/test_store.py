"""The Redis store's special sides: addresses, what the server promises, data of others."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from cluster.errors import StorageError, UnavailableError
from cluster.model import Key, Mid
from cluster.stats import Stats
from tests.message.storage.older import OLDER_PAYLOADS
from tests.message.storage.redis_stores import make_store, open_redis
from tests.message.storage.saving import BOB, batch_of, load_all, save_one
from tests.message.storage.store_suite import Limits
from tests.support.eventually import eventually
from tests.support.servers import RedisServer, free_port

SOON_S = 600


@pytest.fixture
def client(plain_redis: RedisServer) -> Iterator[redis.Redis]:
    """Somebody else at the same server, which is empty."""
    with redis.Redis.from_url(plain_redis.url) as client:
        client.flushall()
        yield client


def older(payload: str, expire_s: float = SOON_S) -> str:
    """A member as gopush-cluster writes it."""
    return f'{{"msg":{payload},"expire":{int(time.time() + expire_s)}}}'


# -- addresses


async def test_unix_socket_and_database_are_used(plain_redis: RedisServer, client: redis.Redis) -> None:
    async with open_redis(f"unix://{plain_redis.socket}?db=5") as store:
        await save_one(store, BOB, "1", b"[1]")

        assert await load_all(store, BOB) == [b"[1]"]
    assert not client.exists("bob")
    client.select(5)
    assert client.zcard("bob") == 1


async def test_password_is_asked_for_and_never_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisServer(tmp_path, "--requirepass", "s3cret") as server:
        good = f"redis://:s3cret@127.0.0.1:{server.port}/0"
        async with open_redis(good) as store:
            await save_one(store, BOB, "1", b"[1]")
            told = str(store.describe())
        async with open_redis(f"redis://:wr0ng@127.0.0.1:{server.port}/0") as store:
            with pytest.raises(UnavailableError) as refused:
                await store.clock()
    everything = caplog.text + told + str(refused.value)
    assert "s3cret" not in everything
    assert "wr0ng" not in everything


async def test_tls_checks_the_certificate(tmp_path: Path, certificate: Path) -> None:
    port = free_port()
    options = ("--tls-port", str(port), "--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem")
    with RedisServer(tmp_path, *options, "--tls-auth-clients", "no"):
        url = f"rediss://127.0.0.1:{port}/0"
        async with open_redis(f"{url}?ssl_ca_certs={certificate}") as store:
            await save_one(store, BOB, "1", b"[1]")
            assert await load_all(store, BOB) == [b"[1]"]
        async with open_redis(url) as store:
            with pytest.raises(UnavailableError):
                await store.clock()


# -- what the server promises


@pytest.mark.parametrize(
    ("settings", "durability", "warning"),
    [
        ({}, "fsync", ""),
        ({"appendfsync": "everysec"}, "everysec", "appendfsync"),
        ({"appendfsync": "no"}, "os", "appendfsync"),
        ({"no-appendfsync-on-rewrite": "yes"}, "os", "set no-appendfsync-on-rewrite to no"),
        (
            {"appendfsync": "everysec", "no-appendfsync-on-rewrite": "yes"},
            "os",
            "set no-appendfsync-on-rewrite to no",
        ),
        ({"appendonly": "no"}, "none", "ANSWERED PUSHES ARE LOST"),
        ({"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}, "fsync", "MESSAGES ARE EVICTED"),
        ({"maxmemory": "100mb", "maxmemory-policy": "noeviction"}, "fsync", ""),
    ],
)
async def test_guarantee_follows_the_servers_settings(
    tmp_path: Path,
    settings: dict[str, str],
    durability: str,
    warning: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = [part for name, value in settings.items() for part in (f"--{name}", value)]
    with RedisServer(tmp_path, *options) as server:
        async with open_redis(server.url) as store:
            (guarantee,) = store.describe()

    assert guarantee.durability == durability
    assert guarantee.backend == "redis"
    assert str(server.port) in guarantee.location
    assert warning in guarantee.warning
    assert bool(guarantee.warning) == bool(warning)
    # Said loudly, and once.
    assert caplog.text.count(guarantee.warning or "no such text") == bool(warning)


@pytest.mark.parametrize(
    ("allowed", "settings", "durability", "warning"),
    [
        ("+info", {"appendonly": "no"}, "none", "ANSWERED PUSHES ARE LOST"),
        ("+info", {"appendonly": "yes"}, "unknown", "could not be read"),
        (
            "+info",
            {"maxmemory": "100mb", "maxmemory-policy": "volatile-ttl"},
            "unknown",
            "MESSAGES ARE EVICTED",
        ),
        ("-info", {}, "unknown", "could not be read"),
    ],
)
async def test_server_that_forbids_to_read_its_settings_promises_what_info_tells(
    tmp_path: Path, allowed: str, settings: dict[str, str], durability: str, warning: str
) -> None:
    options = [part for name, value in settings.items() for part in (f"--{name}", value)]
    with RedisServer(tmp_path, *options) as server:
        with redis.Redis.from_url(server.url) as client:
            client.execute_command(f"ACL SETUSER guest on >pw ~* +@all -config {allowed}")
        async with open_redis(server.url.replace("redis://", "redis://guest:pw@")) as store:
            await save_one(store, BOB, "1", b"[1]")
            (guarantee,) = store.describe()

    assert guarantee.durability == durability
    assert warning in guarantee.warning


async def test_server_that_comes_back_with_other_settings_is_told_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisServer(tmp_path) as server:
        async with open_redis(server.url) as store:
            with redis.Redis.from_url(server.url) as client:
                client.config_set("appendfsync", "everysec")
                client.client_kill_filter(_type="normal", skipme=True)
            await eventually(lambda: store.describe()[0].durability == "everysec")

    assert "set appendfsync to always" in caplog.text


async def test_server_that_is_away_at_the_start_promises_nothing() -> None:
    async with open_redis(f"redis://127.0.0.1:{free_port()}/0") as store:
        (guarantee,) = store.describe()

    assert guarantee.durability == "unknown"
    assert guarantee.warning


# -- data of others


async def test_messages_of_gopush_cluster_are_read_and_go_before_new_ones(
    plain_redis: RedisServer, client: redis.Redis
) -> None:
    old = 13_963_518_743_870_011
    client.zadd("bob", {older('{"n":1}'): old, older('"two"'): old + 7000})
    client.zadd("bob", {older("3", expire_s=-5): old + 9000})

    async with open_redis(plain_redis.url) as store:
        before = await store.load_after(BOB, Mid(0), 100, 1000)
        reply = await store.save(await batch_of(store, BOB, "1", b"[4]"))
        after = await store.load_after(BOB, before.messages[0].mid, 100, 1000)

    assert [message.payload for message in before.messages] == [b'{"n":1}', b'"two"']
    # Scores are doubles: an odd mid of that time is off by one.
    assert abs(before.messages[0].mid - old) <= 1
    assert reply.results[0].prev >= before.messages[1].mid
    assert [message.payload for message in after.messages] == [b'"two"', b"[4]"]


@pytest.mark.parametrize(("stored", "read"), OLDER_PAYLOADS)
async def test_messages_of_gopush_cluster_are_brought_to_the_canonical_form(
    plain_redis: RedisServer, client: redis.Redis, stored: bytes, read: bytes
) -> None:
    client.zadd("bob", {older(stored.decode()): 13_963_518_743_870_011})

    async with open_redis(plain_redis.url) as store:
        assert await load_all(store, BOB) == [read]


async def test_messages_of_gopush_cluster_count_towards_the_limits(
    plain_redis: RedisServer, client: redis.Redis
) -> None:
    client.zadd("bob", {older(str(n)): 13_963_518_743_870_000 + n * 80 for n in range(5)})
    store = make_store(plain_redis.url, limits=Limits(max_messages_per_key=3))
    await store.start()
    try:
        await save_one(store, BOB, "1", b"[1]")
        page = await store.load_after(BOB, Mid(0), 100, 1000)
        assert await store.delete_message(BOB, page.messages[0].mid)
        kept = await load_all(store, BOB)
        deleted = await store.delete_key(BOB)
    finally:
        await store.stop()

    assert [message.payload for message in page.messages] == [b"3", b"4", b"[1]"]
    assert page.trimmed > 0
    assert kept == [b"4", b"[1]"]
    assert deleted == 2


async def test_stored_messages_look_as_gopush_cluster_expects(
    plain_redis: RedisServer, client: redis.Redis
) -> None:
    async with open_redis(plain_redis.url) as store:
        saved = await save_one(store, BOB, "1", b'{"text":"\xc3\xa4"}')

    found: Any = client.zrange("bob", 0, -1, withscores=True)
    ((member, score),) = found
    value = json.loads(member)
    assert value["msg"] == {"text": "ä"}
    assert SOON_S - 5 < value["expire"] - time.time() <= SOON_S + 1
    assert int(score) == value["mid"] == saved.results[0].mid


async def test_no_key_of_a_subscriber_can_name_what_the_store_keeps_for_itself(
    plain_redis: RedisServer, client: redis.Redis
) -> None:
    async with open_redis(plain_redis.url) as store:
        await save_one(store, BOB, "1")
        await store.acknowledge(BOB, "phone", Mid(80))
        await store.fence("gone-1")

    names: Any = client.keys("*")
    assert {name for name in names if not name.startswith(b"\x01")} == {b"bob"}


async def test_everything_of_a_key_is_forgotten_in_time(
    plain_redis: RedisServer, client: redis.Redis
) -> None:
    async with open_redis(plain_redis.url) as store:
        await save_one(store, BOB, "1")
        await store.acknowledge(BOB, "phone", Mid(80))
        await store.fence("gone-1")

    lasting = {name for name in client.keys("*") if client.ttl(name) < 0}
    # One value, and the index that remove_expired() empties.
    assert lasting == {b"\x01clock", b"\x01expiry"}


@pytest.mark.parametrize(
    ("poison", "score"),
    [
        (b"not JSON", 1e15),
        (b'{"msg":{"n":\xff},"expire":99999999999}', 1e15),
        (b'{"msg":"\xff","expire":9999999999}', 1e15),
        (b'{"msg":{bad},"expire":9999999999}', 1e15),
        (b'{"msg":' + b"[" * 100_000 + b',"expire":9999999999}', 1e15),
        (b'{"expire":9999999999}', 1e15),
        (b'{"msg":1}', 1e15),
        (b'{"msg":1,"expire":"tomorrow"}', 1e15),
        (b'{"msg":1,"expire":1e999}', 1e15),
        (b'{"msg":1,"expire":99999999999999999999}', 1e15),
        (b'{"msg":1,"expire":9999999999,"mid":80}', float("inf")),
        (b'{"msg":1,"expire":9999999999}', -5),
        (b"", 0.5),
    ],
)
async def test_poison_is_left_out_counted_and_harms_no_other_message(
    plain_redis: RedisServer,
    client: redis.Redis,
    poison: bytes,
    score: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stats = Stats()
    client.zadd("bob", {poison: score})
    store = make_store(plain_redis.url, stats, limits=Limits(max_messages_per_key=3))
    await store.start()
    try:
        for n in range(3):
            await save_one(store, BOB, str(n), b"[%d]" % n)
        stored = await load_all(store, BOB)
        inspected = await store.inspect(BOB)
        client.zadd("bob", {poison: score})
        again = await load_all(store, BOB)
        await store.delete_key(BOB)
        empty = await load_all(store, BOB)
    finally:
        await store.stop()

    assert stored[-2:] == again[-2:] == [b"[1]", b"[2]"]
    assert inspected.messages == len(stored)
    assert empty == []
    assert poison not in caplog.text.encode() or not poison


async def test_poison_is_counted_and_logged(
    plain_redis: RedisServer, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    stats = Stats()
    async with open_redis(plain_redis.url, stats) as store:
        await save_one(store, BOB, "1", b"[1]")
        client.zadd("bob", {"not JSON": 1e15, '{"msg":{,"expire":9999999999}': 2e15})

        assert await load_all(store, BOB) == [b"[1]"]

    (family,) = [one for one in stats.snapshot() if one.name == "store_unreadable_total"]
    assert family.readings[""] == 2
    assert caplog.text.count("no messages: key=bob") == 1


async def test_key_of_another_type_fails_alone(plain_redis: RedisServer, client: redis.Redis) -> None:
    client.set("bob", "a text")
    async with open_redis(plain_redis.url) as store:
        with pytest.raises(StorageError):
            await store.save(await batch_of(store, BOB, "1"))
        with pytest.raises(StorageError):
            await load_all(store, BOB)
        await save_one(store, Key("alice"), "1", b"[1]")

        assert await load_all(store, Key("alice")) == [b"[1]"]
    assert client.get("bob") == b"a text"


async def test_key_that_became_another_type_does_not_stop_the_expiry_of_others(
    plain_redis: RedisServer, client: redis.Redis
) -> None:
    async with open_redis(plain_redis.url) as store:
        await save_one(store, BOB, "1")
        await save_one(store, Key("alice"), "2")
        client.delete("bob")
        client.set("bob", "a text")
        long_ago = dict.fromkeys(client.zrange("\x01expiry", 0, -1), 1)
        client.zadd("\x01expiry", long_ago)

        assert await store.remove_expired(10) == 2
        assert await store.remove_expired(10) == 0
        assert await load_all(store, Key("alice")) == []
    assert client.get("bob") == b"a text"


async def test_state_that_was_lost_or_damaged_is_made_again(
    plain_redis: RedisServer, client: redis.Redis
) -> None:
    async with open_redis(plain_redis.url) as store:
        first = await save_one(store, BOB, "1", b"[1]")
        client.set("\x01sbob", "nonsense")
        reply = await store.save(await batch_of(store, BOB, "2", b"[2]"))
        client.delete("\x01sbob")
        last = await store.save(await batch_of(store, BOB, "3", b"[3]"))

        assert reply.results[0].prev == first.results[0].mid
        assert last.results[0].prev == reply.results[0].mid
        assert await load_all(store, BOB) == [b"[1]", b"[2]", b"[3]"]
