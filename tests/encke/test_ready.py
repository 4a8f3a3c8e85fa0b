"""`encke ready`: what a health check is told, against a real status listener."""

from __future__ import annotations

import asyncio
import http.client
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.stats import Stats
from cluster.status import StatusListener
from encke.cli import main
from tests.support.command import running_encke
from tests.support.eventually import eventually
from tests.support.servers import free_port
from tests.support.system import Server, running


class Probed:
    """A node as a probe sees it."""

    def __init__(self) -> None:
        self.address = ""
        self.fault: str | None = None
        self.notes: list[str] = []
        self.was_asked = threading.Event()

    def ready_fault(self) -> str | None:
        self.was_asked.set()
        return self.fault


@pytest.fixture
async def node() -> AsyncIterator[Probed]:
    probed = Probed()
    listener = StatusListener("127.0.0.1:0", Stats(), probed.ready_fault, lambda: probed.notes)
    probed.address = await listener.start()
    try:
        yield probed
    finally:
        await listener.stop()


async def ready(*words: str) -> int:
    return await asyncio.to_thread(main, ["ready", *words])


@pytest.mark.parametrize("kind", ["serve", "comet", "message", "web"])
async def test_address_is_the_one_of_the_nodes_own_configuration(
    kind: str, node: Probed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "encke.toml"
    config.write_text(f'[{kind}]\nstatus_bind = "{node.address}"\n')
    assert await ready(kind, "--config", str(config)) == 0
    assert capsys.readouterr().out == "ready\n"


async def test_address_that_is_bound_to_all_interfaces_is_asked_on_loopback(node: Probed) -> None:
    port = node.address.rpartition(":")[2]
    assert await ready("web", "--status-bind", f"0.0.0.0:{port}") == 0


async def test_environment_moves_the_address_as_it_moves_the_nodes(
    node: Probed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENCKE_COMET__STATUS_BIND", node.address)
    assert await ready("comet") == 0


async def test_node_that_cannot_serve_says_why(node: Probed, capsys: pytest.CaptureFixture[str]) -> None:
    node.fault = "draining"
    assert await ready("comet", "--status-bind", node.address) == 1
    assert capsys.readouterr().err == f"encke: comet at {node.address} is not ready: draining\n"


async def test_node_that_does_not_run_is_not_ready(capsys: pytest.CaptureFixture[str]) -> None:
    assert await ready("message", "--status-bind", f"127.0.0.1:{free_port()}") == 1
    assert "is not ready: " in capsys.readouterr().err


async def test_node_that_starts_is_waited_for(node: Probed) -> None:
    node.fault = "starting"
    waiting = asyncio.create_task(ready("comet", "--status-bind", node.address, "--within", "20"))
    await asyncio.to_thread(node.was_asked.wait)
    assert not waiting.done()
    node.fault = None
    assert await waiting == 0


async def test_port_that_is_not_known_beforehand_has_to_be_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert await ready("comet", "--status-bind", "127.0.0.1:0") == 2
    assert "say which with --status-bind" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["serve", "comet", "message", "web"])
async def test_node_without_a_status_port_cannot_be_asked(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "encke.toml"
    config.write_text(f'[{kind}]\nstatus_bind = ""\n')
    assert await ready(kind, "--config", str(config), "--within", "20") == 2
    assert capsys.readouterr().err == (
        f"encke: {kind}.status_bind: the status port is switched off, so nobody can ask whether it is ready\n"
    )


async def test_other_kind_of_node_at_the_same_address_is_not_the_one_that_was_meant(
    node: Probed, capsys: pytest.CaptureFixture[str]
) -> None:
    node.notes = ["encke comet comet-1", "store redis: fsync"]
    assert await ready("comet", "--status-bind", node.address) == 0
    assert await ready("serve", "--status-bind", node.address) == 1
    assert capsys.readouterr().err == (
        f"encke: serve at {node.address} is not ready: encke comet comet-1 answers there\n"
    )


def test_server_says_on_its_status_port_who_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(Server(tmp_path)) as server:
        host, port = server.addresses["status"]
        assert main(["ready", "serve", "--status-bind", f"{host}:{port}"]) == 0
        assert main(["ready", "comet", "--status-bind", f"{host}:{port}"]) == 1
    assert "is not ready: encke serve answers there" in capsys.readouterr().err


def test_node_says_on_its_status_port_who_it_is_also_while_it_starts(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    words = ["comet", "--name", "c7", "--status-bind", address]
    words += [word for kind in ("ws", "tcp", "rpc") for word in (f"--{kind}-bind", "127.0.0.1:0")]
    environ = {"ENCKE_REGISTRY__SERVERS": "127.0.0.1:1"}
    with running_encke(*words, cwd=tmp_path, environ=environ):
        host, _, port = address.partition(":")
        asyncio.run(eventually(lambda: _lines_of_readyz(host, int(port))[1:] == ["encke comet c7"]))


def _lines_of_readyz(host: str, port: int) -> list[str]:
    connection = http.client.HTTPConnection(host, port)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().read().decode().splitlines()
    except ConnectionError:
        return []
    finally:
        connection.close()
