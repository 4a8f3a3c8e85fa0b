"""web/api/departures.py."""

from __future__ import annotations

from typing import Any

from cluster.members import Members
from cluster.registry.memory import MemoryRegistration, MemoryRegistry
from tests.support.web import comet_info
from web.api.departures import KEPT_S, MAX_KEPT, Departures


class Watch:
    """A registry, who watches it, and the time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.registry = MemoryRegistry()
        self.departures = Departures(Members(self.registry), lambda: self.now)

    async def add(self, name: str, **fields: Any) -> MemoryRegistration:
        return await self.registry.register(comet_info(name, **fields))

    def seen(self) -> list[tuple[str, bool, float]]:
        return [(one.node.instance, one.is_orderly, ago_s) for one, ago_s in self.departures.recent()]


async def test_node_that_goes_is_remembered_for_a_minute() -> None:
    watch = Watch()
    entry = await watch.add("a")
    await watch.add("b")
    assert watch.seen() == []
    await entry.withdraw()
    watch.now += 7
    assert watch.seen() == [("a", False, 7.0)]
    watch.now += KEPT_S
    assert watch.seen() == []


async def test_node_that_drained_has_left() -> None:
    watch = Watch()
    entry = await watch.add("a")
    await entry.update(comet_info("a", is_draining=True))
    await entry.withdraw()
    assert watch.seen() == [("a", True, 0.0)]


async def test_node_that_registers_anew_has_not_died() -> None:
    watch = Watch()
    entry = await watch.add("a", instance="1", started_at=5.0)
    await entry.withdraw()
    assert len(watch.seen()) == 1
    await watch.add("a", instance="2", started_at=5.0)
    assert watch.seen() == []


async def test_node_that_was_started_again_has_died_before() -> None:
    watch = Watch()
    entry = await watch.add("a", instance="1", started_at=5.0)
    await watch.add("a", instance="2", started_at=6.0)
    await entry.withdraw()
    assert watch.seen() == [("1", False, 0.0)]


async def test_of_many_the_last_are_remembered() -> None:
    watch = Watch()
    for number in range(MAX_KEPT + 5):
        await (await watch.add(f"n{number}")).withdraw()
    names = [name for name, _, _ in watch.seen()]
    assert (len(names), names[0], names[-1]) == (MAX_KEPT, "n5", f"n{MAX_KEPT + 4}")


async def test_nothing_is_followed_after_the_end() -> None:
    watch = Watch()
    entry = await watch.add("a")
    watch.departures.close()
    watch.departures.close()
    await entry.withdraw()
    assert watch.seen() == []
