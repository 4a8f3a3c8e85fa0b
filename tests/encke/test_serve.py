"""`encke serve`: its start, its words, its end."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from encke.cli import main
from tests.support.command import PATIENCE_S, run_encke, running_encke, said_until_ready
from tests.support.servers import RedisServer
from tests.support.subscriber import End
from tests.support.system import ANY_PORTS, KINDS, Server, running

ROOT = Path(__file__).parents[2]


def test_server_says_where_it_listens_and_what_to_try_then_ready(tmp_path: Path) -> None:
    with running(Server(tmp_path)) as server:
        assert set(server.addresses) == set(KINDS)
        assert server.output[-1] == "ready"
        text = "\n".join(server.output)
        assert re.search(r"room for [\d,]+ subscribers", text)
        public, admin = server.addresses["public"][1], server.addresses["admin"][1]
        assert f"encke sub alice --url http://127.0.0.1:{public}" in text
        assert f"--url http://127.0.0.1:{admin}" in text
        assert "survives a crash of the machine" in text


def test_examples_name_the_program_by_its_path_and_the_tokens_that_are_asked_for(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("encke")
    config = tmp_path / "encke.toml"
    config.write_text('[web]\nadmin_token = "adm1n"\n[auth]\nsecrets = ["s3cret"]\n')
    with subprocess.Popen(
        [program, "serve", "--config", config.name, *ANY_PORTS],
        cwd=tmp_path,
        env={"PATH": "/nowhere"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        output = "\n".join(said_until_ready(process))
        process.terminate()
    assert f"  {program} sub alice --token $({program} token alice --config {config}) --url http" in output
    assert f"storing under {tmp_path}/encke-data: " in output
    assert f"""  {program} push alice '{{"text": "hello"}}' --admin-token TOKEN --url http""" in output


def test_server_stores_where_the_configuration_says(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as redis:
        config = f'[message]\nstore = "redis"\n[redis]\nservers = ["{redis.url}"]\n'
        with running(Server(tmp_path / "server", config=config)) as server:
            assert any(line.startswith("storing under redis") for line in server.output), server.output
            assert asyncio.run(server.push("alice", {"n": 1}, 60)) == 0
            server.kill()
            server.start()
            assert [message["msg"] for message in asyncio.run(server.fetch("alice"))] == [{"n": 1}]


def test_one_address_serves_both_families(tmp_path: Path) -> None:
    flags = [f"--{kind}-bind=[::]:0" for kind in KINDS]
    config = "[web]\nadmin_insecure = true\n"
    with running(Server(tmp_path, config=config, flags=(*flags,))) as server:
        assert all(host == "[::]" for host, _ in server.addresses.values())
        ports = {kind: port for kind, (_, port) in server.addresses.items()}

        async def scenario(host: str, told: str) -> None:
            server.addresses = {kind: (host, port) for kind, port in ports.items()}
            assert (await server.ask("status", "GET", "/healthz")).status == 200
            # Without a word on where it was asked, the server goes by the socket.
            located = await server.ask("public", "GET", "/1/server/get?k=bob&p=2", headers={"Host": ""})
            assert located.json["data"]["server"] == f"{told}:{ports['tcp']}"
            async with server.tcp("bob", version="2") as tcp, server.websocket("bob") as websocket:
                await server.push("bob", {"to": host})
                assert (await tcp.next_document()).value["msg"] == {"to": host}
                await websocket.next_document()
                key = (await server.ask("admin", "GET", "/2/admin/keys/bob")).json
                assert {one["address"].rpartition(":")[0] for one in key["connections"]} == {told}

        asyncio.run(scenario("127.0.0.1", "127.0.0.1"))
        asyncio.run(scenario("::1", "[::1]"))
        assert server.stop() == 0


def test_sigterm_closes_subscribers_with_1001_and_exits_0(tmp_path: Path) -> None:
    with running(Server(tmp_path)) as server:

        async def scenario() -> End:
            async with server.websocket("bob", version="2") as bob:
                server.terminate()
                return await bob.end()

        assert asyncio.run(scenario()).code == 1001
        assert server.wait() == 0
        assert "Traceback" not in server.log
        assert "ERROR" not in server.log


def test_message_survives_a_restart_on_the_same_directory(tmp_path: Path) -> None:
    with running(Server(tmp_path)) as server:
        assert asyncio.run(server.push("bob", {"n": 1}, expire_s=600)) == 0
        assert server.stop() == 0
        server.start()
        assert [m["msg"] for m in asyncio.run(server.fetch("bob"))] == [{"n": 1}]


def test_health_readiness_and_metrics_are_answered(tmp_path: Path) -> None:
    with running(Server(tmp_path)) as server:

        async def scenario() -> str:
            assert (await server.ask("status", "GET", "/healthz")).status == 200
            ready = await server.ask("status", "GET", "/readyz")
            assert ready.status == 200
            assert b"fsync: an answered push survives a crash of the machine" in ready.body
            async with server.tcp("bob"):
                await server.push("bob", 1)
                return (await server.ask("status", "GET", "/metrics")).body.decode()

        text = asyncio.run(scenario())
        families = list(text_string_to_metric_families(text))
        samples = {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}
        assert samples["encke_connections",] == 1
        assert samples["encke_channels",] == 1
        assert samples["encke_pushes_total", "ok"] == 1
        assert samples["encke_deliveries_total",] == 1
        assert samples["encke_push_seconds_count",] == 1
        names = {name for name, *_ in samples}
        assert names >= {
            "encke_loop_lag_seconds_count",
            "encke_gc_pause_seconds_count",
            "encke_process_resident_bytes",
            "encke_process_open_fds",
            "encke_capacity",
        }
        documented = (ROOT / "docs" / "behaviour.md").read_text()
        assert [f.name for f in families if f"`{f.name.removeprefix('encke_')}" not in documented] == []


def test_push_tells_the_number_of_connections(tmp_path: Path) -> None:
    with running(Server(tmp_path)) as server:

        async def scenario() -> object:
            async with server.tcp("bob"):
                body = b'{"key":"bob","msg":1,"expire":0}'
                return (await server.ask("admin", "POST", "/2/admin/push", body)).body

        body = asyncio.run(scenario())
        assert isinstance(body, bytes)
        assert re.search(rb'"online":\s*1\b', body)


def test_ports_in_use_are_all_told_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ports = [one.getsockname()[1], two.getsockname()[1]]
        done = run_encke(
            *("serve", *ANY_PORTS),
            *("--ws-bind", f"127.0.0.1:{ports[0]}", "--admin-bind", f"127.0.0.1:{ports[1]}"),
            cwd=tmp_path,
        )
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.startswith(
        f"encke: port {ports[0]} for WebSocket subscribers is in use by process {os.getpid()}"
    )
    assert first.endswith("choose another with --ws-bind or comet.ws_bind")
    assert second.startswith(f"encke: port {ports[1]} for the admin HTTP API is in use")
    assert not (tmp_path / "encke-data").exists()


def test_bad_configuration_is_told_whole_and_exits_2(tmp_path: Path) -> None:
    config = tmp_path / "encke.toml"
    config.write_text('[comet]\nweight = "heavy"\n[web]\nno_such = 1\n')
    done = run_encke("serve", "--config", str(config), "--status-bind", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"encke: {config}:2: comet.weight: expected a whole number, got 'heavy'",
        f"encke: {config}:4: unknown key web.no_such",
        "encke: --status-bind: serve.status_bind: expected \"host:port\", got 'nowhere'",
    ]
    assert sorted(tmp_path.iterdir()) == [config]


def test_admin_port_for_everybody_needs_a_token(tmp_path: Path) -> None:
    done = run_encke("serve", *ANY_PORTS, "--admin-bind", "0.0.0.0:0", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("encke: --admin-bind: web.admin_bind: ")
    assert "admin_token" in done.stderr


def test_directory_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    done = run_encke("serve", *ANY_PORTS, "--data-dir", str(in_the_way / "data"), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        f"encke: cannot use {in_the_way}/data as data directory: Not a directory;"
        " choose another with --data-dir or message.data_dir\n"
    )
    assert done.stdout == ""


def test_second_server_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    with running(Server(tmp_path)) as server:
        done = run_encke("serve", *ANY_PORTS, "--data-dir", str(server.data_dir), cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr == (
            f"encke: {server.data_dir} is in use by another process (pid {server.pid}):"
            " stop it, or choose another with --data-dir or message.data_dir\n"
        )


def test_advertised_host_is_told_with_the_bound_port(tmp_path: Path) -> None:
    with running(Server(tmp_path, flags=("--advertise", "push.example.org"))) as server:
        for proto, kind in ((1, "ws"), (2, "tcp")):
            answer = asyncio.run(server.ask("public", "GET", f"/1/server/get?k=bob&p={proto}"))
            port = server.addresses[kind][1]
            assert answer.json == {"data": {"server": f"push.example.org:{port}"}, "ret": 0}


def test_host_moves_the_public_listeners_and_a_bind_flag_wins(tmp_path: Path) -> None:
    flags = ("--host", "127.0.0.2")
    config = '[comet]\nws_bind = "0.0.0.0:0"\ntcp_bind = "0.0.0.0:0"\n[web]\npublic_bind = "0.0.0.0:0"\n'
    path = tmp_path / "encke.toml"
    path.write_text(config)
    words = ["--config", str(path), "--admin-bind", "127.0.0.1:0", "--status-bind", "127.0.0.1:0"]
    with running_encke("serve", *words, *flags, "--tcp-bind", "127.0.0.3:0", cwd=tmp_path) as process:
        listening = [line.split() for line in said_until_ready(process) if line.startswith("listening ")]
        assert {kind: address.rpartition(":")[0] for _, kind, address in listening} == {
            "ws": "127.0.0.2",
            "tcp": "127.0.0.3",
            "public": "127.0.0.2",
            "admin": "127.0.0.1",
            "status": "127.0.0.1",
        }
        process.terminate()
        assert process.wait(PATIENCE_S) == 0


def test_few_descriptors_leave_room_for_few_subscribers_and_the_server_lives(tmp_path: Path) -> None:
    with running_encke("serve", *ANY_PORTS, cwd=tmp_path, under=("prlimit", "--nofile=64")) as process:
        said = said_until_ready(process)
        room = next(int(m[1]) for line in said if (m := re.fullmatch(r"room for (\d+) subscribers", line)))
        assert 10 <= room < 40
        process.terminate()
        assert process.wait(PATIENCE_S) == 0


def test_store_that_has_failed_ends_the_process_with_1(tmp_path: Path) -> None:
    """After a sync that failed, nobody can know what is on the disk."""
    traced = ("-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=30+")
    strace = ("strace", "-f", "-o", str(tmp_path / "strace"), *traced)
    with running_encke("serve", *ANY_PORTS, cwd=tmp_path, under=strace) as process:
        said = said_until_ready(process)
        admin = next(line.split()[2] for line in said if line.startswith("listening admin "))
        words = ["push", "bob", "1", "--expire", "600", "--timeout", "1", "--url", f"http://{admin}"]
        answers = [main(words)]
        while answers[-1] == 0:
            assert len(answers) < 60
            answers.append(main(words))
        assert len(answers) > 1
        assert process.wait(PATIENCE_S) == 1
        assert process.stderr is not None
        log = process.stderr.read()
        assert "a service task failed; the process drains and exits: task=store" in log
        assert "the store has failed: " in log


def test_backup_of_a_running_server_is_a_store_that_serves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    restored = tmp_path / "restored" / "data"
    restored.mkdir(parents=True)
    with running(Server(tmp_path / "original")) as server:
        asyncio.run(server.push("bob", {"n": 1}, expire_s=600))
        assert main(["backup", str(restored / "store.db"), "--data-dir", str(server.data_dir)]) == 0
    assert "bytes" in capsys.readouterr().out
    with running(Server(tmp_path / "restored")) as server:
        assert [m["msg"] for m in asyncio.run(server.fetch("bob"))] == [{"n": 1}]
