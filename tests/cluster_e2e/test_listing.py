"""The node listing of a real cluster: who serves, stands by, is silent, leaves, has gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.cluster import Cluster
from tests.support.eventually import DEADLINE_S, eventually_told
from tests.support.system import Server

COMETS = (("comet", "comet-1"), ("comet", "comet-2"))
WEBS = (("web", "web-1"), ("web", "web-2"))
NODES = (("message", "message-1"), *COMETS, *WEBS)

Views = dict[str, dict[str, Any]]


async def listed(web: Server) -> Views:
    response = await web.ask("admin", "GET", "/2/admin/nodes")
    assert response.status == 200
    return {f"{node['name']} {node['state']}": node for node in response.json["nodes"]}


async def wait_listed(web: Server, condition: Callable[[Views], object]) -> Views:
    """Ask until the listing is as wanted."""
    views: Views = {}

    async def as_wanted() -> object:
        nonlocal views
        views = await listed(web)
        return condition(views)

    await eventually_told(as_wanted, story=lambda: {name: view["fault"] for name, view in views.items()})
    return views


def everybody_tells(views: Views) -> bool:
    return len(views) == len(NODES) and all(view["fault"] is None for view in views.values())


async def test_every_web_node_lists_what_every_node_tells(cluster: Cluster) -> None:
    cluster.start(*NODES)
    for name in ("web-1", "web-2"):
        views = await wait_listed(cluster.nodes[name], everybody_tells)
        assert set(views) == {f"{node} serving" for _, node in NODES}
        (store,) = views["message-1 serving"]["stores"]
        assert (store["durability"], store["warning"]) == ("fsync", "")
        assert views["message-1 serving"]["connections"] == 4
        assert "status" in views["web-2 serving"]["addresses"]
        shares = [views[f"comet-{n} serving"]["share"] for n in (1, 2)]
        assert abs(sum(shares) - 1.0) < 1e-9
    assert await cluster.web.push("bob", 1, 600) == 0
    views = await wait_listed(cluster.nodes["web-2"], lambda v: v["web-1 serving"]["pushes"] == 1)
    assert sum(views[f"comet-{n} serving"]["pushes"] for n in (1, 2)) == 1
    assert views["message-1 serving"]["pushes"] == 1
    calls = (await cluster.web.ask("status", "GET", "/metrics")).body
    for service in (b"comet", b"message"):
        assert b'encke_rpc_client_calls_total{service="%b"}' % service in calls
    assert (
        b"encke_rpc_server_calls_total"
        in (await cluster.nodes["message-1"].ask("status", "GET", "/metrics")).body
    )
    # What /readyz says of the store is what the list says.
    ready = (await cluster.nodes["message-1"].ask("status", "GET", "/readyz")).body.decode()
    assert f"store {store['location']}: fsync: {store['promise']}\n" in ready


async def test_silent_node_is_listed_with_the_reason_and_holds_up_nobody(cluster: Cluster) -> None:
    cluster.start(*NODES)
    await wait_listed(cluster.web, everybody_tells)
    silent = cluster.nodes["web-2"]
    silent.freeze()
    try:
        views = await wait_listed(cluster.web, lambda v: v.get("web-2 serving", {}).get("fault"))
    finally:
        silent.thaw()
    assert views["web-2 serving"]["connections"] is None
    assert "no answer within" in views["web-2 serving"]["fault"]
    await wait_listed(cluster.web, lambda v: v.get("web-2 serving", {}).get("connections") is not None)


async def test_nodes_that_stand_by_leave_or_die_are_shown_as_that(cluster: Cluster) -> None:
    cluster.start(*NODES)
    cluster.node("comet", "comet-1", process="standby").start()
    await wait_listed(cluster.web, lambda v: {"comet-1 standby", "comet-1 serving"} <= set(v))

    cluster.nodes["comet-1"].kill()
    views = await wait_listed(cluster.web, lambda v: "comet-1 died" in v)
    assert 0 <= views["comet-1 died"]["gone_s"] < DEADLINE_S
    await wait_listed(cluster.web, lambda v: "comet-1 serving" in v and "comet-1 standby" not in v)

    cluster.nodes["web-2"].stop()
    cluster.nodes["message-1"].stop()
    await wait_listed(cluster.web, lambda v: {"web-2 left", "message-1 left"} <= set(v))


async def test_node_that_drains_is_shown_with_its_last_subscribers(cluster: Cluster) -> None:
    cluster.start(*NODES)
    await wait_listed(cluster.web, everybody_tells)
    leaving = cluster.nodes["comet-2"]
    leaving.terminate()
    seen = set()

    def note(views: Views) -> bool:
        seen.update(name for name in views if name.startswith("comet-2"))
        return "comet-2 left" in views

    views = await wait_listed(cluster.web, note)
    assert leaving.wait() == 0
    assert views["comet-1 serving"]["share"] == 1.0
    assert "comet-2 died" not in seen
