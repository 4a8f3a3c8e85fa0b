"""Settings of a message node: its name and addresses, and which store it has."""

from __future__ import annotations

from dataclasses import dataclass, field

from message.storage.embedded.config import EmbeddedSettings


# A table of the file is one flat dataclass (cluster/config.py), and [message] holds the settings of the
# embedded store beside the node's own. A field of them, instead of a base, would need a loader that
# knows of tables within tables, for this one.
@dataclass(frozen=True, slots=True)
class MessageConfig(EmbeddedSettings):
    """The message node and the embedded store. The limits hold for every store."""

    name: str = field(default="message-1", metadata={"doc": "Name in the listing of nodes."})
    weight: int = field(
        default=1,
        metadata={"doc": "Share of the keys relative to other message nodes.", "min": 0, "max": 1000},
    )
    store: str = field(
        default="embedded",
        metadata={
            "doc": "Where messages are kept. embedded: in data_dir, with exactly one message node "
            "(or `encke serve`). The others may have any number of nodes; their tables say where the servers "
            "are.",
            "choices": ("embedded", "redis", "mysql"),
        },
    )
    rpc_bind: str = field(
        default="127.0.0.1:8070",
        metadata={
            "doc": "Where other nodes call `encke message`. On an address that others can reach set "
            "rpc.secret."
        },
    )
    rpc_advertise: str = field(
        default="",
        metadata={"doc": "host:port told to other nodes. Empty: the bound one; 0.0.0.0 needs it."},
    )
    status_bind: str = field(
        default="127.0.0.1:8072",
        metadata={
            "doc": "Where `encke message` answers /healthz, /readyz and /metrics.",
            "may_be_off": True,
        },
    )
