"""The embedded store against crashes: what was answered is there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from cluster.errors import ConfigError
from cluster.model import Key
from message.storage.embedded.file import FILE_NAME
from message.storage.embedded.wal import FRAME_HEADER_BYTES, HEADER_BYTES
from tests.message.storage.saving import BOB, load_all, save_one
from tests.message.storage.saving_process import STORE_FAILED
from tests.message.storage.stores import open_store

DEADLINE_S = 60
FRAME_BYTES = FRAME_HEADER_BYTES + 4096


def start_saving(data_dir: Path, *arguments: str, tracer: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*tracer, sys.executable, "-m", "tests.message.storage.saving_process", str(data_dir), *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def acknowledged_until_killed(process: subprocess.Popen[str], count: int) -> dict[str, list[str]]:
    """Kill the process when it has got `count` answers; all answers by key."""
    acknowledged: dict[str, list[str]] = defaultdict(list)
    assert process.stdout is not None
    with process.stdout:
        for seen, line in enumerate(process.stdout, 1):
            word, key, payload, *_ = line.split()
            assert word == "ack", line
            acknowledged[key].append(payload)
            if seen == count:
                process.kill()
    process.wait(DEADLINE_S)
    return acknowledged


@pytest.mark.parametrize("durability", ["fsync", "os"])
async def test_everything_answered_survives_kills_in_the_middle_of_saves(
    tmp_path: Path, durability: str
) -> None:
    acknowledged: dict[str, list[str]] = defaultdict(list)
    for life in range(4):
        process = start_saving(
            tmp_path, "--durability", durability, "--keys", "20", "--prefix", f"life{life}-"
        )
        for key, payloads in acknowledged_until_killed(process, 100 + 150 * life).items():
            acknowledged[key] += payloads

    async with open_store(tmp_path) as store:
        for key, payloads in acknowledged.items():
            stored = [payload.decode() for payload in await load_all(store, Key(key))]
            # Saves that were committed but not answered may stand between.
            assert [payload for payload in stored if payload in payloads] == payloads
            assert len(stored) <= len(payloads) + 4


async def test_mids_increase_over_a_kill(tmp_path: Path) -> None:
    process = start_saving(tmp_path)
    acknowledged_until_killed(process, 50)
    async with open_store(tmp_path) as store:
        before = (await store.inspect(Key("key0"))).last

        reply = await save_one(store, Key("key0"), "new")

        assert reply.results[0].mid > before
        assert reply.results[0].prev == before


def test_no_answer_leaves_before_the_log_is_synced(tmp_path: Path) -> None:
    log = tmp_path / "strace"
    tracer = ("strace", "-f", "-y", "-o", str(log), "-e", "trace=fdatasync,fsync,write,pwrite64")
    process = start_saving(tmp_path / "data", "--saves", "40", tracer=tracer)
    assert process.stdout is not None
    process.stdout.read()
    process.stdout.close()
    assert process.wait(DEADLINE_S) == 0

    answers, unsynced = check_order(log.read_text())

    assert answers == 40
    assert unsynced == []


def check_order(trace: str) -> tuple[int, list[str]]:
    """Count answers in a trace, and list those that left while the write-ahead log was not synced."""
    is_dirty = False
    writes = answers = 0
    unsynced: list[str] = []
    syncing: set[str] = set()
    for line in trace.splitlines():
        pid = line.split()[0]
        if "pwrite64(" in line and "-wal>" in line:
            is_dirty = True
            writes += 1
        elif re.search(r"f(data)?sync\(\d+<\S+-wal>", line):
            if "unfinished" in line:
                syncing.add(pid)
            else:
                assert line.endswith("= 0"), line
                is_dirty = False
        elif pid in syncing and "sync resumed>" in line:
            syncing.discard(pid)
            assert line.endswith("= 0"), line
            is_dirty = False
        elif "write(1<" in line and '"ack ' in line:
            answers += 1
            if is_dirty:
                unsynced.append(line)
    assert writes >= answers
    return answers, unsynced


async def test_failed_sync_stops_the_store_and_loses_nothing_answered(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    injection = ("-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=30+")
    tracer = ("strace", "-f", "-o", str(tmp_path / "strace"), *injection)
    process = start_saving(data_dir, "--keys", "3", tracer=tracer)
    assert process.stdout is not None
    said = process.stdout.read().splitlines()
    process.stdout.close()
    assert process.wait(DEADLINE_S) == STORE_FAILED

    answered = [line.split()[1:3] for line in said if line.startswith("ack")]
    failed = [line.split()[3] for line in said if line.startswith("failed")]
    assert answered
    assert "InDoubtError" in failed
    # Nothing is answered once a sync has failed.
    assert all(line.startswith("failed") for line in said[said.index(f"ack {' '.join(answered[-1])}") + 1 :])
    async with open_store(data_dir) as store:
        for key, payload in answered:
            assert payload.encode() in await load_all(store, Key(key))


# -- the write-ahead log after a crash


async def crashed_copy(tmp_path: Path, saves: int) -> Path:
    """The files of a store that has not been stopped: everything is in the log."""
    copy = tmp_path / "copy"
    copy.mkdir()
    async with open_store(tmp_path / "data") as store:
        for number in range(saves):
            await save_one(store, BOB, str(number), b"[%d]" % number)
        for name in (FILE_NAME, f"{FILE_NAME}-wal"):
            shutil.copy(tmp_path / "data" / name, copy / name)
    return copy


async def test_torn_end_of_the_log_is_only_the_last_save(tmp_path: Path) -> None:
    copy = await crashed_copy(tmp_path, 5)
    log = copy / f"{FILE_NAME}-wal"
    with log.open("r+b") as file:
        file.truncate(log.stat().st_size - 1000)

    async with open_store(copy) as store:
        assert await load_all(store, BOB) == [b"[0]", b"[1]", b"[2]", b"[3]"]
        await save_one(store, BOB, "new", b"[5]")
        assert await load_all(store, BOB) == [b"[0]", b"[1]", b"[2]", b"[3]", b"[5]"]


async def test_whole_log_is_taken_over(tmp_path: Path) -> None:
    copy = await crashed_copy(tmp_path, 5)

    async with open_store(copy) as store:
        assert await load_all(store, BOB) == [b"[%d]" % n for n in range(5)]


async def test_log_that_is_broken_before_answered_saves_is_refused(tmp_path: Path) -> None:
    copy = await crashed_copy(tmp_path, 5)
    flip(copy / f"{FILE_NAME}-wal", HEADER_BYTES + FRAME_BYTES + 100)
    before = (copy / f"{FILE_NAME}-wal").read_bytes()

    with pytest.raises(ConfigError, match=r"-wal is damaged .*later commits.*encke backup"):
        async with open_store(copy):
            pass

    # Left as it is, for whoever wants to rescue something.
    assert (copy / f"{FILE_NAME}-wal").read_bytes() == before


async def test_damaged_database_with_a_log_is_refused_and_both_are_left_alone(tmp_path: Path) -> None:
    copy = await crashed_copy(tmp_path, 5)
    # Pages that the log holds anew would hide their damage, so all but the first.
    with (copy / FILE_NAME).open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    before = contents(copy)

    with pytest.raises(ConfigError, match=r"is damaged .*Nothing was changed"):
        async with open_store(copy):
            pass

    assert contents(copy) == before


def contents(directory: Path) -> list[bytes]:
    return [(directory / name).read_bytes() for name in (FILE_NAME, f"{FILE_NAME}-wal")]


async def test_log_that_is_broken_is_taken_as_it_is_when_it_was_not_synced(tmp_path: Path) -> None:
    copy = await crashed_copy(tmp_path, 5)
    flip(copy / f"{FILE_NAME}-wal", HEADER_BYTES + FRAME_BYTES + 100)

    async with open_store(copy, durability="os") as store:
        assert await load_all(store, BOB) == []


async def test_log_with_a_bad_header_is_refused(tmp_path: Path) -> None:
    for offset in (0, 8, 17):
        directory = tmp_path / str(offset)
        directory.mkdir()
        copy = await crashed_copy(directory, 2)
        flip(copy / f"{FILE_NAME}-wal", offset)

        with pytest.raises(ConfigError, match="is damaged"):
            async with open_store(copy):
                pass


async def test_log_of_a_header_alone_is_empty(tmp_path: Path) -> None:
    copy = await crashed_copy(tmp_path, 2)
    with (copy / f"{FILE_NAME}-wal").open("r+b") as file:
        file.truncate(HEADER_BYTES)

    async with open_store(copy) as store:
        assert await load_all(store, BOB) == []


def flip(path: Path, offset: int, bits: int = 0xFF) -> None:
    """Change one byte, or single bits of it."""
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ bits]))
