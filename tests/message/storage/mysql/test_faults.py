"""The MySQL store while its server is killed, frozen, read-only, locked, or ends its connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any

import pymysql
import pytest

from cluster.contracts.message import Outcome, SaveBatch, SaveItem
from cluster.errors import (
    ConfigError,
    EnckeError,
    InDoubtError,
    NotOwnerError,
    StorageError,
    UnavailableError,
)
from cluster.mids import TICKS_PER_SECOND
from cluster.model import Key, Mid
from tests.message.storage.mysql_stores import DATABASE, make_empty, open_mysql, query
from tests.message.storage.saving import BOB, batch_of, load_all, save_one, save_until_it_fails, until_saved
from tests.support.eventually import eventually
from tests.support.servers import MariaServer


@pytest.fixture
def server(plain_mariadb: MariaServer) -> Iterator[MariaServer]:
    """A server with an empty database, which a test may ill-treat."""
    make_empty(plain_mariadb)
    yield plain_mariadb
    if not plain_mariadb.is_running:
        plain_mariadb.start()


def url(server: MariaServer) -> str:
    return server.url(DATABASE)


def limited_user(server: MariaServer) -> str:
    """The URL of a user whom read_only stops."""
    query(
        server, "CREATE OR REPLACE USER encke@'127.0.0.1'", f"GRANT ALL ON {DATABASE}.* TO encke@'127.0.0.1'"
    )
    return url(server).replace("root", "encke")


def connections_of(server: MariaServer) -> set[int]:
    """The server's numbers of a store's connections."""
    return {
        row[0]
        for row in query(
            server,
            "SELECT id FROM information_schema.processlist"
            f" WHERE db = '{DATABASE}' AND id != CONNECTION_ID()",
        )
    }


def holding(server: MariaServer) -> pymysql.connections.Connection[Any]:
    """A connection of somebody else, who begins a transaction and takes his time."""
    return pymysql.connect(
        host="127.0.0.1", port=server.port, user="root", database=DATABASE, ssl_disabled=True
    )


async def test_everything_that_was_answered_survives_a_kill_of_the_server(server: MariaServer) -> None:
    async with open_mysql(url(server), retry_s=0.02) as store:
        keys = [Key(f"user:{n}") for n in range(8)]
        saving = [asyncio.create_task(save_until_it_fails(store, key)) for key in keys]
        for n in range(5):
            await save_one(store, Key("while-they-save"), f"some-{n}")

        server.kill()
        results = await asyncio.gather(*saving)
        server.start()

        for key, (answered, broken) in zip(keys, results, strict=True):
            outcome = await until_saved(store, broken)
            assert outcome in (Outcome.SAVED, Outcome.REPEATED)
            assert await load_all(store, key) == [*answered, broken.items[0].payload]


async def test_frozen_server_is_given_up_and_used_again(server: MariaServer) -> None:
    async with open_mysql(url(server), timeout_s=0.4, connect_timeout_s=0.4, retry_s=0.02) as store:
        await save_one(store, BOB, "0", b"[0]")
        batch = await batch_of(store, BOB, "1", b"[1]")
        server.freeze()

        with pytest.raises(UnavailableError):
            await store.save(batch)
        with pytest.raises(UnavailableError):
            await store.load_after(BOB, Mid(0), 10, 1000)
        server.thaw()

        assert await until_saved(store, batch) in (Outcome.SAVED, Outcome.REPEATED)
        assert await load_all(store, BOB) == [b"[0]", b"[1]"]


async def test_read_only_server_refuses_and_stores_nothing(
    server: MariaServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_mysql(limited_user(server), writer_threads=3) as store:
        batches = [await batch_of(store, Key(f"user:{n}"), str(n)) for n in range(5)]
        query(server, "SET GLOBAL read_only = 1")
        try:
            results = await asyncio.gather(*map(store.save, batches), return_exceptions=True)
            kept = await load_all(store, BOB)
        finally:
            query(server, "SET GLOBAL read_only = 0")

        assert {type(result) for result in results} == {StorageError}
        assert kept == []
        assert query(server, "SELECT COUNT(*) FROM private_msg") == ((0,),)
        assert await until_saved(store, batches[0]) is Outcome.SAVED
    # Not one of each connection.
    (told,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert told.message.startswith("the database refuses")


async def test_table_that_is_gone_is_an_error_for_the_operator(
    server: MariaServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_mysql(url(server)) as store:
        batch = await batch_of(store, BOB, "1")
        query(server, "RENAME TABLE private_msg TO elsewhere")
        try:
            with pytest.raises(StorageError, match="doesn't exist"):
                await store.save(batch)
            with pytest.raises(StorageError, match="doesn't exist"):
                await load_all(store, BOB)
        finally:
            query(server, "RENAME TABLE elsewhere TO private_msg")

    (told,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert told.message.startswith("the database refuses")


async def test_server_that_became_read_only_is_connected_to_anew(
    server: MariaServer, caplog: pytest.LogCaptureFixture
) -> None:
    # Its name may lead to the new primary, but only new connections find that out; and reads
    # over the old ones would miss what is saved there.
    async with open_mysql(limited_user(server), writer_threads=1, reader_threads=1) as store:
        await save_one(store, BOB, "1", b"[1]")
        await load_all(store, BOB)
        batch = await batch_of(store, BOB, "2", b"[2]")
        before = connections_of(server)
        query(server, "SET GLOBAL read_only = 1")
        try:
            for _ in range(3):
                with pytest.raises(StorageError):
                    await store.save(batch)
            promised = store.describe()[0].warning
        finally:
            query(server, "SET GLOBAL read_only = 0")

        await store.remove_expired(1)
        assert await until_saved(store, batch) is Outcome.SAVED
        assert await load_all(store, BOB) == [b"[1]", b"[2]"]
        after = connections_of(server)

    assert "NOTHING CAN BE STORED" in promised
    assert not before & after
    assert caplog.text.count("the database refuses") == 1


async def test_connections_that_the_operator_kills_are_replaced(server: MariaServer) -> None:
    async with open_mysql(url(server), retry_s=0.02) as store:
        await save_one(store, BOB, "1", b"[1]")
        await load_all(store, BOB)
        batch = await batch_of(store, BOB, "2", b"[2]")
        for thread in connections_of(server):
            query(server, f"KILL {thread}")

        # They were idle: nobody notices.
        await store.save(batch)
        assert await load_all(store, BOB) == [b"[1]", b"[2]"]


async def test_lock_on_a_table_delays_and_then_refuses(server: MariaServer) -> None:
    async with open_mysql(url(server), timeout_s=1.5) as store:
        batch = await batch_of(store, BOB, "1", b"[1]")
        with closing(holding(server)) as other, other.cursor() as cursor:
            cursor.execute("LOCK TABLES private_msg WRITE")
            # A lock on a table waits for longer than one on a row: then the driver gives up.
            with pytest.raises(EnckeError) as refused:
                await store.save(batch)
            cursor.execute("UNLOCK TABLES")

        assert not isinstance(refused.value, InDoubtError)
        assert await until_saved(store, batch) is Outcome.SAVED
        assert await load_all(store, BOB) == [b"[1]"]


async def test_key_that_somebody_locks_is_refused_in_time_and_others_are_saved(server: MariaServer) -> None:
    async with open_mysql(url(server), timeout_s=2.5, writer_threads=1) as store:
        await save_one(store, BOB, "0", b"[0]")
        batch = await batch_of(store, BOB, "1", b"[1]")
        with closing(holding(server)) as other, other.cursor() as cursor:
            cursor.execute("SELECT * FROM encke_keys WHERE skey = 'bob' FOR UPDATE")
            with pytest.raises(StorageError, match="Lock wait timeout"):
                await store.save(batch)
            await save_one(store, Key("alice"), "1")
            other.rollback()

        assert await until_saved(store, batch) is Outcome.SAVED


async def test_two_nodes_that_save_to_the_same_keys_do_not_hold_each_other_up(server: MariaServer) -> None:
    async with open_mysql(url(server)) as one, open_mysql(url(server)) as other:
        deadline = Mid(await one.clock() + 60 * TICKS_PER_SECOND)
        keys = [Key(f"user:{n}") for n in range(60)]

        def save_all(store: Any, name: str, order: int) -> list[Any]:
            return [
                store.save(SaveBatch(key, [SaveItem(f"{name}-{n}", b"{}", 600)], Mid(0), deadline))
                for n in range(5)
                for key in keys[::order]
            ]

        same = [
            store.save(SaveBatch(BOB, [SaveItem("same", b"1", 600)], Mid(0), deadline))
            for store in (one, other)
        ]
        replies = await asyncio.gather(*save_all(one, "one", 1), *save_all(other, "other", -1))
        repeated = await asyncio.gather(*same)

        assert {reply.results[0].outcome for reply in replies} == {Outcome.SAVED}
        assert len({reply.results[0].mid for reply in repeated}) == 1
        assert await load_all(one, BOB) == [b"1"]
        for key in keys:
            page = await other.load_after(key, Mid(0), 100, 100_000)
            assert len({message.mid for message in page.messages}) == 10


async def test_fence_waits_for_the_save_that_was_there_before_it(server: MariaServer) -> None:
    async with open_mysql(url(server), timeout_s=5.0) as store:
        await store.save(await batch_of(store, BOB, "0", b"[0]", incarnation="old-1"))
        batch = await batch_of(store, BOB, "1", b"[1]", incarnation="old-1")
        with closing(holding(server)) as other, other.cursor() as cursor:
            cursor.execute("SELECT * FROM encke_keys WHERE skey = 'bob' FOR UPDATE")
            saving = store.save(batch)
            await eventually(lambda: waits_for_locks(server) == 1)
            fencing = asyncio.ensure_future(store.fence("old-1"))
            await eventually(lambda: waits_for_locks(server) == 2)
            other.rollback()

        await saving
        await fencing
        with pytest.raises(NotOwnerError):
            await store.save(await batch_of(store, BOB, "2", incarnation="old-1"))
        assert await load_all(store, BOB) == [b"[0]", b"[1]"]


def waits_for_locks(server: MariaServer) -> int:
    """How many transactions wait for another one's rows."""
    return int(query(server, "SHOW STATUS LIKE 'Innodb_row_lock_current_waits'")[0][1])


