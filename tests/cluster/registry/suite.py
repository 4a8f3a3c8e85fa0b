"""What every registry must do: cluster/registry/base.py in tests.

test_conformance.py runs it over all of them. It knows nothing of a registry but
its harness.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

import pytest

from cluster.errors import NoNodeError
from cluster.members import Members
from cluster.membership import Membership
from cluster.model import Key
from cluster.registry.base import Registry, SessionState, Snapshot
from tests.cluster.registry.registries import Seen, comet, message, replace_info, web
from tests.support.eventually import eventually

BOB = Key("bob")


class Harness(Protocol):
    """One kind of registry, with nobody registered."""

    async def connect(self) -> Registry:
        """The registry of another process."""
        ...

    async def close(self) -> None:
        """End all of them."""
        ...


class RegistrySuite:
    """Subclasses provide the harness."""

    @pytest.fixture
    async def mine(self, harness: Harness) -> AsyncIterator[Registry]:
        """The registry of a process that announces itself."""
        yield await harness.connect()
        await harness.close()

    @pytest.fixture
    async def seen(self, mine: Registry, harness: Harness) -> Seen:
        """What another process sees."""
        return Seen(await harness.connect())

    async def test_an_instance_is_seen_with_all_that_it_announced(self, mine: Registry, seen: Seen) -> None:
        info = comet("a", weight=3)
        registration = await mine.register(info)

        await eventually(lambda: seen.names == ["a"])
        assert seen.last.nodes[0] == replace_info(info, instance=registration.instance)
        assert registration.is_standing
        assert registration.instance in seen.last.instances

    async def test_nodes_of_every_kind_are_listed_under_their_names(self, mine: Registry, seen: Seen) -> None:
        for info in (web("w-1"), message("m-1"), comet("c-1"), message("m-2")):
            await mine.register(info)

        await eventually(lambda: seen.names == ["w-1", "m-1", "c-1", "m-2"])

    async def test_who_watches_later_is_told_of_the_present_at_once(self, mine: Registry, seen: Seen) -> None:
        await mine.register(comet("a"))
        await mine.refresh()

        assert Seen(mine).names == ["a"]

    async def test_who_ended_his_watch_hears_nothing_more(self, mine: Registry, seen: Seen) -> None:
        await mine.register(comet("a"))
        await eventually(lambda: seen.names == ["a"])
        other = Seen(mine)

        seen.unwatch()
        await mine.register(comet("b", 6971))
        await mine.refresh()

        assert other.names == ["a", "b"]
        assert seen.names == ["a"]

    async def test_a_watcher_that_fails_keeps_the_news_from_nobody(
        self, mine: Registry, harness: Harness
    ) -> None:
        other = await harness.connect()

        def fail(snapshot: Snapshot) -> None:
            if snapshot.nodes:
                raise ZeroDivisionError("a bug")

        other.watch(fail)
        seen = Seen(other)
        await mine.register(comet("a"))
        await eventually(lambda: seen.names == ["a"])

    async def test_an_update_replaces_what_is_announced(self, mine: Registry, seen: Seen) -> None:
        info = comet("a")
        registration = await mine.register(info)
        instance = registration.instance

        await registration.update(replace_info(info, weight=7, is_draining=True))

        await eventually(lambda: seen.last.nodes and seen.last.nodes[0].weight == 7)
        assert seen.last.nodes[0].is_draining
        assert seen.last.nodes[0].instance == registration.instance == instance

    async def test_a_withdrawn_entry_is_gone_and_stays_gone(self, mine: Registry, seen: Seen) -> None:
        registration = await mine.register(comet("a"))
        await mine.register(comet("b", 6971))
        await eventually(lambda: seen.names == ["a", "b"])

        await registration.withdraw()
        await registration.withdraw()
        await registration.update(comet("a"))

        await eventually(lambda: seen.names == ["b"])
        await mine.refresh()
        assert Seen(mine).names == ["b"]
        assert not registration.is_standing
        assert registration.instance not in seen.last.instances

    async def test_who_leaves_in_order_is_seen_leaving_by_the_others(
        self, mine: Registry, seen: Seen
    ) -> None:
        info = web("a")
        registration = await mine.register(info)
        await eventually(lambda: seen.names == ["a"])

        await registration.update(replace_info(info, is_draining=True))
        await registration.withdraw()

        await eventually(lambda: seen.names == [])
        assert any(node.is_draining for snapshot in seen.snapshots for node in snapshot.nodes)

    async def test_each_change_of_the_comet_nodes_has_a_higher_epoch(
        self, mine: Registry, seen: Seen
    ) -> None:
        info = comet("a")
        first = await mine.register(info)
        second = await mine.register(comet("a", 6971))
        await first.update(replace_info(info, is_draining=True))
        await first.withdraw()
        await second.withdraw()
        await mine.register(comet("b"))
        await eventually(lambda: seen.names == ["b"])

        epochs = [snapshot.epoch for snapshot in seen.snapshots]
        assert epochs == sorted(epochs)
        by_epoch = {snapshot.epoch: snapshot.nodes for snapshot in seen.snapshots}
        assert all(by_epoch[snapshot.epoch] == snapshot.nodes for snapshot in seen.snapshots)

    async def test_two_processes_see_the_same_under_one_epoch(
        self, mine: Registry, seen: Seen, harness: Harness
    ) -> None:
        other = Seen(await harness.connect())
        for number in range(5):
            await mine.register(comet(f"c-{number}", 7000 + number))
        await eventually(lambda: len(seen.names) == len(other.names) == 5)

        here = {snapshot.epoch: snapshot.nodes for snapshot in seen.snapshots}
        there = {snapshot.epoch: snapshot.nodes for snapshot in other.snapshots}
        assert seen.last.epoch == other.last.epoch
        assert all(here[epoch] == there[epoch] for epoch in here.keys() & there.keys())

    async def test_the_first_instance_of_a_name_serves_and_a_standby_takes_over(
        self, mine: Registry, harness: Harness
    ) -> None:
        other = await harness.connect()
        members = Members(await harness.connect())
        info = comet("a")
        first = await mine.register(info)
        second = await other.register(comet("a", 6971))
        await eventually(lambda: len(members.current.nodes) == 2)
        assert members.current.owner(BOB).instance == first.instance

        await first.update(replace_info(info, is_draining=True))
        await eventually(lambda: members.current.owner(BOB).instance == second.instance)

        await first.update(info)
        await eventually(lambda: members.current.owner(BOB).instance == first.instance)
        await first.withdraw()
        await eventually(lambda: members.current.owner(BOB).instance == second.instance)

    async def test_a_node_of_weight_zero_is_listed_and_owns_nothing(self, mine: Registry, seen: Seen) -> None:
        await mine.register(comet("a", weight=0))
        await eventually(lambda: seen.names == ["a"])

        with pytest.raises(NoNodeError):
            Membership(seen.last).owner(BOB)

    async def test_after_a_refresh_everything_has_been_seen(self, mine: Registry, harness: Harness) -> None:
        other = await harness.connect()
        seen = Seen(other)
        await eventually(lambda: other.session is SessionState.CONNECTED)
        for number in range(10):
            await mine.register(message(f"m-{number}"))
            await other.refresh()
            assert len(seen.names) == number + 1

    async def test_many_register_and_leave_at_once(self, mine: Registry, seen: Seen) -> None:
        registrations = await asyncio.gather(
            *(mine.register(comet(f"c-{number % 10}", 7000 + number)) for number in range(100))
        )
        await eventually(lambda: len(seen.names) == 100)
        assert len({node.instance for node in seen.last.nodes}) == 100

        await asyncio.gather(*(registration.withdraw() for registration in registrations))
        await eventually(lambda: seen.names == [])
