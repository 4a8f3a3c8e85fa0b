"""Web nodes that die, hang or are told to stop: only what was asked of them is in doubt, and only then."""

from __future__ import annotations

import asyncio

from tests.cluster_e2e.six import six_keys, started_run
from tests.support.cluster import Cluster
from tests.support.cluster_run import ClusterRun
from tests.support.history import Push
from tests.support.publisher import FailedTry

FROZEN_S = 3.0


async def test_a_killed_web_node_leaves_its_own_pushes_in_doubt_and_disturbs_nobody_else(
    cluster: Cluster, seed: int
) -> None:
    run = started_run(cluster, seed)
    async with run.under_way():
        cluster.nodes["web-2"].kill()
        cluster.resting = {"web-2"}
        await run.push_on()
        await asyncio.to_thread(cluster.nodes["web-2"].start)
        cluster.resting = set()
    assert {failed.web for failed in run.failed_tries} <= {"web-2"}
    assert not any(is_answered(failed) for failed in run.failed_tries)
    assert run.is_undisturbed(*run.keys)


async def test_a_frozen_web_node_holds_up_its_own_pushes_only(cluster: Cluster, seed: int) -> None:
    run = started_run(cluster, seed)
    frozen = cluster.nodes["web-2"]
    async with run.under_way():
        async with run.fault():
            frozen.freeze()
            try:
                cluster.resting = {"web-2"}
                await run.push_for(FROZEN_S)
            finally:
                frozen.thaw()
        cluster.resting = set()
    assert {failed.web for failed in run.failed_tries} <= {"web-2"}
    assert run.is_undisturbed(*run.keys)


async def test_a_web_node_that_is_told_to_stop_answers_what_it_has_accepted(
    cluster: Cluster, seed: int
) -> None:
    run = started_run(cluster, seed)
    async with run.under_way():
        told_at = run.load.history.now()
        cluster.nodes["web-2"].terminate()
        cluster.resting = {"web-2"}
        assert await asyncio.to_thread(cluster.nodes["web-2"].wait) == 0
        await run.push_on()
    # What came later was refused with the connection, and nothing of it is known to be done.
    assert not [failed for failed in run.failed_tries if begun(run, failed) < told_at or is_answered(failed)]
    assert run.is_undisturbed(*run.keys)


async def test_a_web_node_that_says_it_is_ready_pushes_at_once(cluster: Cluster, seed: int) -> None:
    started_run(cluster, seed)
    node = cluster.nodes["web-2"]
    for number in range(3):
        await asyncio.to_thread(node.stop)
        await asyncio.to_thread(node.start)
        answers = [await node.push(key, number, 600) for key in six_keys()]
        assert answers == [0] * len(answers)
        assert (await node.ask("public", "GET", "/1/time/get")).json["ret"] == 0


def begun(run: ClusterRun, failed: FailedTry) -> float:
    return next(e.t for e in run.load.history.events if isinstance(e, Push) and e.uid == failed.uid)


def is_answered(failed: FailedTry) -> bool:
    """Whether the node said something, instead of nothing."""
    return failed.what.startswith("{")
