"""`encke serve --workers`: one server to all who use it, several processes to who looks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from encke.announcing import Room, Storing, read_line
from message.storage.embedded.file import FILE_NAME
from tests.support.cluster import owned_by
from tests.support.cluster_run import ClusterRun
from tests.support.command import run_encke
from tests.support.eventually import eventually, eventually_told
from tests.support.http import HttpClient
from tests.support.subscriber import Subscriber, subscribe_websocket
from tests.support.system import Server, running
from tests.support.workers import WorkerCluster, is_alive, serve_workers, worker_addresses, worker_pids

COMETS = ("comet-1-0", "comet-1-1")
# Two keys of each comet node.
KEYS = [key for name in COMETS for key in owned_by(COMETS, name, 2)]
ALL = {*COMETS, "message-1", "web-1"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for all tests that break nothing."""
    with running(serve_workers(tmp_path_factory.mktemp("server"), len(COMETS))) as started:
        yield started


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    started = serve_workers(tmp_path, len(COMETS))
    await asyncio.to_thread(started.start)
    yield started
    started.kill()


async def is_whole(server: Server) -> bool:
    """Whether every worker serves."""
    response = await server.ask("status", "GET", "/metrics")
    return f"encke_workers_ready {len(ALL)}" in response.body.decode()


async def wait_whole(server: Server, *, but: int) -> None:
    """Until every worker serves, and none in the process that was killed."""

    async def is_back() -> bool:
        # All processes first: of one that is killed the supervisor need not have heard yet.
        pids = worker_pids(server)
        return set(pids) == ALL and but not in pids.values() and await is_whole(server)

    await eventually_told(is_back)


async def test_it_says_what_one_process_would_say_and_where_each_worker_is(whole: Server) -> None:
    said = whole.output
    assert said[-1] == "ready"
    assert sum(line.startswith("listening public ") for line in said) == 1
    assert sum(line.startswith("listening admin ") for line in said) == 1
    assert any(isinstance(read_line(line), Storing) for line in said)
    (room,) = (line.subscribers for line in map(read_line, said) if isinstance(line, Room))
    of_workers = [read_line(text.partition(": ")[2]) for text in said]
    shares = [line.subscribers for line in of_workers if isinstance(line, Room)]
    assert len(shares) == len(COMETS)
    assert room == sum(shares) > 0
    assert any(" sub alice" in line for line in said)
    assert set(worker_pids(whole)) == ALL
    addresses = worker_addresses(whole)
    assert all({"ws", "tcp", "status"} == set(addresses[name]) for name in COMETS)
    ready = await whole.ask("status", "GET", "/readyz")
    assert (ready.status, ready.body.splitlines()[1]) == (200, b"encke serve")


async def test_each_worker_has_keys_and_a_push_reaches_those_of_all(whole: Server) -> None:
    cluster = WorkerCluster(whole)
    for key in KEYS:
        await cluster.wait_owner(key, next(name for name in COMETS if key in owned_by(COMETS, name, 2)))
    for key in KEYS[::2]:
        await encke("push", key, '{"n": 1}', "--expire", "60", url_of(whole, "admin"))
        said = await encke("sub", key, "--resume", "0", "--count", "1", url_of(whole, "public"))
        assert said.endswith('{"n":1}\n')
    listed = await encke("nodes", url_of(whole, "admin"))
    assert all(name in listed for name in ALL)


def url_of(server: Server, kind: str) -> str:
    return f"--url=http://127.0.0.1:{server.addresses[kind][1]}"


async def encke(*words: str) -> str:
    """Run the command; return its output."""
    done = await asyncio.to_thread(run_encke, *words)
    assert done.returncode == 0, done
    return done.stdout


async def test_the_listing_of_nodes_shows_every_worker(whole: Server) -> None:
    response = await whole.ask("admin", "GET", "/2/admin/nodes")
    nodes = response.json["nodes"]
    assert {node["name"] for node in nodes} == ALL
    assert {node["state"] for node in nodes} == {"serving"}


