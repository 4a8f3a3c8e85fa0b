"""The embedded store on a disk that refuses writes: it says so, goes on reading, and recovers by itself."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.errors import InDoubtError, StorageError
from cluster.model import Key
from cluster.stats import Stats
from message.storage.embedded.file import FILE_NAME
from message.storage.embedded.store import EmbeddedStore
from tests.message.storage.clocks import SteppedClock
from tests.message.storage.embedded.test_crash import FRAME_BYTES
from tests.message.storage.saving import BOB, batch_of, load_all, save_one
from tests.message.storage.stores import open_store, settings_for

PAYLOAD = b"x" * 50_000


@contextlib.contextmanager
def files_limited_to(size_bytes: int) -> Iterator[None]:
    """Let writes of this process fail beyond a size of the file (EFBIG: "disk I/O error")."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own (ENOSPC: "database or disk is full"); needs root, as CI has."""
    directory = tmp_path / "disk"
    directory.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(directory))
    yield directory
    run("umount", str(directory))


def enlarge(disk: Path) -> None:
    """Make room."""
    run("mount", "-o", "remount,size=64m", str(disk))


def run(*command: str) -> None:
    subprocess.run(command, check=True)


async def fill(store: EmbeddedStore) -> list[bytes]:
    """Save until the store refuses; what was answered, and the first refusal is expected."""
    answered: list[bytes] = []
    for number in range(1000):
        payload = b"%04d" % number + PAYLOAD
        try:
            await save_one(store, BOB, str(number), payload)
        except (StorageError, InDoubtError):
            return answered
        answered.append(payload)
    raise AssertionError("the disk never became full")


async def test_full_disk_is_answered_reads_go_on_and_space_ends_it(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_store(small_disk) as store:
        answered = await fill(store)
        for number in range(5):
            with pytest.raises((StorageError, InDoubtError)):
                await save_one(store, Key("other"), f"again{number}", PAYLOAD)

        assert answered
        assert await load_all(store, BOB) == answered
        assert not store.failed.done()
        # One line for the whole episode.
        assert [r.getMessage()[:9] for r in caplog.records if r.levelname == "ERROR"] == ["disk full"]

        enlarge(small_disk)
        await save_one(store, BOB, "after", b"[1]")
        assert await load_all(store, BOB) == [*answered, b"[1]"]
        assert "the disk takes writes again" in caplog.text
        # What the failed commits left in the log is gone: a crash now does not look like damage.
        assert log_size(small_disk) <= FRAME_BYTES


def log_size(directory: Path) -> int:
    return (directory / f"{FILE_NAME}-wal").stat().st_size


async def test_commit_that_writes_nothing_does_not_mean_that_the_disk_takes_writes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_store(tmp_path) as store:
        await save_one(store, BOB, "1")
        with files_limited_to(log_size(tmp_path)):
            with pytest.raises(InDoubtError):
                await save_one(store, BOB, "2")
            assert await store.remove_expired(10) == 0
            await store.save(await batch_of(store, BOB, "1"))
            (refusing,) = store.describe()
        assert "takes writes again" not in caplog.text
        assert refusing.away is not None

        await save_one(store, BOB, "2")
        assert "takes writes again" in caplog.text


async def test_save_refused_by_a_full_disk_is_not_there_later(small_disk: Path) -> None:
    async with open_store(small_disk) as store:
        answered = await fill(store)
        enlarge(small_disk)

    async with open_store(small_disk) as store:
        assert await load_all(store, BOB) == answered


async def test_write_error_is_in_doubt_and_the_store_goes_on(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await save_one(store, BOB, "1", b"[1]")
        log = tmp_path / f"{FILE_NAME}-wal"
        with files_limited_to(log.stat().st_size + 4096):
            for push_id in ("2", ""):
                with pytest.raises(InDoubtError) as refused:
                    await save_one(store, BOB, push_id, PAYLOAD)
                assert refused.value.is_rolled_back
            assert await load_all(store, BOB) == [b"[1]"]
            assert not store.failed.done()

        # The repeats that doubt asks for.
        for push_id in ("2", ""):
            await save_one(store, BOB, push_id, PAYLOAD)
        assert await load_all(store, BOB) == [b"[1]", PAYLOAD, PAYLOAD]


async def test_patience_with_others_is_kept_when_the_log_cannot_begin_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_store(tmp_path) as store:
        for number in range(40):
            await save_one(store, BOB, str(number), PAYLOAD)
    # All of it is in the database now, beyond what its file may be below.
    async with open_store(tmp_path) as store:

        async def patience_ms() -> int:
            row = await store._change(None, lambda c: c.execute("PRAGMA busy_timeout").fetchone())
            return int(row[0])

        before = await patience_ms()
        with files_limited_to(4096), pytest.raises((StorageError, InDoubtError)):
            await save_one(store, BOB, "refused", PAYLOAD)
        with files_limited_to(1_000_000):
            await save_one(store, BOB, "saved", PAYLOAD)

        assert "cannot begin the write-ahead log anew" in caplog.text
        assert await patience_ms() == before > 0


async def test_expired_messages_are_removed_again_after_a_full_disk(tmp_path: Path) -> None:
    clock = SteppedClock()
    store = EmbeddedStore(settings_for(tmp_path), Stats(), wall_ns=clock.wall_ns)
    await store.start()
    await save_one(store, BOB, "1")
    clock.advance(1000)
    log = tmp_path / f"{FILE_NAME}-wal"
    with files_limited_to(log.stat().st_size), pytest.raises((StorageError, InDoubtError)):
        await store.remove_expired(10)

    assert await store.remove_expired(10) == 1
    await store.stop()
