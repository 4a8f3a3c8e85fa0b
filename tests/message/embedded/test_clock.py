"""The embedded store's clock across its ends, when the machine's clock is set back meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path

from cluster.model import Mid
from cluster.stats import Stats
from message.storage.embedded.store import EmbeddedStore
from tests.message.clocks import SteppedClock
from tests.message.stores import opened, settings_for


def store_on(data_dir: Path, clock: SteppedClock) -> EmbeddedStore:
    return EmbeddedStore(settings_for(data_dir), Stats(), wall_ns=clock.wall_ns)


async def clock_after_a_step_back(store: EmbeddedStore, clock: SteppedClock) -> Mid:
    """What the store has told while the machine's clock was a minute ahead."""
    clock.advance(60)
    told = await store.clock()
    clock.advance(-60)
    return told


async def test_clock_that_was_told_and_stored_nothing_goes_on_after_an_orderly_end(tmp_path: Path) -> None:
    clock = SteppedClock()
    async with opened(store_on(tmp_path, clock)) as store:
        told = await clock_after_a_step_back(store, clock)
    async with opened(store_on(tmp_path, clock)) as store:
        assert await store.clock() > told


async def test_clock_ahead_of_the_machine_goes_on_after_a_crash(tmp_path: Path) -> None:
    clock = SteppedClock()
    async with opened(store_on(tmp_path / "store", clock)) as store:
        told = await clock_after_a_step_back(store, clock)
        await store.remove_expired(1)
        # As it would be found after a crash now.
        shutil.copytree(tmp_path / "store", tmp_path / "crashed")
    async with opened(store_on(tmp_path / "crashed", clock)) as store:
        assert await store.clock() > told
