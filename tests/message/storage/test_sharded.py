"""Several store servers as one: who holds what, and what one that is away means for the others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from cluster.contracts.message import SaveBatch, SaveItem
from cluster.errors import ConfigError, EnckeError, UnavailableError
from cluster.mids import TICKS_PER_SECOND
from cluster.model import Key, Mid
from cluster.stats import Stats
from cluster.storering import StoreRing
from message.storage.build import build_mysql_store, build_redis_store
from message.storage.counters import StoreCounters
from message.storage.embedded.config import EmbeddedSettings
from message.storage.mysql.config import MysqlSettings
from message.storage.redis.config import RedisSettings
from message.storage.redis.store import RedisStore
from message.storage.servers import REDIS_SCHEMES, read_server_url
from message.storage.sharded import FENCED_S, ShardedStore
from tests.message.storage.saving import BOB, save_one
from tests.message.storage.sharded_stores import open_sharded
from tests.message.storage.stores import limits_with, opened
from tests.support.eventually import DEADLINE_S
from tests.support.servers import RedisServer


@pytest.fixture
def fast_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server whose clock is an hour ahead."""
    server = RedisServer(tmp_path_factory.mktemp("fast-redis"), has_own_time=True)
    server.clock.set("+1h")
    with server:
        yield server


@pytest.fixture
def second_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that a test may kill."""
    with RedisServer(tmp_path_factory.mktemp("second-redis")) as server:
        yield server


def test_keys_stay_where_earlier_versions_have_stored_them() -> None:
    settings = RedisSettings(
        servers=("redis://a:6379/0", "redis://:secret@b:6379/0?weight=2", "unix:///run/redis.sock?db=3")
    )
    store = build_redis_store(settings, EmbeddedSettings(), Stats())

    places = {key: store.server_of(Key(key)) for key in ("bob", "alice", "carol", "dave", "ключ")}

    assert places == {
        "bob": "unix:///run/redis.sock?db=3",
        "alice": "redis://b:6379/0",
        "carol": "redis://b:6379/0",
        "dave": "unix:///run/redis.sock?db=3",
        "ключ": "redis://b:6379/0",
    }


def test_keys_are_spread_by_weight() -> None:
    settings = RedisSettings(servers=("redis://a:1/0", "redis://b:1/0?weight=3"))
    store = build_redis_store(settings, EmbeddedSettings(), Stats())

    on_b = sum(store.server_of(Key(f"user:{n}")) == "redis://b:1/0" for n in range(4000))

    assert 2700 < on_b < 3300


def test_name_of_a_server_holds_no_secret_and_no_weight() -> None:
    server = read_server_url("redis://user:secret@host:6379/2?weight=3", ("redis",))

    assert server.name == "redis://host:6379/2"
    assert server.weight == 3
    assert server.url == "redis://user:secret@host:6379/2"


def test_all_faults_of_the_servers_are_told_without_secrets() -> None:
    settings = RedisSettings(
        servers=(
            "http://x",
            "redis://:secret@h:1/0",
            "redis://h:1/0",
            "redis://h:2/0?weight=0",
            "redis://h:x",
        )
    )

    faults = [text for _, text in settings.faults()]

    assert len(faults) == 4
    assert "secret" not in str(faults)
    with pytest.raises(ConfigError):
        build_redis_store(settings, EmbeddedSettings(), Stats())
    with pytest.raises(ConfigError, match="no database"):
        build_mysql_store(MysqlSettings(servers=("mysql://h",)), EmbeddedSettings(), Stats())


async def test_server_that_is_away_fails_its_own_keys_only(
    plain_redis: RedisServer, second_redis: RedisServer
) -> None:
    async with open_sharded(plain_redis.url, second_redis.url) as store:
        keys = [Key(f"user:{n}") for n in range(40)]
        theirs = {key for key in keys if store.server_of(key) == second_redis.url}
        second_redis.kill()

        failed = {key for key in keys if not await _is_saved(store, key)}
        clock = await store.clock()
        with pytest.raises(UnavailableError):
            await store.fence("gone-1")
        is_fenced = await store.is_fenced("gone-1")
        second_redis.start()
        # It comes back by itself, for the first save after the pause or for one soon after.
        while not await _is_saved(store, next(iter(theirs))):
            pass

        assert failed == theirs
        assert 0 < len(theirs) < len(keys)
        assert clock > 0
        assert is_fenced


async def test_each_server_counts_what_it_has_saved_itself(
    plain_redis: RedisServer, second_redis: RedisServer
) -> None:
    counters = StoreCounters(Stats())

    def store_at(server: RedisServer) -> RedisStore:
        url = read_server_url(f"redis://127.0.0.1:{server.port}/0", REDIS_SCHEMES)
        return RedisStore(url, RedisSettings(), limits_with(), counters)

    async with opened(store_at(plain_redis)) as first, opened(store_at(second_redis)) as second:
        await save_one(first, BOB, "push")
    assert (first.saved, second.saved, counters.saved.value) == (1, 0, 1)


async def test_a_silent_server_does_not_keep_the_others_from_telling_who_is_fenced(
    plain_redis: RedisServer, second_redis: RedisServer
) -> None:
    async with open_sharded(plain_redis.url, second_redis.url, timeout_s=60.0) as store:
        await store.fence("gone-1")
        second_redis.freeze()
        try:
            async with asyncio.timeout(DEADLINE_S):
                answers = [await store.is_fenced(name) for name in ("gone-1", "here-1")]
        finally:
            second_redis.thaw()

    assert answers == [True, False]


async def test_the_first_server_that_tells_is_waited_for(
    plain_redis: RedisServer, second_redis: RedisServer
) -> None:
    async with open_sharded(plain_redis.url, second_redis.url, timeout_s=60.0) as store:
        await store.fence("gone-1")
        plain_redis.freeze()
        second_redis.freeze()
        # When those who have not told are not waited for any more.
        asyncio.get_running_loop().call_later(2 * FENCED_S, plain_redis.thaw)
        try:
            async with asyncio.timeout(DEADLINE_S):
                answers = await asyncio.gather(store.is_fenced("gone-1"), store.is_fenced("here-1"))
        finally:
            plain_redis.thaw()
            second_redis.thaw()

    assert answers == [True, False]


async def test_store_starts_while_a_server_is_away_and_tells_what_each_promises(
    plain_redis: RedisServer, second_redis: RedisServer
) -> None:
    second_redis.kill()

    async with open_sharded(plain_redis.url, second_redis.url) as store:
        first, second = store.describe()

        assert (first.location, first.durability, first.warning) == (plain_redis.url, "fsync", "")
        assert (second.location, second.durability) == (second_redis.url, "unknown")
        assert "not reached" in second.warning
        assert store.start_fault() is None
        assert any([await _is_saved(store, Key(f"user:{n}")) for n in range(20)])


async def test_store_of_which_no_server_has_answered_says_why_of_each(
    second_redis: RedisServer,
) -> None:
    second_redis.kill()
    urls = second_redis.url, f"{second_redis.url[:-1]}1"

    async with open_sharded(*urls) as store:
        fault = store.start_fault() or ""

    assert all(url in fault for url in urls)
    assert fault.count("refused") == 2


async def test_each_server_has_its_clock_and_the_lowest_counts_for_the_whole(
    plain_redis: RedisServer, fast_redis: RedisServer
) -> None:
    async with open_sharded(plain_redis.url, f"{fast_redis.url}?weight=3") as store:
        slow, fast = await store.clocks()
        lowest = await store.clock()
        fast_redis.freeze()
        try:
            known = (await store.clocks())[1]
        finally:
            fast_redis.thaw()

        assert [(slow.name, slow.weight), (fast.name, fast.weight)] == [
            (plain_redis.url, 1),
            (fast_redis.url, 3),
        ]
        assert fast.clock - slow.clock > 3000 * TICKS_PER_SECOND
        assert slow.clock <= lowest < fast.clock
        # What a silent server said last goes on.
        assert known.name == fast_redis.url
        assert fast.clock < known.clock < fast.clock + 60 * TICKS_PER_SECOND
        # Comet nodes find the server of a key by the names and weights.
        ring = StoreRing({slow.name: slow.weight, fast.name: fast.weight})
        keys = [Key(f"user:{n}") for n in range(40)]
        assert [ring.server_of(key) for key in keys] == [store.server_of(key) for key in keys]


async def _is_saved(store: ShardedStore, key: Key) -> bool:
    deadline = Mid(await store.clock() + 30 * TICKS_PER_SECOND)
    try:
        await store.save(SaveBatch(key, [SaveItem(f"id-{deadline}", b"{}", 60)], Mid(0), deadline))
    except EnckeError:
        return False
    return True
