"""A node's own entry in ZooKeeper, whatever operators and strangers do to it."""

from __future__ import annotations

import asyncio
import json

import pytest

from cluster.errors import ConfigError
from tests.cluster.registry.registries import (
    Seen,
    ZooKeeperHarness,
    comet,
    message,
    registry_lines,
    replace_info,
    web,
)
from tests.support.eventually import eventually
from tests.support.zookeeper import ZooKeeper, operator

ORIGINAL = {"rpc": ["c1:6970"], "tcp": ["c1:6969"], "ws": ["c1:6968"], "weight": 1}
GOOD = json.dumps(ORIGINAL).encode()


async def test_an_instance_that_others_could_not_use_is_refused(harness: ZooKeeperHarness) -> None:
    registry = await harness.connect()

    with pytest.raises(ConfigError, match="rpc"):
        await registry.register(comet("a", addresses={"rpc": ("0.0.0.0:6970",)}))


async def test_an_entry_that_an_operator_deletes_is_announced_anew_as_another_incarnation(
    harness: ZooKeeperHarness, seen: Seen, zookeeper: ZooKeeper, caplog: pytest.LogCaptureFixture
) -> None:
    registration = await (await harness.connect()).register(comet("a"))
    before = registration.instance
    await eventually(lambda: before in seen.last.instances)

    with operator(zookeeper) as zk:
        zk.delete(f"{harness.settings.comet_path}/a/0000000000")
    await eventually(lambda: seen.names == ["a"] and before not in seen.last.instances)

    assert seen.last.nodes[0].instance == registration.instance != before
    assert any("somebody removed" in line for line in registry_lines(caplog))


async def test_nonsense_in_its_own_entry_is_written_over_by_the_same_incarnation(
    harness: ZooKeeperHarness, seen: Seen, zookeeper: ZooKeeper
) -> None:
    registration = await (await harness.connect()).register(comet("a"))
    before = registration.instance
    await eventually(lambda: seen.names == ["a"])
    told = len(seen.snapshots)

    with operator(zookeeper) as zk:
        zk.set(f"{harness.settings.comet_path}/a/0000000000", b"nonsense")
    await eventually(lambda: len(seen.snapshots) > told and seen.names == ["a"])

    assert seen.last.nodes[0].instance == registration.instance == before
    assert all(before in snapshot.instances for snapshot in seen.snapshots[told:])


async def test_a_weight_that_an_operator_writes_holds_whatever_happens_to_the_entry(
    harness: ZooKeeperHarness, seen: Seen, zookeeper: ZooKeeper
) -> None:
    registry = await harness.connect()
    registration = await registry.register(comet("a"))
    parent = f"{harness.settings.comet_path}/a"
    path = f"{parent}/0000000000"

    with operator(zookeeper) as zk:
        written = json.loads(zk.get(path)[0])
        zk.set(path, json.dumps({**written, "weight": 9, "note": "mine"}).encode())
        await eventually(lambda: seen.weights == [9])
        await registry.refresh()
        # Not written over: it may say more than the weight.
        assert json.loads(zk.get(path)[0])["note"] == "mine"

        for typo in (b"{oops", json.dumps({**written, "weight": 5000}).encode()):
            zk.set(path, typo)
            await eventually(lambda typo=typo: zk.get(path)[0] != typo)
            assert json.loads(zk.get(path)[0])["weight"] == 9

        before = registration.instance
        zk.delete(path)
        await eventually(lambda: seen.weights == [9] and seen.last.nodes[0].instance != before)

        # Another one, and back to what it was started with.
        (name,) = zk.get_children(parent)
        for weight in (0, 1):
            zk.set(f"{parent}/{name}", json.dumps({**written, "weight": weight}).encode())
            await eventually(lambda weight=weight: seen.weights == [weight])
            await registry.refresh()
    assert registration.is_standing


