"""The MySQL store's special sides: tables, addresses, what the server promises, data of others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest

from cluster.errors import ConfigError, StorageError, TooLargeError, UnavailableError
from cluster.model import Key, Mid
from cluster.stats import Stats
from message.storage.build import init_mysql_schema
from message.storage.mysql.config import MysqlSettings
from message.storage.mysql.connection import Connection
from message.storage.mysql.durability import guarantee
from message.storage.mysql.schema import MIGRATIONS, init_schema, schema_sql
from message.storage.servers import MYSQL_SCHEMES, read_server_url
from tests.message.storage.mysql_stores import DATABASE, make_empty, make_store, open_mysql, query
from tests.message.storage.older import OLDER_PAYLOADS
from tests.message.storage.saving import BOB, batch_of, load_all, save_one
from tests.message.storage.store_suite import Limits
from tests.support.servers import MariaServer

SHIPPED = Path(__file__).parents[4] / "docker" / "mysql.sql"
# A table as gopush-cluster's documentation has it.
OLDER_TABLE = """CREATE TABLE private_msg (
    id int unsigned NOT NULL AUTO_INCREMENT,
    skey varchar(64) NOT NULL,
    mid bigint unsigned NOT NULL,
    ttl bigint NOT NULL,
    msg blob NOT NULL,
    ctime timestamp NOT NULL DEFAULT '0000-00-00 00:00:00',
    mtime timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
    PRIMARY KEY (id),
    UNIQUE KEY ux_private_msg_1 (skey, mid),
    KEY ix_private_msg_1 (ttl)
) ENGINE=InnoDB DEFAULT CHARSET=utf8"""
OLD = 13_963_518_743_870_011


@pytest.fixture
def server(plain_mariadb: MariaServer) -> MariaServer:
    """A server with an empty database."""
    make_empty(plain_mariadb)
    return plain_mariadb


@pytest.fixture
def bare(plain_mariadb: MariaServer) -> Iterator[str]:
    """The URL of a database without tables."""
    query(plain_mariadb, "CREATE OR REPLACE DATABASE bare", database=None)
    yield plain_mariadb.url("bare")
    query(plain_mariadb, "DROP DATABASE bare", database=None)


def tables(server: MariaServer, database: str) -> dict[str, str]:
    """Every table as the server describes it."""
    names = [str(row[0]) for row in query(server, "SHOW TABLES", database=database)]
    return {
        name: str(query(server, f"SHOW CREATE TABLE {name}", database=database)[0][1]).split(" AUTO_INCR")[0]
        for name in names
    }


# -- tables


def test_shipped_file_shows_the_statements() -> None:
    # .venv/bin/python -c "from message.storage.mysql.schema import *; print(schema_sql(), end='')" makes it.
    assert SHIPPED.read_text() == schema_sql()


async def test_shipped_file_makes_what_the_command_makes(server: MariaServer, bare: str) -> None:
    with closing(Connection(read_server_url(bare, MYSQL_SCHEMES), MysqlSettings())) as connection:
        connection.run([SHIPPED.read_text().rstrip().rstrip(";")])

    async with open_mysql(bare) as store:
        await save_one(store, BOB, "1", b"[1]")
        assert await load_all(store, BOB) == [b"[1]"]
    assert tables(server, "bare") == tables(server, DATABASE)


async def test_store_without_tables_says_what_to_do(bare: str) -> None:
    with pytest.raises(ConfigError, match="encke message --config FILE --init-schema"):
        await make_store(bare).start()


async def test_schema_is_made_once_and_again_for_nothing(bare: str) -> None:
    settings = MysqlSettings(servers=(bare,))

    first = init_mysql_schema(settings)
    again = init_mysql_schema(settings)

    assert [version for _, version in first] == [0]
    assert [version for _, version in again] == [len(MIGRATIONS)]


def test_schema_of_a_server_that_is_away_is_a_clear_fault() -> None:
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:1/"):
        init_mysql_schema(MysqlSettings(servers=("mysql://root@127.0.0.1:1/x",)))


async def test_database_of_a_newer_version_is_refused(plain_mariadb: MariaServer, bare: str) -> None:
    init_mysql_schema(MysqlSettings(servers=(bare,)))
    query(plain_mariadb, "UPDATE encke_schema SET version = 99", database="bare")

    with pytest.raises(ConfigError, match="version 99"):
        await make_store(bare).start()
    with pytest.raises(ConfigError, match="version 99"):
        init_mysql_schema(MysqlSettings(servers=(bare,)))


def test_migration_that_failed_is_begun_again(plain_mariadb: MariaServer, bare: str) -> None:
    def fail(connection: Connection) -> None:
        raise RuntimeError

    with closing(Connection(read_server_url(bare, MYSQL_SCHEMES), MysqlSettings())) as connection:
        with pytest.raises(RuntimeError):
            init_schema(connection, [*MIGRATIONS, fail])
        before = init_schema(connection, [*MIGRATIONS, lambda c: None])

    assert before == len(MIGRATIONS)


# -- data of gopush-cluster


async def test_database_of_gopush_cluster_is_taken_over_with_its_messages(
    plain_mariadb: MariaServer, bare: str
) -> None:
    soon = int(time.time()) + 600
    query(
        plain_mariadb,
        "SET SESSION sql_mode = ''",
        OLDER_TABLE,
        "INSERT INTO private_msg (skey, mid, ttl, msg, ctime, mtime) VALUES"
        f" ('bob', {OLD}, {soon}, '{{\"n\":1}}', '0000-00-00', '2014-01-01'),"
        f" ('bob', {OLD + 7000}, {soon}, '\"two\"', NOW(), NOW()),"
        f" ('bob', {OLD + 9000}, 1, '\"ended\"', NOW(), NOW()),"
        f" ('Alice', {OLD}, {soon}, '\"hers\"', NOW(), NOW())",
        database="bare",
    )
    init_mysql_schema(MysqlSettings(servers=(bare,)))

    async with open_mysql(bare) as store:
        before = await store.load_after(BOB, Mid(0), 100, 1000)
        reply = await store.save(await batch_of(store, BOB, "1", b"[3]"))
        after = await store.load_after(BOB, Mid(OLD), 100, 1000)
        others = await load_all(store, Key("alice"))

    assert [(message.mid, message.payload) for message in before.messages] == [
        (OLD, b'{"n":1}'),
        (OLD + 7000, b'"two"'),
    ]
    # The ended one may be removed or not.
    assert reply.results[0].prev in (OLD + 7000, OLD + 9000)
    assert reply.results[0].mid % 80 == 0
    assert [message.payload for message in after.messages] == [b'"two"', b"[3]"]
    assert others == []


async def test_older_messages_count_towards_the_limits(server: MariaServer) -> None:
    soon = int(time.time()) + 600
    rows = ",".join(f"('bob', {OLD + n * 80}, {soon}, '{n}')" for n in range(5))
    query(server, f"INSERT INTO private_msg (skey, mid, ttl, msg) VALUES {rows}")
    store = make_store(server.url(DATABASE), limits=Limits(max_messages_per_key=3))
    await store.start()
    try:
        await save_one(store, BOB, "1", b"[1]")
        page = await store.load_after(BOB, Mid(0), 100, 1000)
        deleted = await store.delete_key(BOB)
    finally:
        await store.stop()

    assert [message.payload for message in page.messages] == [b"3", b"4", b"[1]"]
    assert page.trimmed == OLD + 2 * 80
    assert deleted == 3


@pytest.mark.parametrize(("stored", "read"), OLDER_PAYLOADS)
async def test_older_messages_are_brought_to_the_canonical_form(
    server: MariaServer, stored: bytes, read: bytes
) -> None:
    soon = int(time.time()) + 600
    # Also where the mid could be ours.
    rows = ",".join(f"('bob', {mid}, {soon}, x'{stored.hex()}')" for mid in (OLD, OLD // 80 * 80))
    query(server, f"INSERT INTO private_msg (skey, mid, ttl, msg) VALUES {rows}")

    async with open_mysql(server.url(DATABASE)) as store:
        assert await load_all(store, BOB) == [read, read]


@pytest.mark.parametrize("poison", [b"not JSON", b'"\xff"', b"{", b"", b"[" * 100_000])
async def test_poison_is_left_out_counted_and_logged(
    server: MariaServer, poison: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    stats = Stats()
    soon = int(time.time()) + 600
    query(
        server,
        f"INSERT INTO private_msg (skey, mid, ttl, msg) VALUES ('bob', {OLD}, {soon}, x'{poison.hex()}')",
    )

    async with open_mysql(server.url(DATABASE), stats) as store:
        await save_one(store, BOB, "1", b"[1]")
        assert await load_all(store, BOB) == [b"[1]"]

    (family,) = [one for one in stats.snapshot() if one.name == "store_unreadable_total"]
    assert family.readings[""] == 1
    assert caplog.text.count("no messages: key=bob") == 1


async def test_page_goes_on_behind_much_poison(server: MariaServer) -> None:
    soon = int(time.time()) + 600
    rows = ",".join(f"('bob', {OLD + n}, {soon}, '{{')" for n in range(250))
    query(server, f"INSERT INTO private_msg (skey, mid, ttl, msg) VALUES {rows}")

    async with open_mysql(server.url(DATABASE)) as store:
        await save_one(store, BOB, "1", b"[1]")
        page = await store.load_after(BOB, Mid(0), 1, 1)

    assert [message.payload for message in page.messages] == [b"[1]"]
    assert not page.has_more


# -- what the server promises


@pytest.mark.parametrize(
    ("changed", "durability", "warning"),
    [
        ({}, "fsync", ""),
        ({"innodb_flush_log_at_trx_commit": "2"}, "os", "innodb_flush_log_at_trx_commit"),
        ({"innodb_flush_log_at_trx_commit": "0"}, "none", "CAN BE LOST"),
        ({"log_bin": "ON"}, "os", "sync_binlog"),
        ({"log_bin": "ON", "sync_binlog": "1"}, "fsync", ""),
        ({"max_allowed_packet": "1048576"}, "fsync", "max_allowed_packet"),
        ({"read_only": "ON"}, "fsync", "NOTHING CAN BE STORED"),
        ({"sql_mode": "NO_ENGINE_SUBSTITUTION"}, "fsync", "MESSAGES MAY BE CUT"),
        ({"sql_mode": "STRICT_TRANS_TABLES,NO_ZERO_DATE"}, "fsync", ""),
    ],
)
def test_guarantee_follows_the_servers_settings(
    changed: dict[str, str], durability: str, warning: str
) -> None:
    settings = {
        "innodb_flush_log_at_trx_commit": "1",
        "sync_binlog": "0",
        "log_bin": "OFF",
        "max_allowed_packet": "16777216",
        "read_only": "OFF",
        "sql_mode": "STRICT_ALL_TABLES",
    }

    promised = guarantee("mysql://h/d", {**settings, **changed})

    assert promised.durability == durability
    assert warning in promised.warning
    assert bool(promised.warning) == bool(warning)


def test_settings_that_cannot_be_read_promise_nothing() -> None:
    away, silent = guarantee("mysql://h/d", None), guarantee("mysql://h/d", {})

    assert (away.durability, silent.durability) == ("unknown", "unknown")
    assert "not reached" in away.warning
    assert "could not be read" in silent.warning


async def test_real_settings_are_read_and_a_weak_one_is_warned_of(
    server: MariaServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_mysql(server.url(DATABASE)) as store:
        (strong,) = store.describe()
    query(server, "SET GLOBAL innodb_flush_log_at_trx_commit = 0")
    try:
        async with open_mysql(server.url(DATABASE)) as store:
            (weak,) = store.describe()
    finally:
        query(server, "SET GLOBAL innodb_flush_log_at_trx_commit = 1")

    assert (strong.durability, strong.warning) == ("fsync", "")
    assert weak.durability == "none"
    assert weak.warning in caplog.text


async def test_message_over_the_servers_packet_is_refused_and_its_neighbours_are_saved(
    server: MariaServer,
) -> None:
    query(server, "SET GLOBAL max_allowed_packet = 1048576")
    try:
        async with open_mysql(server.url(DATABASE), writer_threads=1) as store:
            large = b'"' + b"x" * 600_000 + b'"'
            batches = [await batch_of(store, BOB, str(n), b'"' + b"y" * 300_000 + b'"') for n in range(5)]
            refused = store.save(await batch_of(store, BOB, "large", large))
            for saving in [store.save(batch) for batch in batches]:
                await saving
            with pytest.raises(TooLargeError):
                await refused
            assert len(await load_all(store, BOB)) == 5
    finally:
        query(server, "SET GLOBAL max_allowed_packet = 16777216")


# -- addresses


async def test_unix_socket_is_used(server: MariaServer) -> None:
    async with open_mysql(f"mysql://root@localhost/{DATABASE}?unix_socket={server.socket}") as store:
        await save_one(store, BOB, "1", b"[1]")


@pytest.mark.parametrize("password", ["s3cret", "pü", "p€", "@:/?#%"])
async def test_password_of_any_characters_is_taken(server: MariaServer, password: str) -> None:
    query(
        server,
        "SET NAMES utf8mb4",
        f"CREATE OR REPLACE USER 'guest'@'127.0.0.1' IDENTIFIED BY '{password}'",
        f"GRANT ALL ON {DATABASE}.* TO 'guest'@'127.0.0.1'",
    )
    try:
        url = server.url(DATABASE).replace("root@", f"guest:{quote(password, safe='')}@")
        async with open_mysql(url) as store:
            await save_one(store, BOB, "1", b"[1]")
            assert await load_all(store, BOB) == [b"[1]"]
    finally:
        query(server, "DROP USER 'guest'@'127.0.0.1'")


async def test_tls_checks_the_certificate_and_the_name(
    tmp_path: Path, certificate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = certificate.with_name("key.pem")
    with MariaServer(tmp_path / "server", f"--ssl-cert={certificate}", f"--ssl-key={key}") as server:
        make_empty(server)
        query(
            server,
            "CREATE USER guest IDENTIFIED BY 'pw' REQUIRE SSL",
            f"GRANT ALL ON {DATABASE}.* TO guest",
        )
        plain = f"mysql://guest:pw@127.0.0.1:{server.port}/{DATABASE}"
        encrypted = plain.replace("mysql:", "mysqls:")
        trusting = f"{encrypted}?ssl_ca={certificate}"
        async with open_mysql(trusting) as store:
            await save_one(store, BOB, "1", b"[1]")
            assert await load_all(store, BOB) == [b"[1]"]
        wrong = {
            plain: "Access denied",
            encrypted: "self-signed certificate",
            trusting.replace("127.0.0.1", "localhost"): "Hostname mismatch",
        }
        for url, reason in wrong.items():
            caplog.clear()
            async with open_mysql(url) as store:
                with pytest.raises(UnavailableError):
                    await store.clock()
            assert reason in caplog.text


async def test_server_that_has_answered_once_is_no_fault(server: MariaServer) -> None:
    async with open_mysql(server.url(DATABASE)) as store:
        assert store.start_fault() is None


async def test_server_that_is_away_at_the_start_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async with open_mysql("mysql://root:s3cret@127.0.0.1:1/x") as store:
        (guarantee,) = store.describe()
        fault = store.start_fault() or ""

    assert guarantee.durability == "unknown"
    assert "away" in caplog.text
    assert "refused" in fault
    assert "s3cret" not in caplog.text + str(guarantee) + fault


@pytest.mark.parametrize("url", ["mysql://h", "mysql://h/d?color=red", "mysqls://h/d?ssl_ca=/nowhere"])
def test_wrong_address_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError):
        make_store(url)
