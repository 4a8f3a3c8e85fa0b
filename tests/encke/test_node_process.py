"""A node in a process of its own: what it says about its settings."""

from __future__ import annotations

import pytest

from comet.config import CometConfig
from encke.nodes import unknown_hosts


def test_comet_node_of_a_cluster_on_several_machines_wants_its_subscribers_addresses() -> None:
    config = CometConfig(rpc_bind="10.0.0.7:6970", tcp_advertise="push.example.org:6969")
    (warning,) = unknown_hosts(config)
    assert "comet.ws_advertise" in warning


@pytest.mark.parametrize(
    "config",
    [
        CometConfig(),
        CometConfig(rpc_bind="0.0.0.0:6970", ws_bind="10.0.0.7:6968", tcp_bind="10.0.0.7:6969"),
        CometConfig(rpc_bind="0.0.0.0:6970", ws_advertise="a:1", tcp_advertise="a:2"),
        CometConfig(rpc_bind="0.0.0.0:6970", ws_advertise="a:1", tcp_bind=""),
    ],
    ids=["one machine", "bound to an address", "advertised", "switched off"],
)
def test_subscribers_who_find_their_node_need_no_warning(config: CometConfig) -> None:
    assert unknown_hosts(config) == []
