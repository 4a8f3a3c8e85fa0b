"""encke/workerplan.py: names, ports and settings of workers."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable

import pytest

from cluster.errors import ConfigError
from cluster.model import NodeKind
from encke.config import EnckeConfig, load_config
from encke.listeners import Bind
from encke.workerplan import WorkerPlan, check_binds, comet_plans, serve_plans


def config(**comet: str) -> EnckeConfig:
    """The defaults, but for some settings of comet."""
    defaults = load_config(None)
    return dataclasses.replace(defaults, comet=dataclasses.replace(defaults.comet, **comet))  # type: ignore[arg-type]


def by_kind(plans: list[WorkerPlan], kind: NodeKind) -> list[WorkerPlan]:
    return [plan for plan in plans if plan.kind is kind]


def binds_of(plans: list[WorkerPlan]) -> list[Bind]:
    return [bind for plan in plans for bind in plan.binds]


def test_comet_workers_are_nodes_of_their_own_on_ports_ten_apart() -> None:
    first, second = comet_plans(config(name="c"), 2)
    assert (first.name, second.name) == ("c-0", "c-1")
    assert [bind.address for bind in first.binds] == [
        "0.0.0.0:6968",
        "0.0.0.0:6969",
        "127.0.0.1:6970",
        "127.0.0.1:6982",
    ]
    assert [bind.address for bind in second.binds] == [
        "0.0.0.0:6978",
        "0.0.0.0:6979",
        "127.0.0.1:6980",
        "127.0.0.1:6992",
    ]


def test_any_port_stays_any_port_and_advertised_addresses_move_likewise() -> None:
    changed = config(ws_bind="[::]:0", ws_advertise="push.example:443", tcp_advertise="push.example:0")
    comet = comet_plans(changed, 3)[2].config.comet
    assert (comet.ws_bind, comet.ws_advertise) == ("[::]:0", "push.example:463")
    assert (comet.tcp_advertise, comet.rpc_advertise) == ("push.example:0", "")


def test_nodes_of_one_machine_call_each_other_on_loopback_with_a_secret() -> None:
    plans = serve_plans(config(rpc_advertise="10.0.0.1:6970"), 2)
    assert [plan.kind for plan in plans] == [
        NodeKind.MESSAGE,
        NodeKind.COMET,
        NodeKind.COMET,
        NodeKind.WEB,
    ]
    (secret,) = {plan.config.rpc.secret for plan in plans}
    assert len(secret) == 32
    assert secret != serve_plans(config(), 2)[0].config.rpc.secret
    for plan in by_kind(plans, NodeKind.COMET):
        assert plan.config.comet.rpc_bind == "127.0.0.1:0"
        assert plan.config.comet.rpc_advertise == ""
    assert plans[0].config.message.rpc_bind == "127.0.0.1:0"


def test_status_ports_of_a_server_stand_in_one_row() -> None:
    plans = serve_plans(config(), 2)
    comets = [plan.config.comet.status_bind for plan in by_kind(plans, NodeKind.COMET)]
    assert comets == ["127.0.0.1:6982", "127.0.0.1:6992"]
    assert plans[0].config.message.status_bind == "127.0.0.1:7002"
    assert plans[-1].config.web.status_bind == "127.0.0.1:7012"


def test_the_drain_of_a_server_is_shared_out_one_after_the_other() -> None:
    plans = serve_plans(config(), 3)
    per_kind = {plan.kind: plan.config.process.drain_s for plan in plans}
    assert sum(per_kind.values()) == pytest.approx(8.0)


def test_host_that_serve_advertises_is_told_with_the_port_of_each_worker() -> None:
    base = config()
    serve = dataclasses.replace(base.serve, advertise_host="push.example")
    plans = serve_plans(dataclasses.replace(base, serve=serve), 2)
    told = [plan.config.comet.ws_advertise for plan in by_kind(plans, NodeKind.COMET)]
    assert told == ["push.example:6968", "push.example:6978"]


def test_a_worker_that_is_started_again_listens_where_it_was() -> None:
    plan = comet_plans(config(ws_bind="127.0.0.1:0", tcp_bind=":0"), 1)[0]
    again = plan.bound_at({"ws": "127.0.0.1:41234", "tcp": "0.0.0.0:41235", "rpc": "127.0.0.1:6970"})
    assert again.config.comet.ws_bind == "127.0.0.1:41234"
    assert again.config.comet.tcp_bind == ":41235"
    assert dataclasses.replace(again.config.comet, ws_bind="", tcp_bind="") == dataclasses.replace(
        plan.config.comet, ws_bind="", tcp_bind=""
    )


def test_what_is_switched_off_is_so_for_every_worker() -> None:
    plans = comet_plans(config(tcp_bind="", status_bind=""), 2)
    assert [bind.address for bind in binds_of(plans)] == [
        *("0.0.0.0:6968", "127.0.0.1:6970"),
        *("0.0.0.0:6978", "127.0.0.1:6980"),
    ]
    again = plans[1].bound_at({"ws": "0.0.0.0:6978", "rpc": "127.0.0.1:6980"})
    assert again == plans[1]


def test_workers_of_a_server_without_a_status_port_have_none() -> None:
    base = config(ws_bind="")
    serve = dataclasses.replace(base.serve, status_bind="", advertise_host="push.example")
    plans = serve_plans(dataclasses.replace(base, serve=serve), 2)
    assert {bind.flag for bind in binds_of(plans)} == {
        *("--tcp-bind", "--rpc-bind", "--public-bind", "--admin-bind")
    }


def test_a_port_above_the_last_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"65529 is too high a port: a worker would get 65539"):
        comet_plans(config(ws_bind="127.0.0.1:65529"), 2)


@pytest.mark.parametrize(
    ("ws_bind", "tcp_bind", "is_double"),
    [
        ("127.0.0.1:7000", "127.0.0.1:7010", True),
        ("0.0.0.0:7000", "127.0.0.1:7010", True),
        ("127.0.0.2:7000", "127.0.0.1:7010", False),
        ("127.0.0.1:7000", "127.0.0.1:7020", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
    ],
)
def test_ports_that_two_workers_want_are_refused_by_name(
    ws_bind: str, tcp_bind: str, is_double: bool
) -> None:
    changed = config(ws_bind=ws_bind, tcp_bind=tcp_bind, rpc_bind="127.0.0.1:0", status_bind="127.0.0.1:0")
    binds = binds_of(comet_plans(changed, 2))
    if not is_double:
        check_binds(binds)
        return
    with pytest.raises(ConfigError) as refused:
        check_binds(binds)
    (fault,) = refused.value.faults
    assert fault.startswith(
        "port 7010 would be listened on twice, for TCP subscribers of comet-1-0"
        " and for WebSocket subscribers of comet-1-1"
    )


def test_a_port_in_use_is_told_with_the_worker_that_wants_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        changed = config(
            ws_bind=f"127.0.0.1:{port}", tcp_bind="127.0.0.1:0", rpc_bind="127.0.0.1:0", status_bind=":0"
        )
        with pytest.raises(
            ConfigError, match=f"port {port} for WebSocket subscribers of comet-1-0 is in use"
        ):
            check_binds(binds_of(comet_plans(changed, 1)))


@pytest.mark.parametrize(
    ("plans", "setting"), [(comet_plans, "comet.status_bind"), (serve_plans, "serve.status_bind")]
)
def test_status_ports_of_workers_are_chosen_by_that_of_their_command(
    plans: Callable[[EnckeConfig, int], list[WorkerPlan]], setting: str
) -> None:
    binds = binds_of(plans(config(), 2))
    assert {bind.setting for bind in binds if bind.flag == "--status-bind"} == {setting}
