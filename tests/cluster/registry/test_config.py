"""The registry's settings: what contradicts itself is told at start."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.errors import ConfigError
from cluster.registry.config import RegistrySettings
from cluster.registry.zookeeper import ZooKeeperRegistry


def test_defaults_are_without_fault() -> None:
    assert list(RegistrySettings().faults()) == []


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ({"servers": ()}, "servers"),
        ({"servers": ("zk1",)}, "servers"),
        ({"servers": (":2181",)}, "servers"),
        ({"servers": ("zk1:0",)}, "servers"),
        ({"servers": ("zk1:2181", "zk2:2181/root")}, "servers"),
        ({"comet_path": "nodes"}, "comet_path"),
        ({"comet_path": "/"}, "comet_path"),
        ({"comet_path": "/nodes/"}, "comet_path"),
        ({"comet_path": "/a//b"}, "comet_path"),
        ({"comet_path": "/a/../b"}, "comet_path"),
        ({"comet_path": "/zookeeper/a"}, "comet_path"),
        ({"message_path": "/gopush-cluster-comet"}, "message_path"),
        ({"web_path": "/gopush-cluster-comet/web"}, "web_path"),
        ({"digest": "password"}, "digest"),
        ({"digest": ":password"}, "digest"),
        ({"session_timeout_s": 0.8, "retry_max_s": 0.5}, "retry_max_s"),
    ],
)
def test_faults_are_told_with_their_place(changed: dict[str, Any], place: str) -> None:
    settings = RegistrySettings(**changed)

    assert [key for key, _ in settings.faults()] == [place]
    with pytest.raises(ConfigError, match=f"registry.{place}"):
        ZooKeeperRegistry(settings)
