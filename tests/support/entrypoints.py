"""Images of others: Debian's packages of the same programs, started as those images' entrypoints would."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.zookeeper import JAR


def entrypoint(
    image: str, words: list[str], environ: Mapping[str, str], own: Path, paths: Mapping[str, Path]
) -> list[str]:
    """The command of an image of others with a program of this machine, on loopback only."""
    match image.split(":")[0], words:
        case "zookeeper", ["zkServer.sh", "start-foreground"]:
            return _zookeeper(environ, paths["/conf/zoo.cfg"])
        case "redis", ["redis-server", *options]:
            return ["redis-server", *options, "--bind", "127.0.0.1"]
        case "mariadb", ["mariadbd", *options]:
            return _mariadb(options, environ, own, paths["/var/lib/mysql"])
    raise AssertionError(f"not known how to run {words} of {image}")


def _zookeeper(environ: Mapping[str, str], config: Path) -> list[str]:
    config.write_text(config.read_text() + "\nclientPortAddress=127.0.0.1\n")
    return [
        *("java", f"-Xmx{environ['ZK_SERVER_HEAP']}m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
        *("-cp", f"{config.parent}:{JAR}", "org.apache.zookeeper.server.quorum.QuorumPeerMain", str(config)),
    ]


def _mariadb(options: list[str], environ: Mapping[str, str], own: Path, data: Path) -> list[str]:
    user = ["--user=root"] if os.geteuid() == 0 else []
    subprocess.run(
        # By force: also where the machine's own name does not resolve.
        ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--skip-test-db", "--force", *user],
        check=True,
        capture_output=True,
        timeout=120,
    )
    name, login = environ["MARIADB_DATABASE"], f"{environ['MARIADB_USER']}@'%'"
    statements = own / "init.sql"
    statements.write_text(
        f"CREATE DATABASE IF NOT EXISTS {name};\n"
        f"CREATE USER IF NOT EXISTS {login} IDENTIFIED BY '{environ['MARIADB_PASSWORD']}';\n"
        f"GRANT ALL ON {name}.* TO {login};\n"
    )
    return [
        *("mariadbd", "--no-defaults", f"--datadir={data}", f"--socket={own / 'socket'}", *user),
        *(f"--pid-file={own / 'pid'}", "--bind-address=127.0.0.1", f"--init-file={statements}", *options),
    ]
