"""The nodes of one process, in the test's own loop: the order of their lives and what is said about it."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from cluster.config import Override, load
from cluster.service import ServiceTasks
from cluster.stats import Stats
from comet.config import CometConfig
from encke.config import EnckeConfig, ServeConfig
from encke.standalone import Standalone, advertised
from message.storage.embedded.file import FILE_NAME
from message.storage.embedded.store import EmbeddedStore
from tests.support.eventually import eventually
from tests.support.http import HttpClient, Response
from tests.support.peer import Address
from tests.support.servers import RedisServer
from tests.support.subscriber import End, subscribe_tcp

BINDS = {
    "comet": ("ws_bind", "tcp_bind"),
    "web": ("public_bind", "admin_bind"),
    "serve": ("status_bind",),
}


@pytest.fixture(autouse=True)
def _descriptor_limit() -> Iterator[None]:
    """The application raises it for the whole process."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def config(data_dir: Path, **changed: str) -> EnckeConfig:
    """Free loopback ports; `changed` is table__key = text."""
    texts = {f"{table}__{key}": "127.0.0.1:0" for table, keys in BINDS.items() for key in keys}
    texts |= {"message__data_dir": str(data_dir), **changed}
    overrides = []
    for place, text in texts.items():
        table, _, key = place.partition("__")
        overrides.append(Override(place, table, key, text))
    return load(EnckeConfig, None, {}, overrides)


class Running:
    """A standalone application and what it has said."""

    def __init__(self, settings: EnckeConfig) -> None:
        self.said: list[str] = []
        self.stats = Stats()
        self.standalone = Standalone(settings, self.stats, self.said.append)

    def address(self, kind: str) -> Address:
        (line,) = (line for line in self.said if line.startswith(f"listening {kind} "))
        host, _, port = line.rpartition(" ")[2].rpartition(":")
        return host, int(port)

    async def ask_readiness(self) -> Response:
        client = HttpClient(self.address("status"))
        try:
            return await client.request("GET", "/readyz")
        finally:
            await client.close()


@asynccontextmanager
async def running(settings: EnckeConfig) -> AsyncIterator[Running]:
    """Start and stop it, as cluster/service.py does."""
    app = Running(settings)
    async with asyncio.TaskGroup() as group:
        tasks = ServiceTasks(group, asyncio.Event())
        try:
            await app.standalone.start(tasks)
            yield app
        finally:
            await app.standalone.stop()
            tasks.cancel()


async def test_listeners_are_announced_then_an_example_and_ready_at_the_end(tmp_path: Path) -> None:
    async with running(config(tmp_path)) as app:
        assert [line.split()[1] for line in app.said if line.startswith("listening")] == [
            "ws",
            "tcp",
            "public",
            "admin",
            "status",
        ]
        public, admin = app.address("public"), app.address("admin")
        assert f"  encke sub alice --url http://127.0.0.1:{public[1]}" in app.said
        assert f'  encke push alice \'{{"text": "hello"}}\' --url http://127.0.0.1:{admin[1]}' in app.said
        assert any(line.startswith("storing under ") and str(tmp_path) in line for line in app.said)
        assert app.said[-1] == "ready"
        assert (await app.ask_readiness()).status == 200


async def test_example_tells_what_is_needed_where_secrets_are_configured(tmp_path: Path) -> None:
    settings = config(tmp_path, auth__secrets="s3cret", web__admin_token="letmein-letmein-letmein")
    async with running(settings) as app:
        assert any("--token $(encke token alice)" in line for line in app.said)
        assert any("--admin-token TOKEN" in line for line in app.said)
        assert not any("s3cret" in line or "letmein" in line for line in app.said)


async def test_drain_says_so_lets_requests_finish_and_closes_subscribers(tmp_path: Path) -> None:
    async with running(config(tmp_path)) as app:
        subscriber = await subscribe_tcp(app.address("tcp"), "bob", version="2")
        await subscriber.open()
        app.standalone.announce_drain()
        drain = asyncio.ensure_future(app.standalone.drain(4.0))
        answer = await app.ask_readiness()
        assert answer.status == 503
        assert b"draining" in answer.body
        assert await subscriber.end() == End(1001, "going away")
        await subscriber.close()
        async with asyncio.timeout(5):
            await drain


