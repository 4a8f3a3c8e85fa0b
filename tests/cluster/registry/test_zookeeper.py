"""What is ZooKeeper's own in its registry: znodes, strangers, operators, predecessors."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from typing import Any

import pytest
from kazoo.exceptions import NoAuthError

from cluster.errors import UnavailableError
from cluster.registry.base import SessionState
from cluster.registry.zookeeper import ZooKeeperRegistry
from tests.cluster.registry.registries import Seen, ZooKeeperHarness, comet, message, registry_lines, web
from tests.support.eventually import eventually
from tests.support.zookeeper import MAX_ZNODE_BYTES, ZooKeeper, operator

ORIGINAL = {"rpc": ["c1:6970"], "tcp": ["c1:6969"], "ws": ["c1:6968"], "weight": 1}
GOOD = json.dumps(ORIGINAL).encode()


# -- what stands in ZooKeeper


async def test_znodes_stand_where_the_original_puts_them_and_end_with_the_session(
    harness: ZooKeeperHarness, zookeeper: ZooKeeper
) -> None:
    registry = await harness.connect()
    for info in (comet("node1"), message("m-1"), web("w-1")):
        await registry.register(info)

    settings = harness.settings
    with operator(zookeeper) as zk:
        assert zk.get_children(settings.comet_path) == ["node1"]
        for parent in (f"{settings.comet_path}/node1", settings.message_path, settings.web_path):
            (name,) = zk.get_children(parent)
            assert len(name) == 10
            assert name.isdigit()
            text, stat = zk.get(f"{parent}/{name}")
            assert stat.ephemeralOwner != 0
            assert json.loads(text)["weight"] == 1


async def test_nodes_of_the_original_are_seen(
    harness: ZooKeeperHarness, seen: Seen, zookeeper: ZooKeeper
) -> None:
    with operator(zookeeper) as zk:
        path = f"{harness.settings.comet_path}/node1"
        zk.create(f"{path}/", GOOD, ephemeral=True, sequence=True, makepath=True)
        sole = b'{"rpc":["m1:8070"],"weight":1}'
        zk.create(f"{harness.settings.message_path}/", sole, ephemeral=True, sequence=True)
        await eventually(lambda: len(seen.names) == 2)

    assert seen.snapshots[-1].nodes[0].addresses == {
        name: tuple(ORIGINAL[name]) for name in ("rpc", "tcp", "ws")
    }
    assert seen.names == ["node1", "0000000000"]
    # Its session has ended.
    await eventually(lambda: seen.names == [])


async def test_bad_znodes_are_passed_over_with_one_line_each_while_they_stay_bad(
    harness: ZooKeeperHarness, seen: Seen, zookeeper: ZooKeeper, caplog: pytest.LogCaptureFixture
) -> None:
    bad = [
        b"",
        b"{",
        b'{"rpc":["c:1"],"weight":1}',
        GOOD.replace(b"c1:6970", b"c1"),
        b"x" * (10 * 1024 * 1024),
    ]
    bad += [json.dumps({**ORIGINAL, "weight": weight}).encode() for weight in (-1, "heavy", 10**9)]
    root = harness.settings.comet_path
    with operator(zookeeper) as zk:
        for number, text in enumerate(bad):
            zk.create(f"{root}/bad-{number}/1", text, makepath=True)
        zk.create(f"{root}/good/1", GOOD, makepath=True)
        await eventually(lambda: seen.names == ["good"])
        # Touched, and as bad as before.
        zk.set(f"{root}/bad-0/1", b"[]")
        zk.set(f"{root}/good/1", GOOD + b" ")
        await eventually(lambda: len(seen.last.instances) == len(bad) + 1)
        lines = [line for line in registry_lines(caplog) if "ignored" in line]
        assert sorted(line.split("path=")[1].split("/")[3] for line in lines) == [
            f"bad-{number}" for number in range(len(bad))
        ]
        assert all(len(line) < 500 for line in lines)

        zk.set(f"{root}/bad-0/1", GOOD)
        zk.set(f"{root}/bad-4/1", GOOD)
        await eventually(lambda: set(seen.names) == {"good", "bad-0", "bad-4"})
        zk.set(f"{root}/bad-0/1", b"{")
        await eventually(lambda: set(seen.names) == {"good", "bad-4"})
        assert len([line for line in registry_lines(caplog) if "ignored" in line and "bad-0" in line]) == 2
        zk.delete(root, recursive=True)
    assert max(map(len, bad)) < MAX_ZNODE_BYTES


async def test_nodes_at_one_address_are_told_of_but_not_those_that_have_no_names(
    harness: ZooKeeperHarness, seen: Seen, zookeeper: ZooKeeper, caplog: pytest.LogCaptureFixture
) -> None:
    root = harness.settings.message_path
    with operator(zookeeper) as zk:
        # A message node of the original, before and after a crash.
        for _ in range(2):
            zk.create(f"{root}/", b'{"rpc":["m1:8070"],"weight":1}', sequence=True)
        await (await harness.connect()).register(comet("comet-1"))
        await (await harness.connect()).register(comet("comet-3"))
        await eventually(lambda: len(seen.names) == 4)
        zk.delete(root, recursive=True)

    # Each of the three registries may have read them.
    lines = {line for line in registry_lines(caplog) if "announce one address" in line}
    (line,) = lines
    assert "comet-1" in line
    assert "comet-3" in line
    assert "rpc 10.0.0.1:6970" in line


async def test_weight_zero_is_noted_in_the_log(
    harness: ZooKeeperHarness, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    await (await harness.connect()).register(comet("a", weight=0))
    await eventually(lambda: seen.names == ["a"])

    assert [line for line in registry_lines(caplog) if "weight 0" in line]


async def test_digest_lets_only_its_holders_write(zookeeper: ZooKeeper) -> None:
    harness = ZooKeeperHarness(zookeeper, digest="encke:s3cret")
    try:
        registry = await harness.connect()
        other = Seen(await harness.connect())
        await registry.register(comet("a"))
        await eventually(lambda: other.names == ["a"])
        path = f"{harness.settings.comet_path}/a/0000000000"
        with operator(zookeeper) as zk:
            assert zk.get(path)[0]
            with pytest.raises(NoAuthError):
                zk.set(path, GOOD)
            with pytest.raises(NoAuthError):
                zk.delete(path)
            with pytest.raises(NoAuthError):
                zk.create(f"{harness.settings.comet_path}/intruder", b"")
    finally:
        await harness.close()


async def test_who_may_not_write_is_told_and_tries_on(
    zookeeper: ZooKeeper, caplog: pytest.LogCaptureFixture
) -> None:
    harness = ZooKeeperHarness(zookeeper, digest="encke:s3cret")
    try:
        await (await harness.connect()).register(comet("a"))
        stranger = await harness.connect(digest="")
        registering = asyncio.create_task(stranger.register(comet("b", 6971)))
        reason = "ZooKeeper does not let this node write, see registry.digest"
        await eventually(lambda: any(reason in line for line in registry_lines(caplog)))
        assert not registering.done()
        assert stranger.fault == f"not announced: {reason}"

        registering.cancel()
        await asyncio.wait([registering])
        assert registering.cancelled()
    finally:
        await harness.close()


# -- its end


async def test_a_stop_removes_its_entries_at_once_and_leaves_no_thread(
    harness: ZooKeeperHarness, seen: Seen
) -> None:
    registry = await harness.connect()
    threads = _driver_threads()
    registration = await registry.register(comet("a"))
    await eventually(lambda: seen.names == ["a"])

    await registry.stop()

    # The session was ended, not left to expire.
    await eventually(lambda: seen.names == [])
    assert _driver_threads() == threads - 1
    assert registry.session is SessionState.LOST
    assert not registration.is_standing
    await registration.update(comet("a", weight=2))
    await registration.withdraw()
    with pytest.raises(UnavailableError):
        await registry.refresh()


async def test_a_registry_that_was_never_started_can_be_stopped(harness: ZooKeeperHarness) -> None:
    registry = ZooKeeperRegistry(harness.settings)
    await registry.stop()
    await registry.stop()


async def test_a_watcher_that_fails_does_not_end_the_following(
    harness: ZooKeeperHarness, caplog: pytest.LogCaptureFixture
) -> None:
    registry = await harness.connect()
    calls: list[Any] = []

    def fail(snapshot: Any) -> None:
        calls.append(snapshot)
        raise KeyError("a watcher's fault")

    registry.watch(fail)
    seen = Seen(registry)
    await registry.register(comet("a"))
    await eventually(lambda: seen.names == ["a"] and calls)
    assert any(record.levelno == logging.ERROR for record in caplog.records)


def _driver_threads() -> int:
    return sum(thread.name == "zookeeper" for thread in threading.enumerate())
