"""A server that fails while its store is open: since when and why, told by every store in one way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest

from cluster.contracts.message import Away, Guarantee
from cluster.errors import EnckeError
from cluster.stats import Stats
from message.storage.base import MessageStore
from message.storage.build import build_mysql_store, build_redis_store
from message.storage.embedded.file import FILE_NAME
from message.storage.embedded.store import EmbeddedStore
from message.storage.guarantees import one_line
from message.storage.mysql.config import MysqlSettings
from message.storage.outage import Outage, Refusals
from message.storage.redis.config import RedisSettings
from tests.message.storage import mysql_stores, redis_stores
from tests.message.storage.embedded.test_disk import files_limited_to
from tests.message.storage.mysql_stores import DATABASE
from tests.message.storage.saving import BOB, batch_of, save_one, until_saved
from tests.message.storage.stores import limits_with, opened
from tests.support.eventually import eventually, eventually_told
from tests.support.servers import MariaServer, RedisServer
from tests.support.stats import counted

# The search for expired messages asks each server so often.
LIMITS = limits_with(expiry_interval_s=0.05)

PROMISE = Guarantee("redis", "redis://h:6379/0", "fsync", "much survives")


def test_outage_lasts_from_the_first_failure_and_tells_the_last_one() -> None:
    now = 100.0
    outage = Outage(lambda: now)
    assert (outage.reason, outage.mark(PROMISE)) == ("", PROMISE)

    assert outage.begin("refused")
    now = 134.25
    assert not outage.begin("no route")

    assert outage.reason == "no route"
    marked = outage.mark(PROMISE)
    assert marked == msgspec.structs.replace(PROMISE, away=Away(34.25, "no route"))
    assert one_line(marked) == "store redis://h:6379/0: away for 34 s: no route"
    assert outage.end()
    assert not outage.end()
    assert outage.mark(PROMISE) == PROMISE


def test_one_refusal_is_told_in_a_minute_as_an_error(caplog: pytest.LogCaptureFixture) -> None:
    now = 5.0
    refusals = Refusals("redis", "redis://h:6379/0", lambda: now)

    refusals.tell("OOM")
    now += 59.0
    refusals.tell("MISCONF")
    now += 1.0
    refusals.tell("READONLY")

    told = [(record.levelname, record.getMessage().rpartition("reason=")[2]) for record in caplog.records]
    assert told == [("ERROR", "OOM"), ("ERROR", "READONLY")]


# -- the stores


@dataclass(frozen=True)
class Backend:
    """A store that is not open yet, and the way to break what is behind it."""

    store: MessageStore
    stats: Stats
    broken: Callable[[], AbstractContextManager[None]]
    # A word of the reason.
    reason: str


@contextmanager
def killed(server: RedisServer | MariaServer) -> Iterator[None]:
    server.kill()
    try:
        yield
    finally:
        server.start()


def embedded(directory: Path) -> Backend:
    log = directory / f"{FILE_NAME}-wal"
    stats = Stats()
    settings = replace(LIMITS, data_dir=str(directory))
    return Backend(
        EmbeddedStore(settings, stats), stats, lambda: files_limited_to(log.stat().st_size), "disk full"
    )


def redis(server: RedisServer) -> Backend:
    redis_stores.make_empty(server)
    stats = Stats()
    settings = RedisSettings(servers=(server.url,), retry_s=0.02)
    store = build_redis_store(settings, LIMITS, stats)
    return Backend(store, stats, lambda: killed(server), "refused")


def mysql(server: MariaServer) -> Backend:
    mysql_stores.make_empty(server)
    stats = Stats()
    settings = MysqlSettings(servers=(server.url(DATABASE),), retry_s=0.02)
    store = build_mysql_store(settings, LIMITS, stats)
    return Backend(store, stats, lambda: killed(server), "refused")


@pytest.fixture(params=["embedded", "redis", "mysql"])
async def backend(
    request: pytest.FixtureRequest, tmp_path: Path, plain_redis: RedisServer, plain_mariadb: MariaServer
) -> AsyncIterator[Backend]:
    makers: dict[str, Callable[[], Backend]] = {
        "embedded": lambda: embedded(tmp_path),
        "redis": lambda: redis(plain_redis),
        "mysql": lambda: mysql(plain_mariadb),
    }
    backend = makers[request.param]()
    async with opened(backend.store):
        yield backend


async def test_server_that_fails_is_away_until_it_takes_saves_again(backend: Backend) -> None:
    store = backend.store
    await save_one(store, BOB, "1")
    (promised,) = store.describe()
    batch = await batch_of(store, BOB, "2", b'"' + b"x" * 50_000 + b'"')

    async def seen_away() -> Guarantee | None:
        with pytest.raises(EnckeError):
            await store.save(batch)
        (guarantee,) = store.describe()
        return guarantee if guarantee.away else None

    with backend.broken():
        first = await eventually_told(seen_away)
        seen = counted(backend.stats, "store_servers_away")
        later = await eventually_told(seen_away)
    await until_saved(store, batch)

    assert promised.away is None
    assert first.away is not None
    assert later.away is not None
    assert backend.reason in later.away.reason
    assert 0 <= first.away.for_s <= later.away.for_s
    assert seen == 1
    assert store.describe() == [promised]
    assert counted(backend.stats, "store_servers_away") == 0


@pytest.mark.parametrize("backend", ["redis", "mysql"], indirect=True)
async def test_server_that_fails_is_found_away_and_back_when_nobody_pushes(backend: Backend) -> None:
    with backend.broken():
        await eventually(lambda: counted(backend.stats, "store_servers_away") == 1)
    await eventually(lambda: counted(backend.stats, "store_servers_away") == 0)