async def push_stored(app: Running, key: str) -> None:
    """Push by the compatible API, which knows no ids."""
    admin = HttpClient(app.address("admin"))
    answer = await admin.request("POST", f"/1/admin/push/private?key={key}&expire=600", b"1")
    assert answer.json == {"ret": 0}
    await admin.close()


async def test_embedded_store_is_not_given_ids_that_nobody_would_repeat(tmp_path: Path) -> None:
    async with running(config(tmp_path)) as app:
        await push_stored(app, "bob")
        admin = HttpClient(app.address("admin"))
        body = b'{"key": "bob", "msg": 2, "expire": 600, "id": "mine"}'
        assert (await admin.request("POST", "/2/admin/push", body)).status == 200
        await admin.close()
    with sqlite3.connect(tmp_path / FILE_NAME) as shell:
        assert shell.execute("SELECT count(*) FROM messages").fetchone() == (2,)
        assert shell.execute("SELECT push_id FROM ids").fetchall() == [("mine",)]
    shell.close()


async def test_store_whose_answers_can_be_lost_is_given_ids(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as redis:
        settings = config(tmp_path, message__store="redis", redis__servers=redis.url)
        async with running(settings) as app:
            await push_stored(app, "bob")
        async with Redis.from_url(redis.url) as client:
            assert len(await client.keys("\x01ibob\x01?*")) == 1


async def test_pushes_in_progress_at_the_end_of_a_drain_are_answered(tmp_path: Path) -> None:
    going_on = threading.Event()
    async with running(config(tmp_path)) as app:
        store = app.standalone._store
        assert isinstance(store, EmbeddedStore)
        admin = HttpClient(app.address("admin"))
        standing = store._change(None, lambda connection: going_on.wait(), leaves_keys=True)
        push = asyncio.create_task(admin.request("POST", "/1/admin/push/private?key=bob&expire=600", b"1"))
        comet = app.standalone._comet
        assert comet is not None
        await eventually(lambda: comet._keys.pusher.busy_key_count)
        await app.standalone.drain(0.2)
        stop = asyncio.create_task(app.standalone.stop())
        try:
            # In doubt: the store will have it.
            assert (await push).json["ret"] == 65535
        finally:
            going_on.set()
            await asyncio.gather(standing, stop)
            await admin.close()


async def test_port_in_use_fails_the_start_and_what_was_started_is_released(tmp_path: Path) -> None:
    async with running(config(tmp_path / "first")) as app:
        host, port = app.address("admin")
        settings = config(tmp_path / "second", web__admin_bind=f"{host}:{port}")
        with pytest.raises(BaseExceptionGroup) as failed:
            async with running(settings):
                pass
        assert failed.group_contains(OSError)
        # Its directory is free again.
        async with running(config(tmp_path / "second")) as again:
            assert again.said[-1] == "ready"


async def test_application_that_was_never_started_can_be_drained_and_stopped(tmp_path: Path) -> None:
    standalone = Standalone(config(tmp_path), Stats(), print)
    assert standalone._ready_fault() == "starting"
    await standalone.drain(1.0)
    await standalone.stop()


@pytest.mark.parametrize(
    ("host", "settings", "told"),
    [
        ("", {}, ("", "")),
        ("push.example.org", {}, ("push.example.org:6968", "push.example.org:6969")),
        ("2001:db8::1", {}, ("[2001:db8::1]:6968", "[2001:db8::1]:6969")),
        ("h", {"ws_bind": ":0"}, ("h:0", "h:6969")),
        ("h", {"tcp_advertise": "other:1"}, ("h:6968", "other:1")),
        ("h", {"ws_bind": ""}, ("", "h:6969")),
    ],
)
def test_advertised_host_fills_in_what_comet_does_not_advertise_itself(
    host: str, settings: dict[str, str], told: tuple[str, str]
) -> None:
    comet = advertised(CometConfig(**settings), ServeConfig(advertise_host=host))  # type: ignore[arg-type]
    assert (comet.ws_advertise, comet.tcp_advertise) == told
