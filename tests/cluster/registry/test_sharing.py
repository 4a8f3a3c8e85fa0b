"""cluster/registry/sharing.py: one warning for two nodes at one address."""

from __future__ import annotations

import pytest

from cluster.model import NodeInfo
from cluster.registry.sharing import MAX_NODES, Sharing
from tests.cluster.registry.registries import comet, message, web


def at(name: str, rpc: str, **more: str) -> NodeInfo:
    addresses = {"rpc": rpc, "ws": ":6968", "tcp": ":6969", **more}
    return comet(name, addresses={purpose: (address,) for purpose, address in addresses.items()})


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_pair_is_told_of_once_while_it_lasts_and_again_when_it_comes_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sharing = Sharing()
    one = at("comet-1", "10.0.0.1:6970", ws="push.example:6968")
    other = at("comet-3", "10.0.0.1:6970", ws="push.example:6968")

    for _ in range(2):
        sharing.tell([one, other])
    assert lines(caplog) == [
        "two nodes announce one address, which leads to one of them: node=comet comet-1"
        " other=comet comet-3 addresses=rpc 10.0.0.1:6970, ws push.example:6968"
    ]

    sharing.tell([one])
    sharing.tell([other, one])
    assert len(lines(caplog)) == 2


@pytest.mark.parametrize(
    "nodes",
    [
        # A standby, and an entry that a process of the same name has left behind.
        (at("a", "10.0.0.1:6970"), at("a", "10.0.0.1:6970")),
        # What every machine has.
        (at("a", "10.0.0.1:6970"), at("b", "10.0.0.2:6970")),
        (
            at("a", "10.0.0.1:6970", ws="127.0.0.1:6968", tcp="localhost:6969"),
            at("b", "10.0.0.2:6970", ws="127.0.0.1:6968", tcp="localhost:6969"),
        ),
        (web("a"), web("b")),
    ],
)
def test_nodes_that_may_stand_so_are_not_told_of(
    nodes: tuple[NodeInfo, NodeInfo], caplog: pytest.LogCaptureFixture
) -> None:
    Sharing().tell(nodes)

    assert lines(caplog) == []


@pytest.mark.parametrize(
    "nodes",
    [
        (at("a", "127.0.0.1:6970"), at("b", "127.0.0.1:6970")),
        (at("a", "10.0.0.1:6970", tcp="push.example:1"), at("b", "10.0.0.2:6970", tcp="push.example:1")),
        (message("a"), message("b")),
        (at("a", "10.0.0.2:8070"), message("a")),
    ],
)
def test_nodes_that_are_mistaken_for_each_other_are_told_of(
    nodes: tuple[NodeInfo, NodeInfo], caplog: pytest.LogCaptureFixture
) -> None:
    Sharing().tell(nodes)

    assert len(lines(caplog)) == 1


def test_many_nodes_at_one_address_are_not_told_of_pair_by_pair(caplog: pytest.LogCaptureFixture) -> None:
    Sharing().tell([at(f"node-{number:03}", "10.0.0.1:6970") for number in range(100)])

    assert len(lines(caplog)) == MAX_NODES * (MAX_NODES - 1) // 2
