"""The systemd unit: it is understood whole, and what it runs runs."""

from __future__ import annotations

import configparser
import shlex
import subprocess
import sys
from pathlib import Path

from cluster.service import DRAIN_GRACE_S, STOP_TIMEOUT_S
from encke.config import load_config
from tests.docker.conftest import DOCKER
from tests.support.compose import Service
from tests.support.containers import Container
from tests.support.servers import free_port

UNIT = DOCKER / "encke@.service"
# Where the unit expects the program, and where it is here.
INSTALLED = "/opt/encke/bin/encke"
PROGRAM = str(Path(sys.executable).parent / "encke")


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    unit = tmp_path / "encke@.service"
    unit.write_text(UNIT.read_text().replace(INSTALLED, PROGRAM))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "encke@comet.service")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_unit_runs_a_node_waits_until_it_is_ready_and_stops_it_in_time(tmp_path: Path) -> None:
    service = section("Service")
    config = tmp_path / "encke.toml"
    config.write_text(
        "\n".join(
            f"[{table}]\n{keys}"
            for table, keys in {
                "serve": f'status_bind = "127.0.0.1:{free_port()}"',
                "comet": 'ws_bind = "127.0.0.1:0"\ntcp_bind = "127.0.0.1:0"',
                "web": 'public_bind = "127.0.0.1:0"\nadmin_bind = "127.0.0.1:0"',
            }.items()
        )
    )

    def command(line: str) -> list[str]:
        line = line.lstrip("-").replace(INSTALLED, PROGRAM).replace("/etc/encke/encke.toml", str(config))
        return shlex.split(line.replace("%i", "serve"))

    node = Container(
        "serve", Service(image="", command=""), command(service["ExecStart"]), {}, tmp_path / "state"
    )
    node.start()
    try:
        assert node.run(command(service["ExecStartPost"]), float(service["TimeoutStartSec"])).returncode == 0
        node.terminate()
        assert node.wait_end(float(service["TimeoutStopSec"])) == 0
    finally:
        node.kill()
    assert (node.work / "encke-data").is_dir()


def test_node_is_given_longer_to_stop_than_it_takes() -> None:
    process = load_config(None).process
    longest = process.drain_delay_s + process.drain_s + DRAIN_GRACE_S + STOP_TIMEOUT_S
    assert float(section("Service")["TimeoutStopSec"]) > longest


def test_only_the_main_process_is_told_to_drain() -> None:
    # A second SIGTERM ends a node at once: one that its parent has told must not get another.
    assert section("Service")["KillMode"] == "mixed"


def section(name: str) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read_string(UNIT.read_text())
    return parser[name]
