"""comet/subscribers/acknowledgements.py: where a device goes on; a store that refuses."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from cluster.errors import UnavailableError
from cluster.model import Key, Mid
from cluster.stats import Stats
from comet.metrics import CometMetrics
from comet.subscribers.acknowledgements import WRITES_IN_FLIGHT, Acknowledgements
from tests.comet.nodes import Core, running_core, values
from tests.support.eventually import eventually
from tests.support.messages import BadWay

BOB = Key("bob")


async def test_an_acknowledged_mid_is_where_the_device_resumes(tmp_path: Path) -> None:
    async with running_core(tmp_path, acknowledge_interval_s=60.0) as core:
        phone = await core.subscribe("bob", device="phone", mid=0)
        for n in range(3):
            await core.push("bob", n, expire_s=600)
        documents = await phone.documents(3)
        await phone.acknowledge(documents[1].mid)
        # Still unwritten, and still known.
        await phone.beat()
        again = await core.subscribe("bob", device="phone", mid="ack")
        assert values([await again.next_document()]) == [2]
        other = await core.subscribe("bob", device="tablet", mid="ack")
        assert values(await other.documents(3)) == [0, 1, 2]


async def test_what_is_written_while_a_device_asks_for_it_is_not_missed(tmp_path: Path) -> None:
    async with running_core(tmp_path, acknowledge_interval_s=60.0) as core:
        phone = await core.subscribe("bob", device="phone", mid=0)
        for n in range(3):
            await core.push("bob", n, expire_s=600)
        documents = await phone.documents(3)
        await phone.acknowledge(documents[1].mid)
        await phone.beat()
        gate = core.way.close_gate("bob")
        again = await core.subscribe("bob", device="phone", mid="ack")
        # The store has been read, its answer is on the way; the write overtakes it.
        await eventually(lambda: core.way.loads_waiting)
        await phone.close()
        async with asyncio.timeout(10):
            await core.way.acknowledged_writes.get()
        gate.set()
        assert values([await again.next_document()]) == [2]


async def test_closing_writes_the_acknowledgement_at_once(tmp_path: Path) -> None:
    async with running_core(tmp_path, acknowledge_interval_s=60.0) as core:
        phone = await core.subscribe("bob", device="phone")
        mid = (await core.push("bob", 1, expire_s=600)).mids[0]
        await phone.next_document()
        await phone.acknowledge(mid)
        await phone.beat()
        await phone.close()
        async with asyncio.timeout(10):
            await core.way.acknowledged_writes.get()
        assert await core.way.store.acknowledged(BOB, "phone") == mid


async def test_a_store_that_refuses_gets_the_acknowledgement_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_core(tmp_path, acknowledge_interval_s=0.01) as core:
        phone = await core.subscribe("bob", device="phone")
        mid = (await core.push("bob", 1, expire_s=600)).mids[0]
        await phone.next_document()
        core.way.refusals.append(UnavailableError("down"))
        await phone.acknowledge(mid)
        await phone.beat()
        await eventually(lambda: not core.way.refusals)
        await phone.close()
        await core.node.stop()
        assert await core.way.store.acknowledged(BOB, "phone") == mid
        assert "acknowledgements not written" in caplog.text


async def test_a_silent_store_does_not_hold_up_the_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Silent(BadWay):
        async def acknowledge(self, key: Key, device: str, mid: Mid) -> None:
            await asyncio.Event().wait()

    async with running_core(tmp_path) as core:
        silent = Silent(core.way.store)
        acknowledgements = Acknowledgements(silent, 0.0, 3600.0, CometMetrics(Stats()))
        acknowledgements.take(BOB, "phone", Mid(80))
        async with asyncio.timeout(20):
            await acknowledgements.stop()
        assert "not written before the end: devices=1" in caplog.text


@pytest.mark.parametrize("version", ["1.0", ""])
async def test_an_older_client_must_not_acknowledge(tmp_path: Path, version: str) -> None:
    async with running_core(tmp_path) as core:
        bob = await core.subscribe("bob", version=version)
        await bob.acknowledge(80)
        assert (await bob.end()).code == 0


async def test_acknowledging_what_was_not_sent_is_a_protocol_error(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        bob = await core.subscribe_websocket("bob")
        mid = (await core.push("bob", 1, expire_s=600)).mids[0]
        await bob.next_document()
        await bob.acknowledge(mid + 80)
        assert (await bob.end()).code == 1002


async def test_deleting_a_key_forgets_unwritten_acknowledgements(tmp_path: Path) -> None:
    async with running_core(tmp_path, acknowledge_interval_s=60.0) as core:
        phone = await core.subscribe("bob", device="phone")
        mid = (await core.push("bob", 1, expire_s=600)).mids[0]
        await phone.next_document()
        await phone.acknowledge(mid)
        await phone.beat()
        await core.node.delete_key(BOB, (0, 0))
        assert (await phone.end()).code == 4004
        await core.node.stop()
        assert await core.way.store.acknowledged(BOB, "phone") == 0


async def test_devices_that_a_silent_store_does_not_take_are_bounded(tmp_path: Path) -> None:
    async with running_core(tmp_path) as core:
        metrics = CometMetrics(Stats())
        acknowledgements = Acknowledgements(core.way, 60.0, 5.0, metrics, max_unwritten=3)
        for n in range(5):
            acknowledgements.take(Key(f"key-{n % 2}"), f"device-{n}", Mid(80))
        # Known ones still advance.
        acknowledgements.take(Key("key-0"), "device-0", Mid(160))
        await acknowledgements.stop()
        written = {
            (n, await core.way.store.acknowledged(Key(f"key-{n % 2}"), f"device-{n}")) for n in range(5)
        }
        assert written == {(0, 160), (1, 80), (2, 80), (3, 0), (4, 0)}
        assert metrics.acknowledgements_refused.child("full").value == 2
        acknowledgements.take(Key("key-1"), "device-3", Mid(80))
        await acknowledgements.stop()
        assert await core.way.store.acknowledged(Key("key-1"), "device-3") == 80


def is_caught_up(core: Core, key: str) -> bool:
    """Whether the connections of a key have what was stored."""
    connections = core.comet.connections(key)
    return bool(connections) and all(one.catch_up is None for one in connections)


async def test_clients_cannot_fill_the_store_with_keys_that_they_invent(tmp_path: Path) -> None:
    async with running_core(tmp_path, acknowledge_interval_s=60.0) as core:
        mid = (await core.push("bob", 1, expire_s=600)).mids[0]
        for key in ("bob", "invented"):
            subscriber = await core.subscribe(key, device="phone", mid=mid)
            await eventually(lambda key=key: is_caught_up(core, key))
            await subscriber.acknowledge(mid)
            await subscriber.beat()
        online = await core.subscribe("online", device="phone", mid=mid)
        await eventually(lambda: is_caught_up(core, "online"))
        sent = (await core.push("online", 1)).mids[0]
        await online.next_document()
        await online.acknowledge(sent)
        await online.beat()
        await core.node.stop()
        written = {key: await core.way.store.acknowledged(Key(key), "phone") for key in ("bob", "online")}
        assert written == {"bob": mid, "online": sent}
        assert (await core.way.store.inspect(Key("invented"))).acknowledged == {}
        assert core.comet.counted("acknowledgements_refused_total", "nothing_stored") == 1


async def test_a_store_that_is_away_is_asked_with_pauses_even_without_an_interval(tmp_path: Path) -> None:
    async with running_core(tmp_path, acknowledge_interval_s=0.0) as core:
        phone = await core.subscribe("bob", device="phone")
        mid = (await core.push("bob", 1, expire_s=600)).mids[0]
        await phone.next_document()
        core.way.refusals.extend([UnavailableError("down")] * 1000)
        await phone.acknowledge(mid)
        await eventually(lambda: len(core.way.refusals) < 1000)
        for _ in range(1000):
            await asyncio.sleep(0)
        assert len(core.way.refusals) > 900
        # The last attempt is made at the end.
        core.way.refusals.clear()
        await core.node.stop()
        assert await core.way.store.acknowledged(BOB, "phone") == mid


@pytest.mark.parametrize("failure", [UnavailableError("one server is down"), ZeroDivisionError("a bug")])
async def test_one_that_is_refused_does_not_keep_the_others_from_being_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, failure: Exception
) -> None:
    async with running_core(tmp_path) as core:
        acknowledgements = Acknowledgements(core.way, 60.0, 5.0, CometMetrics(Stats()))
        keys = [Key(f"key-{n}") for n in range(2 * WRITES_IN_FLIGHT)]
        core.way.refusals.append(failure)
        for key in keys:
            acknowledgements.take(key, "phone", Mid(80))
        await acknowledgements.stop()
        written = [await core.way.store.acknowledged(key, "phone") for key in keys]
        assert written == [0] + [80] * (len(keys) - 1)
        assert str(failure) in caplog.text
        # It is still known, and written with the next one.
        assert await acknowledgements.resume_point(keys[0], "phone") == 80
        acknowledgements.take(keys[1], "phone", Mid(160))
        await acknowledgements.stop()
        assert await core.way.store.acknowledged(keys[0], "phone") == 80


async def test_a_store_that_is_away_is_not_asked_for_everything_and_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "comet.subscribers.acknowledgements")
    async with running_core(tmp_path, acknowledge_interval_s=0.005) as core:
        phone = await core.subscribe("bob", device="phone")
        mid = (await core.push("bob", 1, expire_s=600)).mids[0]
        await phone.next_document()
        core.way.refusals.extend([UnavailableError("down")] * 5)
        await phone.acknowledge(mid)
        async with asyncio.timeout(10):
            assert await core.way.acknowledged_writes.get() == mid
        await eventually(lambda: "written again" in caplog.text)
    # asyncio's own words about a slow machine do not count.
    logger = "comet.subscribers.acknowledgements"
    episode = [record.getMessage() for record in caplog.records if record.name == logger]
    assert len(episode) == 2
