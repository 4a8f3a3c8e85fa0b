"""web/app.py: the life of a web node."""

from __future__ import annotations

import pytest

from cluster.errors import ConfigError
from cluster.members import Members
from cluster.membership import Membership
from cluster.model import NodeKind
from cluster.registry.memory import MemoryRegistry
from tests.support.services import ScriptedComet
from tests.support.web import Web, running_web
from tests.web.conftest import no_messages


async def test_node_registers_what_it_has_bound_and_leaves_when_it_drains(web: Web) -> None:
    members = Members(web.registry)

    def listed(membership: Membership) -> list[dict[str, tuple[str, ...]]]:
        return [node.addresses for node in membership.of_kind(NodeKind.WEB)]

    addresses = web.node.addresses
    assert web.node.ready_fault() is None
    assert listed(members.current) == [{purpose: (address,) for purpose, address in addresses.items()}]
    seen_draining = []
    members.watch(
        lambda membership: seen_draining.extend(n.is_draining for n in membership.of_kind(NodeKind.WEB))
    )
    await web.node.drain(1.0)
    assert seen_draining == [False, True]
    assert listed(members.current) == []
    assert web.node.ready_fault() == "starting"
    members.close()


async def test_open_admin_port_without_a_token_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"web\.admin_bind"):
        async with running_web({}, no_messages(), admin_bind="0.0.0.0:0"):
            pass


async def test_open_admin_port_without_a_token_can_be_wanted(
    comet: ScriptedComet, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_web({"comet-1": comet}, no_messages(), admin_bind="0.0.0.0:0", admin_insecure=True):
        assert "asks for no token" in caplog.text


async def test_port_in_use_is_an_error_and_leaves_nothing_bound(web: Web) -> None:
    registry = MemoryRegistry()
    taken = web.node.addresses["admin"]
    with pytest.raises(OSError, match="in use"):
        async with running_web({}, no_messages(), registry=registry, admin_bind=taken):
            pass
    members = Members(registry)
    assert not members.current.nodes
    members.close()


@pytest.mark.parametrize(("kept", "off"), [("public", "admin"), ("admin", "public")])
async def test_node_without_one_of_its_apis_serves_the_other(kept: str, off: str) -> None:
    async with running_web({}, no_messages(), **{f"{off}_bind": ""}) as web:
        assert set(web.node.addresses) == {kept}
        members = Members(web.registry)
        (entry,) = members.current.of_kind(NodeKind.WEB)
        members.close()
        assert set(entry.addresses) == {kept}
        asked = web.get("/1/time/get") if kept == "public" else web.admin("GET", "/2/admin/nodes")
        assert (await asked).status == 200
        await web.node.drain(1.0)


async def test_admin_api_that_is_off_is_warned_of_by_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with running_web({}, no_messages(), admin_bind="", admin_insecure=True):
        assert "asks for no token" not in caplog.text


async def test_node_listens_on_ipv6() -> None:
    async with running_web({}, no_messages(), public_bind="[::1]:0") as web:
        assert web.node.addresses["public"].startswith("[::1]:")


async def test_push_has_its_whole_time_for_one_try_where_no_answer_can_be_lost(comet: ScriptedComet) -> None:
    times = {"request_timeout_s": 7.0, "comet_timeout_s": 2.0}
    for may_lose_answers in (True, False):
        async with running_web(
            {"comet-1": comet}, no_messages(), may_lose_answers=may_lose_answers, **times
        ) as web:
            assert (await web.push("k", expire_s=60)).json == {"ret": 0}
    careful, direct = comet.pushes
    assert (careful.timeout_s, direct.timeout_s) == (2.0, 7.0)
    assert careful.push_id
    assert not direct.push_id
