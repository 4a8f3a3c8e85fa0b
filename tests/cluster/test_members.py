"""The membership of the moment: each snapshot once, in order, large rings built elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from cluster import members as members_module
from cluster.errors import UnavailableError
from cluster.members import Members
from cluster.membership import Membership
from cluster.model import Key, NodeInfo, NodeKind, NodeName
from cluster.registry.base import Snapshot
from cluster.registry.memory import MemoryRegistry
from tests.support.eventually import eventually

KEYS = [Key(f"key-{n}") for n in range(200)]
# Its ring is not built on the loop.
HEAVY = 20


def comet(name: str, weight: int = 1) -> NodeInfo:
    return NodeInfo(NodeKind.COMET, NodeName(name), f"{name}-1", {}, weight=weight)


class Registry(MemoryRegistry):
    """One that can be away."""

    is_away = False

    async def refresh(self) -> None:
        if self.is_away:
            raise UnavailableError("away")


class LateRegistry(MemoryRegistry):
    """One that knows nothing at first, as one that has to be connected to."""

    def watch(self, on_change: Callable[[Snapshot], None]) -> Callable[[], None]:
        self.tell = on_change
        return lambda: None


class Follower:
    """Notes every membership, as its names and weights."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.members = Members(self.registry)
        self.seen: list[Membership] = []
        self.members.watch(self.seen.append)
        assert self.told() == [{}]
        self.seen.clear()

    def told(self) -> list[dict[str, int]]:
        return [{node.name: node.weight for node in membership.nodes} for membership in self.seen]


async def test_members_follow_the_registry_and_tell_each_change_in_the_order_in_which_watchers_came() -> None:
    registry = MemoryRegistry()
    members = Members(registry)
    told: list[tuple[str, int]] = []
    members.watch(lambda now: told.append(("first", len(now.nodes))))
    members.watch(lambda now: told.append(("second", len(now.nodes))))
    assert told == [("first", 0), ("second", 0)]
    told.clear()
    empty = members.current

    registration = await registry.register(comet("a"))

    assert told == [("first", 1), ("second", 1)]
    assert members.current.owner(KEYS[0]).name == "a"
    assert members.current.epoch > empty.epoch
    # What was read before does not change.
    assert empty.nodes == ()
    members.close()
    await registration.withdraw()
    assert len(told) == 2
    assert members.current.owner(KEYS[0]).name == "a"


async def test_who_ended_his_watch_hears_nothing_more() -> None:
    registry = MemoryRegistry()
    members = Members(registry)
    told: list[Membership] = []
    end = members.watch(told.append)
    end()
    end()
    await registry.register(comet("a"))
    assert [membership.nodes for membership in told] == [()]


async def test_what_the_registry_tells_first_is_waited_for() -> None:
    registry = LateRegistry()
    members = Members(registry)
    waiting = asyncio.create_task(members.wait_known())
    await asyncio.sleep(0)
    assert not waiting.done()
    # Nobody is there, which is something else than not to know.
    registry.tell(Snapshot(epoch=(1, 1), nodes=()))
    await waiting
    assert members.current.epoch == (1, 1)
    members.close()


async def test_a_large_ring_is_built_elsewhere_while_the_last_membership_stays() -> None:
    follower = Follower()
    await follower.registry.register(comet("a"))
    await follower.registry.register(comet("b", HEAVY))
    assert follower.told() == [{"a": 1}]
    assert follower.members.current.ring.sole == "a"
    await follower.members.refresh()
    assert follower.told() == [{"a": 1}, {"a": 1, "b": HEAVY}]
    assert {follower.members.current.owner(key).name for key in KEYS} == {"a", "b"}


async def test_a_small_ring_does_not_overtake_a_large_one() -> None:
    follower = Follower()
    await follower.registry.register(comet("a", HEAVY))
    large = await follower.registry.register(comet("b", HEAVY))
    await large.withdraw()
    await follower.registry.register(comet("c", HEAVY))
    await follower.members.refresh()
    assert follower.told() == [
        {"a": HEAVY},
        {"a": HEAVY, "b": HEAVY},
        {"a": HEAVY},
        {"a": HEAVY, "c": HEAVY},
    ]
    epochs = [membership.epoch for membership in follower.seen]
    assert epochs == sorted(epochs)


