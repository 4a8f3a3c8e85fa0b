"""`encke message --init-schema`: the command, on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from message.storage.mysql.schema import MIGRATIONS
from tests.message.storage.mysql.test_store import OLDER_TABLE, SHIPPED, tables
from tests.message.storage.mysql_stores import query
from tests.support.command import run_encke
from tests.support.servers import MariaServer

PRESENT = len(MIGRATIONS)
MADE_BY_HAND = "by_hand"


class Command:
    """The command and its databases."""

    def __init__(self, server: MariaServer, directory: Path) -> None:
        self.server = server
        self._config = directory / "encke.toml"
        self.databases = ["schema_1", "schema_2"]

    def run(self, *urls: str, store: str = "mysql") -> CompletedProcess[str]:
        listed = ", ".join(f'"{url}"' for url in urls)
        self._config.write_text(f'[message]\nstore = "{store}"\n[mysql]\nservers = [{listed}]\n')
        return run_encke("message", "--init-schema", "--config", str(self._config))

    def url(self, number: int, user: str = "root") -> str:
        return self.server.url(self.databases[number]).replace("root@", f"{user}@")

    def name(self, number: int) -> str:
        """As the command names the server: without its user."""
        return self.url(number).replace("root@", "")


@pytest.fixture
def command(plain_mariadb: MariaServer, tmp_path: Path) -> Iterator[Command]:
    command = Command(plain_mariadb, tmp_path)
    every = [*command.databases, MADE_BY_HAND]
    query(plain_mariadb, *(f"CREATE OR REPLACE DATABASE {name}" for name in every), database=None)
    query(plain_mariadb, *SHIPPED.read_text().rstrip().rstrip(";").split(";\n"), database=MADE_BY_HAND)
    yield command
    query(plain_mariadb, *(f"DROP DATABASE {name}" for name in every), database=None)


def assert_is_present(command: Command, number: int) -> None:
    """The tables are exactly those of the file that is shipped, and so is the version."""
    made = command.databases[number]
    assert tables(command.server, made) == tables(command.server, MADE_BY_HAND)
    versions = [query(command.server, "SELECT * FROM encke_schema", database=n) for n in (made, MADE_BY_HAND)]
    assert versions == [((1, PRESENT),)] * 2


def test_tables_are_made_on_every_server_once(command: Command) -> None:
    first = command.run(command.url(0), command.url(1))
    second = command.run(command.url(0), command.url(1))

    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.splitlines() == [f"{command.name(n)}: tables made, version {PRESENT}" for n in (0, 1)]
    assert (second.returncode, second.stderr) == (0, "")
    assert second.stdout.splitlines() == [
        f"{command.name(n)}: nothing to do, the tables are of version {PRESENT}" for n in (0, 1)
    ]
    for number in (0, 1):
        assert_is_present(command, number)


def test_table_of_gopush_cluster_is_brought_up_to_date(command: Command) -> None:
    query(command.server, "SET SESSION sql_mode = ''", OLDER_TABLE, database=command.databases[0])
    query(
        command.server,
        "INSERT INTO private_msg (skey, mid, ttl, msg) VALUES ('bob', 80, 2000000000, '[1]')",
        database=command.databases[0],
    )

    done = command.run(command.url(0))

    assert (done.returncode, done.stderr) == (0, "")
    assert_is_present(command, 0)
    rows = query(command.server, "SELECT skey, mid, msg FROM private_msg", database=command.databases[0])
    assert rows == ((b"bob", 80, b"[1]"),)


def test_database_of_a_newer_version_is_left_alone(command: Command) -> None:
    assert command.run(command.url(0)).returncode == 0
    query(command.server, "UPDATE encke_schema SET version = 99", database=command.databases[0])

    done = command.run(command.url(0))

    assert (done.returncode, done.stdout) == (2, "")
    assert "schema version 99" in done.stderr


@pytest.mark.parametrize(
    "granted", ["", "SELECT", "SELECT, INSERT, UPDATE, DELETE", "SELECT, INSERT, DELETE, CREATE"]
)
def test_missing_privileges_are_told_and_the_next_run_finishes(command: Command, granted: str) -> None:
    query(command.server, "CREATE OR REPLACE USER 'guest'@'127.0.0.1'", database=None)
    if granted:
        query(
            command.server,
            f"GRANT {granted} ON {command.databases[0]}.* TO 'guest'@'127.0.0.1'",
            "SET SESSION sql_mode = ''",
            OLDER_TABLE,
            database=command.databases[0],
        )
    refused = command.run(command.url(0, "guest"))
    query(
        command.server,
        "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX"
        f" ON {command.databases[0]}.* TO 'guest'@'127.0.0.1'",
        database=None,
    )
    finished = command.run(command.url(0, "guest"))
    query(command.server, "DROP USER 'guest'@'127.0.0.1'", database=None)

    assert (refused.returncode, refused.stdout) == (1, "")
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"encke: {command.name(0)}: ")
    assert "denied" in line
    assert "its user needs SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER and INDEX" in line
    assert (finished.returncode, finished.stderr) == (0, "")
    assert_is_present(command, 0)


def test_server_that_is_away_is_told_after_those_that_are_done(command: Command) -> None:
    away = "mysql://root:s3cret@127.0.0.1:1/x"

    done = command.run(command.url(0), away)

    assert done.returncode == 1
    assert "mysql://127.0.0.1:1/x" in done.stderr
    assert "s3cret" not in done.stderr + done.stdout
    assert_is_present(command, 0)


def test_database_that_does_not_exist_is_told(command: Command) -> None:
    done = command.run(command.server.url("nowhere"))

    assert done.returncode == 1
    assert "Unknown database 'nowhere'" in done.stderr


def test_other_stores_have_no_tables(command: Command) -> None:
    done = command.run(command.url(0), store="redis")

    assert done.returncode == 2
    assert 'message.store is "redis"' in done.stderr
    assert tables(command.server, command.databases[0]) == {}