async def test_an_operators_weight_holds_for_the_drain_and_for_the_next_registration_of_the_run(
    harness: ZooKeeperHarness, seen: Seen, zookeeper: ZooKeeper
) -> None:
    registry = await harness.connect()
    info = comet("a")
    registration = await registry.register(info)
    with operator(zookeeper) as zk:
        path = f"{harness.settings.comet_path}/a/0000000000"
        zk.set(path, json.dumps({**json.loads(zk.get(path)[0]), "weight": 3}).encode())
    await eventually(lambda: seen.weights == [3])
    await registry.refresh()

    await registration.update(replace_info(info, is_draining=True))
    await eventually(lambda: seen.last.nodes[0].is_draining)
    assert seen.weights == [3]

    # As a comet node does that was fenced.
    await registration.withdraw()
    again = await registry.register(info)
    await eventually(lambda: again.instance in seen.last.instances)
    assert seen.weights == [3]

    # Its owner has the last word.
    await again.update(replace_info(info, weight=2))
    await eventually(lambda: seen.weights == [2])


async def test_a_root_that_an_operator_deletes_is_made_again_with_everything_below(
    harness: ZooKeeperHarness, seen: Seen, zookeeper: ZooKeeper
) -> None:
    registry = await harness.connect()
    for info in (comet("a"), message("m")):
        await registry.register(info)
    await eventually(lambda: len(seen.names) == 2)
    before = seen.last.instances

    with operator(zookeeper) as zk:
        for root in (harness.settings.comet_path, harness.settings.message_path):
            zk.delete(root, recursive=True)
    await eventually(lambda: len(seen.names) == 2 and not before & seen.last.instances)

    epochs = [snapshot.epoch for snapshot in seen.snapshots]
    assert epochs == sorted(epochs)


async def test_an_epoch_that_would_go_back_is_raised_above_the_last_one(
    harness: ZooKeeperHarness, seen: Seen, zookeeper: ZooKeeper, caplog: pytest.LogCaptureFixture
) -> None:
    # What a root made under a clock that was an hour ahead leaves behind: a generation
    # that the next root's own time of making is below.
    root = harness.settings.comet_path
    with operator(zookeeper) as zk:
        ahead = zk.exists(root).ctime + 3_600_000
        zk.set(root, json.dumps({"generation": ahead}).encode())
        await eventually(lambda: seen.last.epoch[0] == ahead)
        other = Seen(await harness.connect())
        await eventually(lambda: other.last.epoch[0] == ahead)
        zk.delete(root, recursive=True)
    await eventually(lambda: seen.last.epoch[0] > ahead and other.last.epoch == seen.last.epoch)

    await (await harness.connect()).register(comet("a"))
    await eventually(lambda: seen.names == other.names == ["a"])
    assert any("forgotten" in line for line in registry_lines(caplog))


async def test_entries_that_live_elsewhere_are_left_alone(harness: ZooKeeperHarness, seen: Seen) -> None:
    # Two machines with the defaults, and a node that was given another one's addresses.
    pairs = [(web("w"), web("w")), (comet("a"), comet("b")), (message("m-1"), message("m-2"))]
    first = [await (await harness.connect()).register(one) for one, _ in pairs]
    before = [one.instance for one in first]
    second = [await (await harness.connect()).register(other) for _, other in pairs]

    instances = {one.instance for one in (*first, *second)}
    await eventually(lambda: seen.last.instances == instances)
    assert [one.instance for one in first] == before
    assert set(before) <= seen.last.instances


async def test_two_processes_that_claim_the_same_addresses_do_not_chase_each_other(
    harness: ZooKeeperHarness, seen: Seen
) -> None:
    one = await (await harness.connect()).register(comet("a"))
    two = await (await harness.connect()).register(comet("a"))

    # The second took the first for its predecessor; the first lives and comes back, and leaves it there.
    await eventually(lambda: len(seen.names) == 2)
    await eventually(lambda: {one.instance, two.instance} == seen.last.instances)


async def test_a_registration_that_is_cancelled_announces_nothing(
    harness: ZooKeeperHarness, seen: Seen
) -> None:
    registry = await harness.connect()
    registering = asyncio.create_task(registry.register(comet("a")))
    await asyncio.sleep(0)
    registering.cancel()
    await asyncio.wait([registering])

    await registry.register(comet("b", 6971))
    await eventually(lambda: seen.names == ["b"])
