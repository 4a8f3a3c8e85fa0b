"""The cluster that most faults happen to: two nodes of each kind."""

from __future__ import annotations

import zlib

from cluster.model import Key, NodeName
from cluster.ring import Ring
from cluster.rpc.balancer import SLOTS, rank
from tests.support.cluster import Cluster, owned_by
from tests.support.cluster_run import ClusterRun

COMETS = ("comet-1", "comet-2")
MESSAGES = ("message-1", "message-2")
WEBS = ("web-1", "web-2")
NODES = (
    *(("message", name) for name in MESSAGES),
    *(("comet", name) for name in COMETS),
    *(("web", name) for name in WEBS),
)
KEYS_PER_COMET = 3


def six_keys() -> list[str]:
    """Keys of both comet nodes."""
    return [key for name in COMETS for key in owned_by(COMETS, name, KEYS_PER_COMET)]


def owner_of(key: str) -> str:
    """The comet node that owns a key while both are up."""
    return Ring(dict.fromkeys(map(NodeName, COMETS), 1)).owner(Key(key))


def started_run(cluster: Cluster, seed: int) -> ClusterRun:
    """Start the six nodes; a load on them that has not begun."""
    cluster.start(*NODES)
    return ClusterRun(cluster, six_keys(), seed)


def saved_by(cluster: Cluster, name: str, count: int) -> list[str]:
    """Keys that comet nodes save at this message node while both are up."""
    names = {"{}:{}".format(*cluster.nodes[one].addresses["rpc"]): one for one in MESSAGES}
    weights = dict.fromkeys(names, 1)
    keys: list[str] = []
    number = 0
    while len(keys) < count:
        number += 1
        key = Key(f"s{number}")
        if names[rank(zlib.crc32(key.encode()) % SLOTS, weights)[0]] == name:
            keys.append(key)
    return keys
