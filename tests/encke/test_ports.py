"""encke/ports.py."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from encke.listeners import Bind
from encke.ports import bind_faults, holder_of


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on loopback that somebody listens on: we."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def bind(address: str) -> Bind:
    return Bind("subscribers", address, "--ws-bind", "comet.ws_bind")


def test_free_ports_are_no_fault() -> None:
    assert bind_faults([bind("127.0.0.1:0"), bind("0.0.0.0:0"), bind("[::1]:0"), bind(":0")]) == []


def test_taken_port_is_told_with_its_holder_and_how_to_choose_another(taken: int) -> None:
    (fault,) = bind_faults([bind(f"127.0.0.1:{taken}"), bind("127.0.0.1:0")])
    assert fault.startswith(f"port {taken} for subscribers is in use by process {os.getpid()} (")
    assert fault.endswith("): stop it, or choose another with --ws-bind or comet.ws_bind")


def test_port_taken_on_one_address_is_taken_for_all_of_them(taken: int) -> None:
    assert len(bind_faults([bind(f"0.0.0.0:{taken}"), bind(f":{taken}")])) == 2


def test_port_left_by_closed_connections_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            # Closed first on this side: it stays in TIME_WAIT with the server's port.
            server.accept()[0].close()
    assert bind_faults([bind(f"127.0.0.1:{port}")]) == []


@pytest.mark.parametrize("address", ["203.0.113.1:80", "no-such-host.invalid:80"])
def test_address_that_is_not_ours_is_told(address: str) -> None:
    (fault,) = bind_faults([bind(address)])
    assert fault.startswith(f"cannot listen on {address} for subscribers: ")
    assert fault.endswith("choose another with --ws-bind or comet.ws_bind")


def test_holder_that_cannot_be_seen_is_another_process() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        assert holder_of(probe.getsockname()[1]) == "another process"