async def test_the_ring_is_built_anew_only_when_its_nodes_change() -> None:
    follower = Follower()
    await follower.registry.register(comet("a", HEAVY))
    await follower.registry.register(comet("b", HEAVY))
    await follower.members.refresh()
    ring = follower.members.current.ring
    await follower.registry.register(NodeInfo(NodeKind.MESSAGE, NodeName("m"), "m-1", {}))
    assert [node.name for node in follower.members.current.nodes] == ["a", "b", "m"]
    assert follower.members.current.ring is ring


async def test_snapshots_that_come_faster_than_rings_are_built_are_passed_over() -> None:
    follower = Follower()
    await follower.registry.register(comet("a", HEAVY))
    await follower.registry.register(comet("b", HEAVY))
    refreshed = []
    for number in range(members_module.MAX_WAITING * 2):
        await follower.registry.register(comet(f"c{number}"))
        refreshed.append(asyncio.ensure_future(follower.members.refresh()))
        await asyncio.sleep(0)
    await asyncio.gather(*refreshed)
    assert len(follower.seen) < members_module.MAX_WAITING * 2
    assert len(follower.members.current.nodes) == members_module.MAX_WAITING * 2 + 2


async def test_a_refresh_says_when_the_registry_is_away_and_ends_when_nobody_follows() -> None:
    follower = Follower()
    follower.registry.is_away = True
    with pytest.raises(UnavailableError):
        await follower.members.refresh()
    follower.registry.is_away = False
    await follower.registry.register(comet("a", HEAVY))
    await follower.registry.register(comet("b", HEAVY))
    refreshing = asyncio.ensure_future(follower.members.refresh())
    await asyncio.sleep(0)
    follower.members.close()
    await refreshing
    await eventually(lambda: len(asyncio.all_tasks()) == 1)
    assert len(follower.seen) < 2


async def test_those_who_watch_all_see_the_changes_in_one_order_when_one_of_them_makes_a_change() -> None:
    registry = MemoryRegistry()
    members = Members(registry)
    told: list[int] = []

    def answer(membership: Membership) -> None:
        if len(membership.nodes) == 1:
            registry._set(99, comet("z"))

    members.watch(answer)
    members.watch(lambda membership: told.append(len(membership.nodes)))
    await registry.register(comet("a"))
    assert told == [0, 1, 2]


@pytest.mark.parametrize("weight", [1, HEAVY])
async def test_a_ring_that_cannot_be_built_is_passed_over_and_the_next_one_counts(
    caplog: pytest.LogCaptureFixture, weight: int
) -> None:
    follower = Follower()
    await follower.registry.register(comet("a", weight))
    # No ring can place a name that has no bytes.
    bad = await follower.registry.register(comet("\udcff", weight))
    # While it is being built, and after that.
    for _ in range(2):
        with pytest.raises(UnavailableError):
            await follower.members.refresh()
    assert follower.told() == [{"a": weight}]
    assert "the last one stays" in caplog.text
    await bad.withdraw()
    await follower.registry.register(comet("b", weight))
    await follower.members.refresh()
    assert follower.told()[-1] == {"a": weight, "b": weight}


async def test_one_who_watches_and_fails_does_not_keep_the_news_from_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry = MemoryRegistry()
    members = Members(registry)
    told: list[int] = []

    def fail(membership: Membership) -> None:
        if membership.nodes:
            raise ZeroDivisionError("a bug")

    members.watch(fail)
    members.watch(lambda membership: told.append(len(membership.nodes)))
    await registry.register(comet("a"))
    await registry.register(comet("b", HEAVY))
    await members.refresh()
    assert told == [0, 1, 2]
    assert "a bug" in caplog.text
