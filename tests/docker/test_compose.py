"""compose.yaml: a cluster, started as it says."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.conftest import DOCKER
from tests.support.cluster import owned_by
from tests.support.compose import Compose, read_compose, seconds
from tests.support.containers import Image
from tests.support.http import HttpClient, Response
from tests.support.project import Project, started
from tests.support.subscriber import subscribe_tcp, subscribe_websocket

TEXT = (DOCKER / "compose.yaml").read_text()
COMETS = ("comet-1", "comet-2")
WEBS = ("web-1", "web-2")
NODES = (*COMETS, *WEBS, "message-1", "message-2")
# What .env holds. Without digits: numbers of ports are mapped.
ENVIRON = {
    "ENCKE_ADMIN_TOKEN": "let-me-in",
    "ENCKE_RPC_SECRET": "between-us",
    "ENCKE_STORE_PASSWORD": "for-the-store",
}
AUTHORIZATION = {"Authorization": f"Bearer {ENVIRON['ENCKE_ADMIN_TOKEN']}"}
# Of a process that Java ends on SIGTERM.
TERMINATED = 128 + 15


def compose_of(profile: str) -> Compose:
    return read_compose(TEXT, {**ENVIRON, "COMPOSE_PROFILES": profile})


@pytest.fixture(params=["redis", "mysql"])
def project(request: pytest.FixtureRequest, tmp_path: Path, image: Image) -> Iterator[Project]:
    """All services of a profile, healthy."""
    profile: str = request.param
    with started(Project(compose_of(profile), profile, tmp_path, DOCKER, image)) as running:
        yield running


async def test_cluster_starts_serves_stops_and_finds_its_messages_again(project: Project) -> None:
    for name in NODES:
        assert_listens_where_it_is_mapped(project, name)
        assert_has_nothing_to_complain_of(project, name)
    assert listed(project) == set(NODES)

    for owner in COMETS:
        for number, web in enumerate(WEBS):
            await assert_push_reaches_the_subscriber_of(project, owner, web, WEBS[1 - number])
    assert (await ask(project, "web-1", 8091, "GET", "/2/admin/nodes", {})).status == 401

    assert_stops_in_order(project)

    project.up()
    for owner in COMETS:
        assert await stored(project, "web-2", key_of(owner)) == list(WEBS)
    assert_stops_in_order(project)


def assert_listens_where_it_is_mapped(project: Project, name: str) -> None:
    """Every listener of a node is one that its service exposes or publishes."""
    listening = re.findall(r"^listening (\w+) 127\.0\.0\.1:(\d+)$", project.containers[name].output, re.M)
    expected = {project.port(name, port) for port in project.containers[name].service.container_ports}
    assert {int(port) for _, port in listening} == expected


def assert_has_nothing_to_complain_of(project: Project, name: str) -> None:
    """Nothing was warned of that somebody has configured: not an open port, not a weak store."""
    container = project.containers[name]
    entries = [json.loads(line) for line in container.errors.splitlines()]
    warnings = [entry for entry in entries if entry["level"] not in ("debug", "info")]
    # A slow machine makes nodes wait for each other, which they say.
    waits = ("cluster.registry.", "cluster.rpc.")
    told = [one for one in warnings if not (one["logger"].startswith(waits) or "waiting for" in one["text"])]
    assert told == []
    if name.startswith("message-"):
        assert "survives a crash of the server's machine" in container.output


def listed(project: Project) -> set[str]:
    """Names of the nodes that serve, as an operator sees them."""
    done = project.exec("web-1", "encke", "nodes", "--url", "http://127.0.0.1:8091", "--json")
    assert done.returncode == 0, done.stderr
    return {node["name"] for node in json.loads(done.stdout)["nodes"] if node["state"] == "serving"}


async def assert_push_reaches_the_subscriber_of(
    project: Project, owner: str, pusher: str, locator: str
) -> None:
    """A push through one web node to a key of a comet node, to subscribers that the other one told where."""
    key = key_of(owner)
    websocket = await subscribe_websocket(await located(project, locator, key, 1), key, version="2")
    tcp = await subscribe_tcp(await located(project, locator, key, 2), key, version="2")
    try:
        await websocket.open()
        await tcp.open()
        target = f"/1/admin/push/private?key={key}&expire=600"
        body = json.dumps(pusher).encode()
        pushed = await ask(project, pusher, 8091, "POST", target, AUTHORIZATION, body)
        assert pushed.json == {"ret": 0}
        for subscriber in (websocket, tcp):
            (document,) = await subscriber.documents(1)
            assert document.value["msg"] == pusher
    finally:
        await websocket.close()
        await tcp.close()


async def located(project: Project, web: str, key: str, proto: int) -> tuple[str, int]:
    """Where a web node sends subscribers: the port that the owner of the key is published at."""
    answer = await ask(project, web, 8090, "GET", f"/1/server/get?k={key}&p={proto}", {})
    host, _, port = answer.json["data"]["server"].rpartition(":")
    owner = next(one for one in COMETS if key == key_of(one))
    assert (host, int(port)) == ("127.0.0.1", project.port(owner, 6968 if proto == 1 else 6969))
    return host, int(port)


async def stored(project: Project, web: str, key: str) -> list[object]:
    answer = await ask(project, web, 8090, "GET", f"/1/msg/get?k={key}&m=0", {})
    return [message["msg"] for message in answer.json["data"]["msgs"]]


async def ask(
    project: Project,
    service: str,
    port: int,
    method: str,
    target: str,
    headers: dict[str, str],
    body: bytes | None = None,
) -> Response:
    client = HttpClient(("127.0.0.1", project.port(service, port)))
    try:
        return await client.request(method, target, body, headers)
    finally:
        await client.close()


def assert_stops_in_order(project: Project) -> None:
    """SIGTERM, within the grace, with a clean end; and nothing was written where nothing may be."""
    began = time.monotonic()
    codes = project.down()
    assert codes.pop("zookeeper") == TERMINATED
    assert set(codes.values()) == {0}, codes
    assert set(NODES) < set(codes)
    assert time.monotonic() - began < sum(
        seconds(c.service.stop_grace_period) for c in project.containers.values()
    )
    for name in NODES:
        container = project.containers[name]
        assert container.service.read_only
        assert list(container.work.iterdir()) == []


def key_of(owner: str) -> str:
    return owned_by(COMETS, owner, 1)[0]
