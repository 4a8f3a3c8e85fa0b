"""Finds out before anything is started whether the addresses can be listened on, and who is in the way."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from cluster.addresses import split_address
from cluster.listening import try_listening
from encke.listeners import Bind

# State of a listening socket in /proc/net/tcp.
_LISTEN = "0A"


def bind_faults(binds: Iterable[Bind]) -> list[str]:
    """Say of each address that cannot be bound why not, who holds it, and what to change."""
    faults = [_fault(bind) for bind in binds]
    return [fault for fault in faults if fault is not None]


def _fault(bind: Bind) -> str | None:
    _, port = split_address(bind.address)
    advice = f"choose another with {bind.flag} or {bind.setting}"
    try:
        try_listening(bind.address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"port {port} for {bind.words} is in use by {holder_of(port)}: stop it, or {advice}"
        return f"cannot listen on {bind.address} for {bind.words}: {error.strerror}; {advice}"
    return None


def holder_of(port: int) -> str:
    """Name the process that listens on a TCP port, as far as this user may see it."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            descriptors = list((process / "fd").iterdir())
        except OSError:
            # Gone meanwhile, or another user's.
            continue
        for descriptor in descriptors:
            try:
                is_holder = os.readlink(descriptor) in inodes
            except OSError:
                continue
            if is_holder:
                return f"process {process.name} ({_name(process)})"
    return "another process"


def _listening_inodes(port: int) -> list[str]:
    inodes = []
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            # sl, local address, remote address, state, ..., inode in the tenth column.
            columns = line.split()
            if columns[3] == _LISTEN and int(columns[1].rpartition(":")[2], 16) == port:
                inodes.append(columns[9])
    return inodes


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "gone meanwhile"