async def test_pushes_between_workers_have_ids_because_answers_can_be_lost(whole: Server) -> None:
    assert await whole.push("with-id", 1, expire_s=600) == 0
    with contextlib.closing(sqlite3.connect(whole.data_dir / FILE_NAME)) as shell:
        ids = "SELECT count(push_id) FROM ids JOIN keys ON keys.id = ids.key_id WHERE key = 'with-id'"
        assert shell.execute(ids).fetchone() == (1,)


@pytest.mark.parametrize("name", ["comet-1-1", "message-1", "web-1"])
async def test_a_killed_worker_comes_back_by_itself_and_nobody_misses_anything(
    server: Server, name: str
) -> None:
    cluster = WorkerCluster(server)
    run = ClusterRun(cluster, KEYS, seed=1)
    before = worker_addresses(server)[name] if name != "web-1" else {"public": server.addresses["public"]}
    async with run.under_way(), run.fault():
        pid = worker_pids(server)[name]
        os.kill(pid, signal.SIGKILL)
        await wait_whole(server, but=pid)
        if name in COMETS:
            await run.wait_served_by(name, keys=owned_by(COMETS, name, 2))
    # Where it was: who was told of it still knows it.
    assert worker_addresses(server)[name].items() >= before.items()
    metrics = (await server.ask("status", "GET", "/metrics")).body.decode()
    assert f'encke_worker_restarts_total{{worker="{name}"}} 1' in metrics
    assert server.stop() == 0


async def test_a_worker_that_hangs_is_killed_and_comes_back(tmp_path: Path) -> None:
    server = serve_workers(tmp_path, len(COMETS), config="[process]\nworker_silence_s = 3.0\n")
    await asyncio.to_thread(server.start)
    try:
        pids = worker_pids(server)
        os.kill(pids["comet-1-1"], signal.SIGSTOP)
        await wait_whole(server, but=pids["comet-1-1"])
        assert "node=comet-1-1 reason='no sign of life for 3 s, killed'" in server.log
        assert await server.push(KEYS[-1], 1, expire_s=600) == 0
    finally:
        server.kill()


async def test_told_to_stop_it_closes_subscribers_in_order_and_leaves_no_process(server: Server) -> None:
    pids = worker_pids(server).values()
    async with subscribed(server) as subscriber:
        server.terminate()
        end = await subscriber.end()
        assert end.code == 1001
    assert await asyncio.to_thread(server.wait) == 0
    assert not any(map(is_alive, pids))
    assert "Traceback" not in server.log
    assert "ERROR" not in server.log


async def test_told_to_stop_while_pushes_are_under_way_it_loses_and_repeats_nothing(server: Server) -> None:
    cluster = WorkerCluster(server)
    run = ClusterRun(cluster, KEYS, seed=3)
    async with run.under_way(), run.fault():
        pids = worker_pids(server).values()
        assert await asyncio.to_thread(server.stop) == 0
        assert not any(map(is_alive, pids))
        await eventually(lambda: all(reader.ends for reader in run.readers))
        # Nobody else has the keys: they are back when it is, at any free ports.
        server.addresses = {kind: server.addresses[kind] for kind in ("public", "admin")}
        await asyncio.to_thread(server.start)
        await run.wait_served_by(*COMETS)
    assert {reader.ends[0].code for reader in run.readers} == {1001}
    assert not any(reader.gaps for reader in run.readers)
    assert "ERROR" not in server.log


async def test_told_to_stop_all_serve_on_for_the_delay_and_none_is_ready(tmp_path: Path) -> None:
    server = serve_workers(tmp_path, 1, config="[process]\ndrain_delay_s = 5\n")
    await asyncio.to_thread(server.start)
    try:
        ports = [HttpClient(listens["status"]) for listens in worker_addresses(server).values()]
        ports.append(server.http("status"))
        server.terminate()
        for port in ports:
            await eventually_told(lambda port=port: is_draining(port))
        async with subscribed(server) as subscriber:
            assert await server.push(KEYS[0], {"n": 1}) == 0
            assert (await subscriber.next_document()).value["msg"] == {"n": 1}
            assert "draining for at most" not in server.log
            assert (await subscriber.end()).code == 1001
        assert await asyncio.to_thread(server.wait) == 0
        # Once, not in each process again.
        assert server.log.count("serving on for") == 1
        assert "ERROR" not in server.log
    finally:
        server.kill()


