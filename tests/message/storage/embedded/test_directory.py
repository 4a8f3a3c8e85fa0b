"""The data directory of the embedded store, tried before it is used: the same verdict, and nothing made."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cluster.errors import ConfigError
from message.storage.embedded.directory import LOCK_NAME, make_locked, try_directory
from message.storage.embedded.file import DirectoryLock


def faults_of(work: Callable[[], object]) -> tuple[str, ...]:
    """What is refused with; nothing when it is not."""
    try:
        work()
    except ConfigError as error:
        return error.faults
    return ()


def paths_in(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*"))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for two files beside its root; needs root, as CI has."""
    directory = tmp_path / "disk"
    directory.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk")
    run("mount", "-t", "tmpfs", "-o", "nr_inodes=3", "tmpfs", str(directory))
    yield directory
    run("umount", str(directory))


def run(*command: str) -> None:
    subprocess.run(command, check=True)


@pytest.mark.parametrize("name", ["data", "several/levels/deep"])
def test_directory_that_is_missing_can_be_used_and_is_not_made(tmp_path: Path, name: str) -> None:
    try_directory(tmp_path / name)

    assert paths_in(tmp_path) == []


def test_directory_that_was_used_can_be_used_again(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path):
        pass

    try_directory(tmp_path)

    assert paths_in(tmp_path) == [tmp_path / LOCK_NAME]
    with DirectoryLock(tmp_path):
        pass


def test_directory_in_use_is_refused_with_its_holder_and_what_chooses_another(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path), pytest.raises(ConfigError) as caught:
        try_directory(tmp_path, "--data-dir or message.data_dir")

    assert caught.value.faults == (
        f"{tmp_path} is in use by another process (pid {os.getpid()}):"
        " stop it, or choose another with --data-dir or message.data_dir",
    )


def link_to_nowhere(path: Path) -> Path:
    path.symlink_to("nowhere")
    return path


def file_in_the_way(path: Path) -> Path:
    path.write_text("")
    return path


UNUSABLE: dict[str, Callable[[Path], Path]] = {
    "is a file": file_in_the_way,
    "is below a file": lambda path: file_in_the_way(path) / "data",
    "is a link to nowhere": link_to_nowhere,
    "is below a link to nowhere": lambda path: link_to_nowhere(path) / "data",
    "has a name that is too long": lambda path: path.with_name("x" * 300),
    "has a name with a NUL": lambda path: path / "\0",
    "has a name that no encoding has": lambda path: path / "\ud800",
    "is where nothing can be made": lambda _: Path("/proc/data"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_directory_that_cannot_be_used_is_refused_when_it_is_tried(tmp_path: Path, name: str) -> None:
    directory = UNUSABLE[name](tmp_path / "data")
    before = paths_in(tmp_path)

    (fault,) = faults_of(lambda: try_directory(directory))

    assert paths_in(tmp_path) == before
    assert fault.startswith(f"cannot use {directory} as data directory: ")
    assert fault.endswith("; choose another with message.data_dir")
    assert faults_of(lambda: make_locked(directory)) != ()


def test_directory_that_became_read_only_is_refused(disk: Path) -> None:
    with DirectoryLock(disk):
        pass
    run("mount", "-o", "remount,ro", str(disk))

    (fault,) = faults_of(lambda: try_directory(disk))

    assert "Read-only file system" in fault


def test_directory_without_room_for_a_file_is_refused(disk: Path) -> None:
    with DirectoryLock(disk), closing((disk / "other").open("w")):
        (fault,) = faults_of(lambda: try_directory(disk))

    assert "No space left on device" in fault
