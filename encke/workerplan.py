"""Which workers there are, and the settings of each: names, addresses, shares of the drain.

Every worker is a node with a configuration of its own, made from the one that
the operator wrote. Decides nothing about processes; see encke/workerprocess.py.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from cluster.addresses import MAX_PORT, is_unspecified, join_address, split_address
from cluster.errors import ConfigError
from cluster.model import NodeKind
from encke.config import EnckeConfig
from encke.listeners import LISTENERS, Bind, switched_on
from encke.ports import bind_faults
from encke.standalone import advertised

# Worker i listens this far above the configured ports, times i: room for all the ports of one.
PORT_STEP = 10

# Between the nodes of one machine: any free port, told by the registry.
_INSIDE = "127.0.0.1:0"

# Parts of process.drain_s under `encke serve`. One after the other: a push that
# web has accepted still finds the nodes that save and deliver it.
_DRAIN_SHARES = {NodeKind.WEB: 0.25, NodeKind.COMET: 0.65, NodeKind.MESSAGE: 0.1}


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """One worker: what it runs, with which settings."""

    kind: NodeKind
    config: EnckeConfig
    # The command of the supervisor, by whose status port those of the workers are moved.
    command: str

    @property
    def name(self) -> str:
        """Name of its node; labels its output and log."""
        name = getattr(self.config, self.kind.value).name
        assert isinstance(name, str)
        return name

    @property
    def binds(self) -> list[Bind]:
        """Where it will listen."""
        binds = []
        for listener in switched_on(LISTENERS[self.kind.value], self.config):
            bind = listener.bind(self.config)
            is_moved = listener.purpose == "status"
            setting = f"{self.command}.{listener.key}" if is_moved else bind.setting
            binds.append(replace(bind, words=f"{bind.words} of {self.name}", setting=setting))
        return binds

    def bound_at(self, addresses: dict[str, str]) -> WorkerPlan:
        """The same, to listen where it has listened before; for port 0, which is any.

        Args:
            addresses: bound "host:port" by purpose.
        """
        binds = {}
        for listener in LISTENERS[self.kind.value]:
            if (bound := addresses.get(listener.purpose)) is not None:
                # The host as configured: an empty one stands for several addresses.
                host, port = split_address(listener.address(self.config))
                binds[listener.key] = join_address(host, port or split_address(bound)[1])
        return replace(self, config=_with(self.config, self.kind, **binds))


def comet_plans(config: EnckeConfig, count: int) -> list[WorkerPlan]:
    """The workers of `encke comet --workers`.

    Raises:
        ConfigError: a port would be too high.
    """
    return _comet_plans(config, count, "comet")


def serve_plans(config: EnckeConfig, count: int) -> list[WorkerPlan]:
    """The workers of `encke serve --workers`: the message node, the comet nodes, the web node.

    They call each other on loopback only, with a secret that is made here.

    Raises:
        ConfigError: a port would be too high.
    """
    status = config.serve.status_bind
    inside = replace(
        config,
        rpc=replace(config.rpc, secret=secrets.token_hex(16)),
        message=replace(
            config.message, rpc_bind=_INSIDE, rpc_advertise="", status_bind=_moved(status, count + 1)
        ),
        comet=replace(
            advertised(config.comet, config.serve), rpc_bind=_INSIDE, rpc_advertise="", status_bind=status
        ),
        web=replace(config.web, status_bind=_moved(status, count + 2)),
    )
    plans = [
        WorkerPlan(NodeKind.MESSAGE, inside, "serve"),
        *_comet_plans(inside, count, "serve"),
        WorkerPlan(NodeKind.WEB, inside, "serve"),
    ]
    drain_s = config.process.drain_s
    return [
        replace(
            plan,
            config=replace(
                plan.config,
                process=replace(config.process, drain_s=drain_s * _DRAIN_SHARES[plan.kind]),
            ),
        )
        for plan in plans
    ]


def check_binds(binds: Sequence[Bind], other_faults: Sequence[str] = ()) -> None:
    """Find out whether all of them can be listened on, before anything is.

    Args:
        other_faults: found before, to be told with them.

    Raises:
        ConfigError: two are the same, one cannot be bound, or there are other faults.
    """
    faults = [*([*_overlaps(binds)] or bind_faults(binds)), *other_faults]
    if faults:
        raise ConfigError(faults)


def _comet_plans(config: EnckeConfig, count: int, command: str) -> list[WorkerPlan]:
    return [WorkerPlan(NodeKind.COMET, _comet_config(config, number), command) for number in range(count)]


def _comet_config(config: EnckeConfig, number: int) -> EnckeConfig:
    comet = config.comet
    return _with(
        config,
        NodeKind.COMET,
        name=f"{comet.name}-{number}",
        ws_bind=_moved(comet.ws_bind, number),
        tcp_bind=_moved(comet.tcp_bind, number),
        rpc_bind=_moved(comet.rpc_bind, number),
        # The configured one is the supervisor's.
        status_bind=_moved(comet.status_bind, number + 1),
        ws_advertise=_moved(comet.ws_advertise, number),
        tcp_advertise=_moved(comet.tcp_advertise, number),
        rpc_advertise=_moved(comet.rpc_advertise, number),
    )


def _moved(address: str, number: int) -> str:
    """An address of worker `number`; none stays none, and port 0 (any) stays 0.

    Raises:
        ConfigError: there is no such port.
    """
    if not address:
        return address
    host, port = split_address(address)
    moved = port + number * PORT_STEP if port else 0
    if moved > MAX_PORT:
        raise ConfigError(
            [f"--workers: {address} is too high a port: a worker would get {moved}, {MAX_PORT} is the last"]
        )
    return join_address(host, moved)


def _overlaps(binds: Sequence[Bind]) -> Iterable[str]:
    for one, other in combinations(binds, 2):
        (host, port), (other_host, other_port) = split_address(one.address), split_address(other.address)
        if not port or port != other_port:
            continue
        if host == other_host or any(not name or is_unspecified(name) for name in (host, other_host)):
            yield (
                f"port {port} would be listened on twice, for {one.words} and for {other.words}: worker"
                f" i takes the configured ports + {PORT_STEP} i; move one with {one.flag} or {other.flag}"
            )


def _with(config: EnckeConfig, kind: NodeKind, **changed: str) -> EnckeConfig:
    table = getattr(config, kind.value)
    return replace(config, **{kind.value: replace(table, **changed)})
