"""The text of a znode: what the original's tools read, what they wrote, and what nobody can use."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.model import NodeKind
from cluster.registry.znodes import (
    MAX_WEIGHT,
    MAX_ZNODE_BYTES,
    BadZnodeError,
    decode_znode,
    encode_znode,
    is_left_behind,
    run_of,
)
from tests.cluster.registry.registries import comet, message, replace_info, web

ORIGINAL: dict[str, Any] = {"rpc": ["c1:6970"], "tcp": ["c1:6969"], "ws": ["c1:6968"], "weight": 1}
HOSTS = {"rpc": ("c1:6970",), "tcp": ("c1:6969",), "ws": ("c1:6968",)}


def text(**changed: Any) -> bytes:
    return json.dumps({**ORIGINAL, **changed}).encode()


def without(*fields: str) -> bytes:
    return json.dumps({name: value for name, value in ORIGINAL.items() if name not in fields}).encode()


@pytest.mark.parametrize("info", [comet("a", weight=4, is_draining=True), message("m"), web("w")])
def test_what_one_node_announces_another_reads(info: Any) -> None:
    read = decode_znode(
        info.kind, "elsewhere" if info.kind is not NodeKind.COMET else "a", "i-1", encode_znode(info)
    )

    assert read == replace_info(info, instance="i-1")
    assert run_of(encode_znode(info)) == info.instance


def test_announced_comet_node_holds_the_fields_of_the_original() -> None:
    written = json.loads(encode_znode(comet("a", weight=2)))

    assert {name: written[name] for name in ORIGINAL} == {
        "rpc": ["10.0.0.1:6970"],
        "tcp": ["push.example:6969"],
        "ws": [":6968"],
        "weight": 2,
    }


def test_a_node_of_the_original_is_read() -> None:
    read = decode_znode(NodeKind.COMET, "node1", "i-1", text())

    assert (read.name, read.weight, read.is_draining) == ("node1", 1, False)
    assert read.addresses == HOSTS
    sole = decode_znode(NodeKind.MESSAGE, "0000000001", "i-2", b'{"rpc":["m1:8070"],"weight":1}')
    assert (sole.name, sole.addresses) == ("0000000001", {"rpc": ("m1:8070",)})


@pytest.mark.parametrize("absent", [without("tcp"), text(tcp=None), text(tcp=[])])
def test_a_node_without_one_of_its_listeners_is_read(absent: bytes) -> None:
    # A list that is nil is written as null by the original.
    read = decode_znode(NodeKind.COMET, "a", "i-1", absent)
    assert read.addresses == {"rpc": ("c1:6970",), "ws": ("c1:6968",)}


def test_node_without_tcp_announces_none_and_reads_what_it_has_announced() -> None:
    info = comet("a", addresses={"rpc": ("c1:6970",), "ws": (":6968",)})
    written = encode_znode(info)
    # Tools of the original want the field.
    assert json.loads(written)["tcp"] == []
    assert decode_znode(NodeKind.COMET, "a", "i-1", written).addresses == info.addresses
    assert is_left_behind(decode_znode(NodeKind.COMET, "a", "i-1", written), info)


def test_fields_of_a_later_version_are_passed_over() -> None:
    assert decode_znode(NodeKind.COMET, "a", "", text(shelves=[1, 2], room={"x": "y"})).weight == 1


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (b"", "JSON"),
        (b"{bad", "JSON"),
        (b"\xff\xfe", "JSON"),
        (b"[" * 60_000, "JSON"),
        (b"[]", "object"),
        (b"null", "object"),
        (without("rpc"), "rpc"),
        (without("weight"), "weight"),
        (text(weight=-1), "weight"),
        (text(weight="1"), "weight"),
        (text(weight=True), "weight"),
        (text(weight=1.5), "weight"),
        (text(weight=MAX_WEIGHT + 1), "weight"),
        (text(weight=10**400), "weight"),
        (without("tcp", "ws"), "tcp, ws: no address"),
        (text(tcp=[], ws=None), "tcp, ws: no address"),
        (text(rpc=[]), "rpc"),
        (text(rpc=None), "rpc"),
        (text(tcp={}), "tcp"),
        (text(rpc="c1:6970"), "rpc"),
        (text(rpc=["c1"]), "rpc"),
        (text(rpc=["c1:"]), "rpc"),
        (text(rpc=["c1:0"]), "rpc"),
        (text(rpc=["c1:70000"]), "rpc"),
        (text(rpc=[":6970"]), "rpc"),
        (text(rpc=["0.0.0.0:6970"]), "rpc"),
        (text(ws=["[::]:6968"]), "ws"),
        (text(ws=["c 1:6968"]), "ws"),
        (text(ws=[6968]), "ws"),
        (text(tcp=[None]), "tcp"),
        (text(version=["1"]), "version"),
        (text(started_at="now"), "started_at"),
        (text(started_at=10**400), "started_at"),
        (text(more="x" * MAX_ZNODE_BYTES), "larger"),
    ],
)
def test_what_cannot_be_used_is_told_in_words(bad: bytes, word: str) -> None:
    with pytest.raises(BadZnodeError, match=word):
        decode_znode(NodeKind.COMET, "a", "", bad)


@pytest.mark.parametrize("name", ["a\nb", "x" * 300, "\x1b[2J"])
def test_names_that_would_spoil_a_listing_are_refused(name: str) -> None:
    with pytest.raises(BadZnodeError, match="name"):
        decode_znode(NodeKind.COMET, name, "", text())
    with pytest.raises(BadZnodeError, match="name"):
        decode_znode(
            NodeKind.MESSAGE, "m", "", json.dumps({"rpc": ["m:1"], "weight": 1, "name": name}).encode()
        )


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from([*ORIGINAL, "name", "started_at"]), inner)
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_no_text_does_more_than_be_refused(any_text: bytes) -> None:
    for kind in NodeKind:
        try:
            decode_znode(kind, "a", "", any_text)
        except BadZnodeError:
            continue
    run_of(any_text)


@pytest.mark.parametrize(
    "wrong",
    [
        comet("a/b"),
        comet(""),
        comet(".."),
        comet("a", addresses={"rpc": (":6970",)}),
        comet("a", addresses={}),
        comet("a", addresses={"rpc": ("c:1",), "telnet": ("c:23",)}),
        message("m", weight=-1),
    ],
)
def test_what_others_could_not_use_is_not_announced(wrong: Any) -> None:
    with pytest.raises(BadZnodeError):
        encode_znode(wrong)


def test_an_entry_of_the_same_name_at_the_same_addresses_was_left_behind() -> None:
    assert is_left_behind(comet("a"), comet("a", weight=2))
    assert not is_left_behind(comet("a"), comet("a", 6971))
    assert is_left_behind(message("m"), message("m"))
    assert is_left_behind(decode_znode(NodeKind.COMET, "a", "i-1", text()), comet("a", addresses=HOSTS))


def test_who_copied_the_addresses_of_another_node_did_not_leave_its_entry_behind() -> None:
    assert not is_left_behind(comet("a"), comet("b"))
    assert not is_left_behind(message("m-1"), message("m-2"))
    # A message node of the original has no name of its own.
    nameless = decode_znode(NodeKind.MESSAGE, "0000000001", "i-2", b'{"rpc":["m:8070"],"weight":1}')
    assert not is_left_behind(nameless, message("m", addresses={"rpc": ("m:8070",)}))


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", ""])
def test_addresses_that_each_machine_has_prove_nothing(host: str) -> None:
    # As two machines announce with the defaults.
    addresses = {"public": (":8090",), "admin": (f"{host}:8091",), "status": (f"{host}:8092",)}
    node = replace_info(web("w"), addresses=addresses)
    assert not is_left_behind(node, node)
    reachable = replace_info(node, addresses={**addresses, "status": ("10.0.0.3:8092",)})
    assert is_left_behind(reachable, reachable)


def test_a_message_node_on_loopback_may_be_on_any_machine() -> None:
    node = message("m", addresses={"rpc": ("127.0.0.1:8070",)})
    assert not is_left_behind(node, node)


def test_a_comet_node_on_loopback_is_known_by_its_name() -> None:
    # Web nodes call it there, so all of the cluster is on one machine; and its keys wait for it.
    addresses = {"rpc": ("127.0.0.1:6970",), "ws": (":6968",), "tcp": (":6969",)}
    assert is_left_behind(comet("a", addresses=addresses), comet("a", addresses=addresses))
    assert not is_left_behind(comet("a", addresses=addresses), comet("b", addresses=addresses))
