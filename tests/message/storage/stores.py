"""Open stores the way that the tests of their special sides need."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from cluster.model import Mid
from cluster.stats import Stats
from message.storage.base import MessageStore
from message.storage.embedded.config import EmbeddedSettings
from message.storage.embedded.file import FILE_NAME
from message.storage.embedded.store import EmbeddedStore

Store = TypeVar("Store", bound=MessageStore)


def limits_with(**changed: Any) -> EmbeddedSettings:
    """The limits of every store, by default but for expiry, which happens only when it is asked for."""
    return replace(EmbeddedSettings(), **{"expiry_interval_s": 3600.0, **changed})


def settings_for(data_dir: Path, **changed: Any) -> EmbeddedSettings:
    """The same for an embedded store in a directory."""
    return limits_with(data_dir=str(data_dir), **changed)


@asynccontextmanager
async def opened(store: Store) -> AsyncIterator[Store]:
    """Open a store; it is stopped at the end."""
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


@asynccontextmanager
async def open_store(
    data_dir: Path, stats: Stats | None = None, **changed: Any
) -> AsyncIterator[EmbeddedStore]:
    """An open embedded store, its first search for expired messages over; stopped at the end."""
    async with opened(EmbeddedStore(settings_for(data_dir, **changed), stats or Stats())) as store:
        # The store's own search may be queued behind the first of these.
        await store.remove_expired(1)
        await store.remove_expired(1)
        yield store


def damage(data_dir: Path, *mids: Mid) -> None:
    """Change payloads behind the back of an open embedded store. What they weigh stays."""
    connection = sqlite3.connect(data_dir / FILE_NAME, isolation_level=None)
    for mid in mids:
        connection.execute("UPDATE messages SET payload = zeroblob(length(payload)) WHERE mid = ?", (mid,))
    connection.close()


def broken(_: sqlite3.Connection) -> NoReturn:
    """A change, or a query, with a bug."""
    raise RuntimeError("a bug")