async def test_many_long_names_at_once_do_not_burst_the_servers_packet(server: MariaServer) -> None:
    query(server, f"SET GLOBAL max_allowed_packet = {4 * 1024 * 1024}")
    try:
        async with open_mysql(url(server), writer_threads=1, timeout_s=20.0) as store:
            deadline = Mid(await store.clock() + 60 * TICKS_PER_SECOND)
            batches = [
                SaveBatch(
                    Key(f"{key:0512}"),
                    [SaveItem(f"{key:064}{item:064}", b"[1]", 600) for item in range(64)],
                    Mid(0),
                    deadline,
                )
                for key in range(60)
            ]
            replies = await asyncio.gather(*map(store.save, batches))
    finally:
        query(server, f"SET GLOBAL max_allowed_packet = {16 * 1024 * 1024}")

    outcomes = {result.outcome for reply in replies for result in reply.results}
    assert outcomes == {Outcome.SAVED}


def packet(number: int, content: bytes) -> bytes:
    """One packet of MySQL's protocol."""
    return len(content).to_bytes(3, "little") + bytes([number]) + content


@asynccontextmanager
async def server_that_wants_an_encrypted_login() -> AsyncIterator[str]:
    """URL of something that greets and asks for a login as MySQL 8 does, and goes no further."""
    capabilities = 0x0008A209
    greeting = (
        b"\x0a8.0.40\0" + bytes(4) + b"12345678\0" + (capabilities & 0xFFFF).to_bytes(2, "little")
        + b"\x2d\x02\x00" + (capabilities >> 16).to_bytes(2, "little") + b"\x15" + bytes(10)
        + b"123456789012\0caching_sha2_password\0"
    )  # fmt: skip

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The greeting; "not without the password itself"; a key to encrypt it with.
        for number, content in ((0, greeting), (2, b"\x01\x04"), (4, b"\x01a public key")):
            writer.write(packet(number, content))
            size = int.from_bytes(await reader.read(3), "little")
            await reader.read(1 + size)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        yield f"mysql://encke:secret@127.0.0.1:{server.sockets[0].getsockname()[1]}/{DATABASE}"


async def test_login_that_needs_encryption_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    # The driver may find the library that could encrypt it without TLS; ours does not bring it.
    monkeypatch.setattr("pymysql._auth._have_cryptography", False)
    async with server_that_wants_an_encrypted_login() as address:
        with pytest.raises(ConfigError, match="mysqls://"):
            async with open_mysql(address):
                pass