async def test_worker_that_is_started_again_during_the_delay_is_not_ready(tmp_path: Path) -> None:
    server = serve_workers(tmp_path, 1, config="[process]\ndrain_delay_s = 3600\n")
    await asyncio.to_thread(server.start)
    try:
        server.terminate()
        port = HttpClient(worker_addresses(server)["comet-1-0"]["status"])
        await eventually_told(lambda: is_draining(port))
        pid = worker_pids(server)["comet-1-0"]
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: worker_pids(server).get("comet-1-0", pid) != pid)
        await eventually_told(lambda: is_draining(port))
        assert await asyncio.to_thread(server.stop) == 128 + signal.SIGTERM
    finally:
        server.kill()


async def is_draining(port: HttpClient) -> bool:
    """Whether a status port says so; one that is not there does not."""
    try:
        response = await port.request("GET", "/readyz")
    except OSError:
        return False
    finally:
        await port.close()
    return response.status == 503 and response.body.startswith(b"draining\n")


async def test_workers_end_with_a_supervisor_that_was_killed_and_the_next_one_starts(
    server: Server,
) -> None:
    assert await server.push(KEYS[0], {"n": 1}, 600) == 0
    pids = list(worker_pids(server).values())
    server.kill()
    await eventually(lambda: not any(map(is_alive, pids)))
    server.addresses = {}
    await asyncio.to_thread(server.start)
    assert [message["msg"] for message in await server.fetch(KEYS[0])] == [{"n": 1}]
    assert server.stop() == 0


async def test_workers_that_still_drain_do_not_stumble_over_the_end_of_their_supervisor(
    tmp_path: Path,
) -> None:
    # Several signs of life fall into the time for which the subscriber is waited for.
    config = "[process]\nworker_silence_s = 4.0\n[comet]\nlinger_s = 2.0\n"
    server = serve_workers(tmp_path, 1, config=config)
    await asyncio.to_thread(server.start)
    pids = worker_pids(server).values()
    async with subscribed(server):
        server.kill()
        await eventually(lambda: not any(map(is_alive, pids)))
    assert "the supervisor is gone" in server.log
    assert "BrokenPipeError" not in server.log


async def test_workers_are_started_again_when_there_are_descriptors_again(server: Server) -> None:
    pid = worker_pids(server)["web-1"]
    before = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    # None is left, however few are open.
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (4, before[1]))
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: "reason='[Errno 24]" in server.log)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, before)
    await wait_whole(server, but=pid)
    assert server.stop() == 0


async def test_a_second_signal_ends_all_at_once(server: Server) -> None:
    pids = list(worker_pids(server).values())
    async with subscribed(server):
        # A worker that does not move keeps the supervisor waiting.
        frozen = worker_pids(server)["web-1"]
        os.kill(frozen, signal.SIGSTOP)
        try:
            server.terminate()
            await eventually(lambda: "draining" in server.log)
            server.terminate()
            assert await asyncio.to_thread(server.wait) == 128 + signal.SIGTERM
        finally:
            os.kill(frozen, signal.SIGCONT)
    await eventually(lambda: not any(map(is_alive, pids)))


@contextlib.asynccontextmanager
async def subscribed(server: Server) -> AsyncIterator[Subscriber]:
    """A subscriber of the first key, at its worker."""
    address = await WorkerCluster(server).locate(KEYS[0], "ws")
    assert address is not None
    subscriber = await subscribe_websocket(address, KEYS[0], version="2")
    try:
        await subscriber.open()
        yield subscriber
    finally:
        await subscriber.close()


async def test_a_worker_that_hangs_at_the_end_is_killed_and_told_of(tmp_path: Path) -> None:
    server = serve_workers(tmp_path, 1, config="[process]\ndrain_s = 1.0\n")
    await asyncio.to_thread(server.start)
    pids = worker_pids(server)
    os.kill(pids["comet-1-0"], signal.SIGSTOP)
    assert await asyncio.to_thread(server.stop) == 1
    assert not any(map(is_alive, pids.values()))
    assert "killed: node=comet-1-0" in server.log
