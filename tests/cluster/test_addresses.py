"""Addresses as they are written, and what a host means."""

from __future__ import annotations

import pytest

from cluster.addresses import is_loopback, join_address, split_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::]:0", ("::", 0)),
        ("a.example:65535", ("a.example", 65535)),
        (":80", ("", 80)),
    ],
)
def test_address_is_split_and_joined(text: str, address: tuple[str, int]) -> None:
    assert split_address(text) == address
    assert join_address(*address) == text


def test_ipv4_peer_of_a_socket_for_both_families_is_told_as_ipv4() -> None:
    assert join_address("::ffff:192.0.2.1", 80) == "192.0.2.1:80"
    assert join_address("64:ff9b::192.0.2.1", 80) == "[64:ff9b::192.0.2.1]:80"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a:",
        "a:b",
        "a:-1",
        "a:٣",
        "::1:80",
        "a:65536",
        "[::1]",
        "10.0.0..5:80",
        ".:80",
        "x" * 64 + ":80",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        split_address(text)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.10", "::1"])
def test_loopback_addresses_are_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "10.0.0.1", "::", "127.example.com", "node-1", "128.0.0.1"])
def test_other_addresses_can_be_reached_by_others(host: str) -> None:
    assert not is_loopback(host)
