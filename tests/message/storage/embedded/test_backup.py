"""Backups: whole, while the store is in use, never over something else."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from pathlib import Path

import pytest

from cluster.errors import StorageError
from cluster.model import Key
from message.storage.embedded.backup import backup
from message.storage.embedded.file import FILE_NAME
from tests.message.storage.embedded.test_crash import acknowledged_until_killed, flip, start_saving
from tests.message.storage.saving import BOB, load_all, save_one
from tests.message.storage.stores import open_store


async def restored(copy: Path, data_dir: Path, key: Key) -> list[bytes]:
    put_back(copy, data_dir)
    async with open_store(data_dir) as store:
        return await load_all(store, key)


def put_back(copy: Path, data_dir: Path) -> None:
    data_dir.mkdir()
    shutil.copy(copy, data_dir / FILE_NAME)


async def test_backup_of_a_stopped_store_can_be_opened(tmp_path: Path) -> None:
    async with open_store(tmp_path / "data") as store:
        await save_one(store, BOB, "1", b"[1]")

    size = backup(tmp_path / "data", tmp_path / "copy.db")

    assert size == (tmp_path / "copy.db").stat().st_size
    assert await restored(tmp_path / "copy.db", tmp_path / "new", BOB) == [b"[1]"]
    # What the copy left beside the store does not look like a crash.
    async with open_store(tmp_path / "data") as store:
        assert await load_all(store, BOB) == [b"[1]"]


async def test_backup_while_saves_go_on_holds_everything_answered_before(tmp_path: Path) -> None:
    process = start_saving(tmp_path / "data", "--prefix", "p")
    assert process.stdout is not None
    answered = [process.stdout.readline().split()[2] for _ in range(100)]

    await asyncio.to_thread(backup, tmp_path / "data", tmp_path / "copy.db")
    answered_later = acknowledged_until_killed(process, 1)["key0"]

    copied = [p.decode() for p in await restored(tmp_path / "copy.db", tmp_path / "new", Key("key0"))]
    assert copied[:100] == answered
    assert answered_later


def test_backup_does_not_replace_a_file(tmp_path: Path) -> None:
    make_store(tmp_path / "data")
    (tmp_path / "copy.db").write_text("precious")

    with pytest.raises(StorageError, match="exists already"):
        backup(tmp_path / "data", tmp_path / "copy.db")

    assert (tmp_path / "copy.db").read_text() == "precious"


def test_backup_without_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no store"):
        backup(tmp_path, tmp_path / "copy.db")


def test_backup_into_a_missing_directory_says_so(tmp_path: Path) -> None:
    make_store(tmp_path / "data")

    with pytest.raises(StorageError, match="No such file or directory"):
        backup(tmp_path / "data", tmp_path / "missing" / "copy.db")


def test_backup_of_another_programs_database_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute("CREATE TABLE t (a)")
    connection.close()

    with pytest.raises(StorageError, match="another program"):
        backup(tmp_path, tmp_path / "copy.db")
    assert sorted(p.name for p in tmp_path.iterdir()) == [FILE_NAME]


def test_damaged_store_leaves_no_backup(tmp_path: Path) -> None:
    make_store(tmp_path / "data")
    flip(tmp_path / "data" / FILE_NAME, 4096)

    with pytest.raises(StorageError, match=r"damaged|malformed"):
        backup(tmp_path / "data", tmp_path / "copy.db")

    assert not list(tmp_path.glob("copy*"))


def make_store(data_dir: Path) -> None:
    async def make() -> None:
        async with open_store(data_dir) as store:
            await save_one(store, BOB, "1", b"[1]")

    asyncio.run(make())
