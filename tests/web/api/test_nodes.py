"""web/api/nodes.py: who is listed, and with what."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from cluster.contracts.web import STATUS_PATH
from cluster.model import NodeInfo, NodeKind, NodeName
from cluster.registry.memory import MemoryRegistry
from cluster.stats import Stats
from cluster.status import StatusListener
from tests.support.servers import free_port
from tests.support.services import GUARANTEE, ScriptedComet
from tests.support.web import Web, comet_info, running_web
from tests.web.conftest import no_messages


async def listing(web: Web) -> dict[str, Any]:
    response = await web.admin("GET", "/2/admin/nodes")
    assert response.status == 200
    assert response.json["registry"] == "connected"
    return {f"{node['kind']}/{node['instance']}": node for node in response.json["nodes"]}


def message_info(**fields: Any) -> NodeInfo:
    return NodeInfo(NodeKind.MESSAGE, NodeName("m"), "m", {"rpc": ("10.0.0.1:8070",)}, **fields)


async def test_every_node_is_listed_with_its_state_share_and_numbers(comet: ScriptedComet) -> None:
    registry = MemoryRegistry()
    async with running_web({"comet-1": comet}, no_messages(), registry=registry) as web:
        await registry.register(comet_info("comet-1", instance="second", weight=2, version="1.2"))
        await registry.register(comet_info("comet-1", instance="third", is_draining=True))
        await registry.register(message_info(started_at=1.0))
        await registry.register(msgspec.structs.replace(message_info(weight=0), instance="idle"))
        listed = await listing(web)
    # The second does not say when it was started.
    assert listed["message/m"]["uptime_s"] > 1e9
    assert (listed["message/idle"]["state"], listed["message/idle"]["uptime_s"]) == ("standby", 0.0)
    first, second = listed["comet/comet-1"], listed["comet/second"]
    assert (first["state"], first["share"], first["connections"], first["channels"]) == ("serving", 1.0, 7, 5)
    assert (first["capacity"], first["weight"], first["pushes"], first["fault"]) == (100, 1, 9, None)
    assert (first["stores"], first["gone_s"]) == (None, None)
    assert first["addresses"] == {"ws": ["comet-1.example:6968"], "tcp": ["comet-1.example:6969"]}
    assert (second["state"], second["share"], second["version"]) == ("standby", None, "1.2")
    assert listed["comet/third"]["state"] == "draining"
    message = listed["message/m"]
    assert (message["state"], message["connections"], message["pushes"]) == ("serving", 3, 4)
    assert message["stores"] == [
        {
            "backend": GUARANTEE.backend,
            "location": GUARANTEE.location,
            "durability": GUARANTEE.durability,
            "promise": GUARANTEE.promise,
            "warning": GUARANTEE.warning,
            "away": {"for_s": 34.2, "reason": "Connection refused"},
        }
    ]
    own = listed["web/web"]
    assert set(own["addresses"]) == {"public", "admin"}
    assert own["uptime_s"] < 60
    assert (own["connections"], own["pushes"]) == (1, 0)


async def test_node_that_does_not_answer_is_listed_all_the_same(comet: ScriptedComet) -> None:
    comet.is_silent = True
    async with running_web({"comet-1": comet}, no_messages(), status_timeout_s=0.05) as web:
        node = (await listing(web))["comet/comet-1"]
    assert (node["state"], node["share"], node["connections"]) == ("serving", 1.0, None)
    assert node["fault"] == "no answer within 0.05 s"


async def test_comet_node_that_serves_nobody_says_why(comet: ScriptedComet) -> None:
    comet.name = "comet-1"
    comet.fault = "serves nobody: its registration has ended"
    async with running_web({"comet-1": comet}, no_messages()) as web:
        node = (await listing(web))["comet/comet-1"]
    assert (node["state"], node["connections"], node["fault"]) == ("serving", 7, comet.fault)


async def test_comet_node_at_the_address_of_another_is_not_believed(
    comet: ScriptedComet,
) -> None:
    comet.name = "comet-2"
    async with running_web({"comet-1": comet}, no_messages()) as web:
        node = (await listing(web))["comet/comet-1"]
    assert (node["state"], node["connections"]) == ("serving", None)
    assert node["fault"] == "comet-2 answers at its address: see comet.rpc_advertise"


async def test_message_node_that_drains_is_not_asked(comet: ScriptedComet) -> None:
    registry = MemoryRegistry()
    async with running_web({"comet-1": comet}, no_messages(), registry=registry) as web:
        await registry.register(message_info(is_draining=True))
        node = (await listing(web))["message/m"]
    assert (node["state"], node["connections"], node["fault"]) == ("draining", None, "it takes no more calls")


async def test_nodes_that_have_just_gone_are_listed_as_died_or_left(comet: ScriptedComet) -> None:
    registry = MemoryRegistry()
    async with running_web({"comet-1": comet}, no_messages(), registry=registry) as web:
        died = await registry.register(message_info(started_at=1.0, version="1.2"))
        left = await registry.register(comet_info("comet-2", instance="left"))
        await left.update(comet_info("comet-2", instance="left", is_draining=True))
        await died.withdraw()
        await left.withdraw()
        listed = await listing(web)
    died_view, left_view = listed["message/m"], listed["comet/left"]
    assert (died_view["state"], left_view["state"]) == ("died", "left")
    assert (died_view["version"], died_view["connections"], died_view["fault"]) == ("1.2", None, None)
    assert 0 <= died_view["gone_s"] < 60
    assert died_view["addresses"] == {"rpc": ["10.0.0.1:8070"]}


# -- other web nodes


@contextlib.asynccontextmanager
async def status_port(document: str) -> AsyncIterator[str]:
    port = StatusListener("127.0.0.1:0", Stats(), lambda: None, documents={STATUS_PATH: lambda: document})
    try:
        yield await port.start()
    finally:
        await port.stop()


async def other_web(web: Web, address: str | None) -> dict[str, Any]:
    """What is listed of a web node with this status address."""
    addresses = {} if address is None else {"status": (address,)}
    info = NodeInfo(NodeKind.WEB, NodeName("web-2"), f"at {address}", addresses, started_at=12.0)
    entry = await web.registry.register(info)
    try:
        node = (await listing(web))[f"web/at {address}"]
        assert isinstance(node, dict)
        return node
    finally:
        await entry.withdraw()


async def test_other_web_node_is_asked_at_its_status_port(web: Web) -> None:
    async with status_port('{"name":"web-2","started_at":12.0,"connections":5,"pushes":6}') as address:
        node = await other_web(web, address)
    assert (node["connections"], node["pushes"], node["fault"]) == (5, 6, None)


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ('{"name":"web-1","started_at":12.0,"connections":5,"pushes":6}', "leads to another node"),
        ('{"name":"web-2","started_at":13.0,"connections":5,"pushes":6}', "leads to another node"),
        ("null", "not the status of a web node"),
        ("[" * 100_000, "not the status of a web node"),
    ],
)
async def test_whoever_else_answers_there_is_not_believed(web: Web, document: str, fault: str) -> None:
    async with status_port(document) as address:
        node = await other_web(web, address)
    assert (node["state"], node["connections"]) == ("serving", None)
    assert fault in node["fault"]


async def test_web_node_that_cannot_be_asked_is_listed_with_the_reason(web: Web) -> None:
    assert "web.status_bind" in (await other_web(web, None))["fault"]
    assert "web.status_advertise" in (await other_web(web, ":8092"))["fault"]
    address = f"127.0.0.1:{free_port()}"
    assert (await other_web(web, address))["fault"].startswith(address)
