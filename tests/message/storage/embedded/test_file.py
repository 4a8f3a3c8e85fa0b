"""The embedded store's files: lock, damage, foreign files, versions."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ConfigError, StorageError
from cluster.stats import Stats
from message.storage.embedded.file import FILE_NAME, connect, told_to_operator
from message.storage.embedded.schema import MIGRATIONS, migrate
from tests.message.storage.embedded.test_crash import acknowledged_until_killed, flip, start_saving
from tests.message.storage.saving import BOB, load_all, save_one
from tests.message.storage.store_suite import unreadable
from tests.message.storage.stores import open_store

SCHEMA_1 = Path(__file__).with_name("schema_1.sql")


async def stored(data_dir: Path, count: int = 200) -> Path:
    """A store that was stopped orderly; its file."""
    async with open_store(data_dir) as store:
        for number in range(count):
            await save_one(store, BOB, str(number), b"x" * 500)
    return data_dir / FILE_NAME


async def refusal(data_dir: Path, **changed: Any) -> str:
    """Why a store does not open."""
    with pytest.raises(ConfigError) as caught:
        async with open_store(data_dir, **changed):
            pass
    return str(caught.value)


def test_file_that_cannot_be_opened_is_told_with_the_usual_reasons(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / FILE_NAME
    with pytest.raises(ConfigError) as caught, told_to_operator(path):
        connect(path, is_synced=True)
    assert str(caught.value) == (
        f"cannot open {path}: unable to open database file"
        " (missing rights, or too many open files: ulimit -n)"
    )


# -- the lock


async def test_second_store_in_the_directory_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    process = start_saving(tmp_path)

    text = await refusal(tmp_path)
    acknowledged_until_killed(process, 1)

    assert f"in use by another process (pid {process.pid})" in text
    assert str(tmp_path) in text
    # The lock ends with the process.
    async with open_store(tmp_path):
        pass


async def test_stopped_store_can_be_opened_again_in_the_same_process(tmp_path: Path) -> None:
    async with open_store(tmp_path) as first:
        await save_one(first, BOB, "1", b"[1]")
        assert f"pid {os.getpid()}" in await refusal(tmp_path)
        await first.stop()
        await first.start()
        assert await load_all(first, BOB) == [b"[1]"]


async def test_refused_start_lets_the_lock_go(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"")
    await refusal(tmp_path)
    (tmp_path / FILE_NAME).unlink()

    async with open_store(tmp_path):
        pass


async def test_missing_directories_are_made_for_the_owner_only(tmp_path: Path) -> None:
    async with open_store(tmp_path / "a" / "b"):
        pass

    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a" / "b" / FILE_NAME).stat().st_mode) == 0o600


async def test_directory_that_cannot_be_made_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    text = await refusal(tmp_path / "file" / "data")

    assert re.fullmatch(
        r"cannot use \S+/file/data as data directory: Not a directory; choose another with message.data_dir",
        text,
    )


# What the encoding of file names cannot say: in UTF-8 a surrogate, in others most letters.
@pytest.mark.parametrize("name", ["\ud800", "\0"])
async def test_directory_whose_name_cannot_be_written_is_refused(tmp_path: Path, name: str) -> None:
    text = await refusal(tmp_path / name)

    assert text.startswith(f"cannot use {tmp_path / name} as data directory: ")


# -- damage


async def test_orderly_stop_leaves_one_file(tmp_path: Path) -> None:
    await stored(tmp_path)

    assert sorted(os.listdir(tmp_path)) == ["lock", FILE_NAME]


@pytest.mark.parametrize("content", [b"", b"SQLite format 2\0" * 600, b"\0" * 10_000])
async def test_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(content)

    text = await refusal(tmp_path)

    assert "is damaged" in text
    assert "encke backup" in text
    assert ".recover" in text
    assert path.read_bytes() == content


async def test_damaged_header_is_refused(tmp_path: Path) -> None:
    path = await stored(tmp_path)
    for offset in (0, 16, 21):
        flip(path, offset)
        assert "is damaged" in await refusal(tmp_path)
        flip(path, offset)


async def test_damaged_page_in_the_middle_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = await stored(tmp_path)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2 // 4096 * 4096)
        file.write(os.urandom(4096))
    before = path.read_bytes()

    text = await refusal(tmp_path)

    assert "is damaged" in text
    assert path.read_bytes() == before


async def test_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    path = await stored(tmp_path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)

    assert "is damaged" in await refusal(tmp_path)


async def test_index_that_disagrees_with_its_table_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = await stored(tmp_path, 10)
    connection = sqlite3.connect(path)
    (last,) = connection.execute("SELECT max(mid) FROM messages").fetchone()
    connection.close()
    start = (root_page(path, "messages_by_key") - 1) * 4096
    # The index has one page. The last mid in it is a tick off, and stays in its order.
    offset = path.read_bytes().index(int(last).to_bytes(8, "big"), start)
    assert offset < start + 4096
    flip(path, offset + 7, 1)
    before = path.read_bytes()

    text = await refusal(tmp_path)

    assert "is damaged" in text
    assert path.read_bytes() == before


async def test_large_file_is_checked_only_after_an_unclean_stop(tmp_path: Path) -> None:
    path = await stored(tmp_path)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(os.urandom(4096))

    async with open_store(tmp_path, check_below_bytes=0):
        pass

    log = path.with_name(f"{FILE_NAME}-wal")
    log.write_bytes(b"\0" * 32)
    assert "is damaged" in await refusal(tmp_path, check_below_bytes=0)


async def test_damage_met_by_the_start_is_refused_also_without_a_check(tmp_path: Path) -> None:
    path = await stored(tmp_path)
    # Everything but the first page, which holds the schema.
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))

    assert "is damaged" in await refusal(tmp_path, check_below_bytes=0)


async def test_damage_met_by_a_save_stops_the_store(tmp_path: Path) -> None:
    path = await stored(tmp_path)
    root = root_page(path, "messages_by_key")
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)

    async with open_store(tmp_path, check_below_bytes=0) as store:
        with pytest.raises(StorageError, match="cannot read the store"):
            await load_all(store, BOB)
        with pytest.raises(StorageError, match="not stored"):
            await save_one(store, BOB, "new")
        assert "malformed" in await store.failed


def root_page(path: Path, name: str) -> int:
    connection = sqlite3.connect(path)
    (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)).fetchone()
    connection.close()
    return int(page)


async def test_missing_file_with_a_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / f"{FILE_NAME}-wal").write_bytes(b"something")

    assert "is missing but its write-ahead log" in await refusal(tmp_path)
    assert not (tmp_path / FILE_NAME).exists()


async def test_database_of_another_program_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute("CREATE TABLE t (a)")
    connection.close()

    assert "another program" in await refusal(tmp_path)


async def test_rest_of_a_start_that_was_killed_is_replaced(tmp_path: Path) -> None:
    (tmp_path / f"{FILE_NAME}.new").write_bytes(b"half a file")

    async with open_store(tmp_path) as store:
        await save_one(store, BOB, "1", b"[1]")
        assert await load_all(store, BOB) == [b"[1]"]


# -- versions


def make_version_1(path: Path, *changes: str) -> None:
    """A store of version 1, changed as something else might have."""
    connection = sqlite3.connect(path)
    connection.executescript(SCHEMA_1.read_text())
    connection.executescript(";".join(changes))
    connection.close()


async def test_file_of_version_1_is_opened_and_brought_up_to_date(tmp_path: Path) -> None:
    make_version_1(tmp_path / FILE_NAME)

    async with open_store(tmp_path) as store:
        assert await load_all(store, BOB) == [b"[1]", b"[2]"]
        assert await store.acknowledged(BOB, "phone") == 17_900_000_000_000_080
        reply = await save_one(store, BOB, "3", b"[3]")
        assert reply.results[0].mid > 17_900_000_000_000_160
        assert await load_all(store, BOB) == [b"[1]", b"[2]", b"[3]"]

    connection = sqlite3.connect(tmp_path / FILE_NAME)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    # What was stored before has no checksum.
    rows = connection.execute("SELECT crc IS NULL FROM messages ORDER BY mid").fetchall()
    assert rows == [(1,), (1,), (0,)]
    connection.close()


@pytest.mark.parametrize("poison", [b"not JSON", b'"\xff"', b"{", b"", b"[" * 100_000])
async def test_value_of_an_older_file_that_is_not_json_is_left_out_counted_and_logged(
    tmp_path: Path, poison: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    make_version_1(tmp_path / FILE_NAME, f"UPDATE messages SET payload = x'{poison.hex()}' WHERE id = 1")
    stats = Stats()

    async with open_store(tmp_path, stats) as store:
        assert await load_all(store, BOB) == [b"[2]"]

    assert unreadable(stats) == 1
    assert caplog.text.count("damaged: key=bob mid=17900000000000080") == 1


async def test_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = await stored(tmp_path, 1)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()

    text = await refusal(tmp_path)

    assert "schema version 99" in text
    assert f"up to {len(MIGRATIONS)}" in text


def test_migrations_run_in_order_and_each_as_a_whole() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)

    def one(c: sqlite3.Connection) -> None:
        c.execute("CREATE TABLE one (a)")

    def two(c: sqlite3.Connection) -> None:
        c.execute("INSERT INTO one VALUES (1)")
        raise sqlite3.OperationalError("disk I/O error")

    assert migrate(connection, (one,)) == 0
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, (one, two))

    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert connection.execute("SELECT count(*) FROM one").fetchone() == (0,)
    connection.close()
