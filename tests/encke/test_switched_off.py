"""`--no-ws`, `--no-tcp`, `--no-public`, `--no-admin`, `--no-status`, and addresses that are left empty."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from tests.support.command import PATIENCE_S, run_encke, running_encke, said_until_ready
from tests.support.servers import free_port
from tests.support.subscriber import subscribe_tcp
from tests.support.system import ANY_PORTS, KINDS, LISTENS_ON, Server, running
from tests.support.workers import WorkerCluster, serve_workers, worker_addresses

CAN_BE_OFF = [(command, kind) for command, kinds in LISTENS_ON.items() for kind in kinds if kind != "rpc"]


@pytest.mark.parametrize("off", KINDS)
def test_server_listens_for_all_but_what_is_switched_off(tmp_path: Path, off: str) -> None:
    with running(Server(tmp_path, off=(off,))) as server:
        assert set(server.addresses) == set(KINDS) - {off}
        assert listening_ports(server.pid) == {port for _, port in server.addresses.values()}
        asyncio.run(use(server))
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("off", "tried"),
    [
        (("admin",), ["sub alice"]),
        (("public",), ["push alice"]),
        (("ws",), ["sub alice --transport tcp", "push alice"]),
        (("tcp", "status"), ["sub alice", "push alice"]),
    ],
)
@pytest.mark.parametrize("flags", [(), ("--workers", "1")], ids=["one process", "workers"])
def test_example_is_of_what_is_there(
    tmp_path: Path, off: tuple[str, ...], tried: list[str], flags: tuple[str, ...]
) -> None:
    with running(Server(tmp_path, off=off, flags=flags)) as server:
        head = next(n for n, line in enumerate(server.output) if line.startswith("try it, in "))
        terminals = "two other terminals" if len(tried) == 2 else "another terminal"
        assert server.output[head] == f"try it, in {terminals}:"
        *examples, last = server.output[head + 1 :]
        assert last == "ready"
        assert len(examples) == len(tried)
        for example, words in zip(examples, tried, strict=True):
            assert example.startswith(f"  encke {words} ")
            assert ("--transport" in example) == ("--transport" in words)


def test_empty_address_of_file_or_environment_is_the_same(tmp_path: Path) -> None:
    config = '[comet]\ntcp_bind = ""\n[web]\nadmin_bind = ""\n'
    path = tmp_path / "encke.toml"
    path.write_text(config)
    words = ["--config", str(path), "--ws-bind", "127.0.0.1:0", "--public-bind", "127.0.0.1:0"]
    environ = {"ENCKE_SERVE__STATUS_BIND": ""}
    with running_encke("serve", *words, cwd=tmp_path, environ=environ) as process:
        said = [line.split()[1] for line in said_until_ready(process) if line.startswith("listening ")]
        assert said == ["ws", "public"]
        process.terminate()
        assert process.wait(PATIENCE_S) == 0


def test_flag_switches_on_what_the_file_has_switched_off(tmp_path: Path) -> None:
    with running(Server(tmp_path, config='[comet]\ntcp_bind = ""\nws_bind = ""\n')) as server:
        assert set(server.addresses) == set(KINDS)


def test_host_is_not_given_to_what_is_off(tmp_path: Path) -> None:
    path = tmp_path / "encke.toml"
    path.write_text('[comet]\nws_bind = "0.0.0.0:0"\ntcp_bind = ""\n[web]\npublic_bind = "0.0.0.0:0"\n')
    words = ["--config", str(path), "--host", "127.0.0.2", "--no-public"]
    words += ["--admin-bind", "127.0.0.1:0", "--status-bind", "127.0.0.1:0"]
    with running_encke("serve", *words, cwd=tmp_path) as process:
        listening = [line.split() for line in said_until_ready(process) if line.startswith("listening ")]
        assert {kind: address.rpartition(":")[0] for _, kind, address in listening} == {
            "ws": "127.0.0.2",
            "admin": "127.0.0.1",
            "status": "127.0.0.1",
        }


def test_host_helps_a_file_whose_addresses_are_given_by_flags(tmp_path: Path) -> None:
    path = tmp_path / "encke.toml"
    path.write_text('[comet]\nws_bind = ""\ntcp_bind = ""\n[web]\nadmin_bind = "0.0.0.0:0"\n')
    words = ["--config", str(path), "--host", "127.0.0.2", *ANY_PORTS]
    with running_encke("serve", *words, cwd=tmp_path) as process:
        assert any(line.startswith("listening ws 127.0.0.1:") for line in said_until_ready(process))


@pytest.mark.parametrize(("command", "kind"), CAN_BE_OFF)
def test_address_of_what_is_switched_off_is_wrong_usage(tmp_path: Path, command: str, kind: str) -> None:
    done = run_encke(command, f"--no-{kind}", f"--{kind}-bind", "127.0.0.1:0", cwd=tmp_path)
    assert done.returncode == 2
    assert f"argument --{kind}-bind: not allowed with argument --no-{kind}" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["comet", "message"])
def test_calls_of_other_nodes_cannot_be_switched_off(tmp_path: Path, command: str) -> None:
    done = run_encke(command, "--no-rpc", cwd=tmp_path)
    assert done.returncode == 2
    assert "there is no --no-rpc" in done.stderr


@pytest.mark.parametrize(
    ("command", "off", "fault"),
    [
        ("serve", ("ws", "tcp"), "--no-tcp: comet.tcp_bind: "),
        ("comet", ("ws", "tcp"), "--no-tcp: comet.tcp_bind: "),
        ("serve", ("public", "admin"), "--no-admin: web.admin_bind: "),
        ("web", ("public", "admin"), "--no-admin: web.admin_bind: "),
    ],
)
def test_server_that_nobody_could_reach_is_refused_with_all_else(
    tmp_path: Path, command: str, off: tuple[str, ...], fault: str
) -> None:
    environ = {"ENCKE_PROCESS__DRAIN_S": "-1"}
    done = run_encke(command, *(f"--no-{kind}" for kind in off), cwd=tmp_path, environ=environ)
    assert done.returncode == 2
    limit, unreachable = done.stderr.splitlines()
    assert limit.startswith("encke: ENCKE_PROCESS__DRAIN_S: ")
    assert unreachable.startswith(f"encke: {fault}")
    assert list(tmp_path.iterdir()) == []


def test_admin_api_that_is_off_needs_no_token(tmp_path: Path) -> None:
    config = '[web]\nadmin_bind = "0.0.0.0:0"\n'
    with running(Server(tmp_path, config=config, off=("admin",))) as server:
        assert "admin" not in server.addresses
        assert "asks for no token" not in server.log


def test_port_of_what_is_switched_off_may_be_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = f'[comet]\ntcp_bind = "127.0.0.1:{taken.getsockname()[1]}"\n'
        with running(Server(tmp_path, config=config, off=("tcp",))) as server:
            assert "tcp" not in server.addresses


def test_subscriber_is_sent_to_no_server_by_a_transport_that_is_off(tmp_path: Path) -> None:
    flags = ("--advertise", "push.example.org")
    with running(Server(tmp_path, off=("tcp",), flags=flags)) as server:

        async def answers(proto: int) -> list[object]:
            paths = (f"/1/server/get?k=bob&p={proto}", f"/2/server/get?k=bob&p={proto}")
            return [(await server.ask("public", "GET", path)).json["ret"] for path in paths]

        assert asyncio.run(answers(1)) == [0, 0]
        assert asyncio.run(answers(2)) == [1001, 1001]


def test_sub_says_which_transport_is_missing(tmp_path: Path) -> None:
    with running(Server(tmp_path, off=("ws",))) as server:
        host, port = server.addresses["public"]
        url = f"http://{host}:{port}"
        with running_encke("sub", "alice", "--url", url) as process:
            assert process.stderr is not None
            said = process.stderr.readline()
    assert said.startswith(f"encke: {url}: no node serves the key by websocket (ret 1001);")


def test_nodes_are_listed_without_addresses_that_they_do_not_have(tmp_path: Path) -> None:
    with running(Server(tmp_path, off=("tcp", "public", "status"))) as server:
        nodes = asyncio.run(server.ask("admin", "GET", "/2/admin/nodes")).json["nodes"]
        assert {node["kind"]: (set(node["addresses"]), node["fault"]) for node in nodes} == {
            "comet": ({"ws"}, None),
            "message": (set(), None),
            "web": ({"admin"}, None),
        }


def test_workers_do_without_what_is_switched_off(tmp_path: Path) -> None:
    server = serve_workers(tmp_path, 2, off=("ws", "status"))
    with running(server):
        listens = worker_addresses(server)
        assert {name: set(there) for name, there in listens.items()} == {
            "comet-1-0": {"tcp"},
            "comet-1-1": {"tcp"},
        }
        assert set(server.addresses) == {"tcp", "public", "admin"}
        cluster = WorkerCluster(server)

        async def scenario() -> None:
            for key in ("bob", "alice", "carol"):
                address = await cluster.locate(key)
                assert address is not None
                assert await cluster.locate(key, "ws") is None
                subscriber = await subscribe_tcp(address, key, version="2")
                await subscriber.open()
                assert await server.push(key, {"n": 1}) == 0
                assert (await subscriber.next_document()).value["msg"] == {"n": 1}
                await subscriber.close()
            nodes = (await server.ask("admin", "GET", "/2/admin/nodes")).json["nodes"]
            assert [node["fault"] for node in nodes] == [None] * 4

        asyncio.run(scenario())
        assert server.stop() == 0


def test_probe_of_a_server_without_a_status_port_says_so(tmp_path: Path) -> None:
    environ = {"ENCKE_SERVE__STATUS_BIND": ""}
    done = run_encke("ready", "serve", "--within", "30", cwd=tmp_path, environ=environ)
    assert done.returncode == 2
    assert done.stderr.startswith("encke: serve.status_bind: the status port is switched off")
    # The address that it was told counts.
    address = f"127.0.0.1:{free_port()}"
    done = run_encke("ready", "serve", "--status-bind", address, cwd=tmp_path, environ=environ)
    assert done.returncode == 1


async def use(server: Server) -> None:
    """Go through what is on."""
    on = server.addresses
    transport = "ws" if "ws" in on else "tcp"
    async with server.subscriber(transport, "bob", version="2") as bob:
        if "admin" in on:
            await server.push("bob", 1, 60)
            assert (await bob.next_document()).value["msg"] == 1
        if "public" in on:
            located = await server.ask(
                "public", "GET", f"/1/server/get?k=bob&p={1 if transport == 'ws' else 2}"
            )
            host, port = on[transport]
            assert located.json == {"data": {"server": f"{host}:{port}"}, "ret": 0}
        if "status" in on:
            assert (await server.ask("status", "GET", "/readyz")).status == 200


def listening_ports(pid: int) -> set[int]:
    """The TCP ports that a process listens on."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        target = str(descriptor.readlink())
        if target.startswith("socket:["):
            inodes.add(target[len("socket:[") : -1])
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {
        int(words[1].rpartition(":")[2], 16) for words in lines if words[3] == "0A" and words[9] in inodes
    }
