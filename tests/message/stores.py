"""Open embedded stores the way that the tests of their special sides need."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from cluster.contracts.message import SaveBatch, SaveItem, SaveReply
from cluster.mids import TICKS_PER_SECOND
from cluster.model import Key, Mid
from cluster.stats import Stats
from message.storage.config import EmbeddedSettings
from message.storage.embedded import EmbeddedStore

BOB = Key("bob")


def settings_for(data_dir: Path, **changed: Any) -> EmbeddedSettings:
    """Defaults, but expiry only when asked for."""
    return replace(EmbeddedSettings(), data_dir=str(data_dir), **{"expiry_interval_s": 3600.0, **changed})


@asynccontextmanager
async def open_store(
    data_dir: Path, stats: Stats | None = None, **changed: Any
) -> AsyncIterator[EmbeddedStore]:
    """An open store, its first search for expired messages over; stopped at the end."""
    store = EmbeddedStore(settings_for(data_dir, **changed), stats or Stats())
    await store.start()
    # The store's own search may be queued behind the first of these.
    await store.remove_expired(1)
    await store.remove_expired(1)
    try:
        yield store
    finally:
        await store.stop()


async def save_one(store: EmbeddedStore, key: Key, push_id: str, payload: bytes = b"{}") -> SaveReply:
    """Save one message."""
    deadline = Mid(await store.clock() + 30 * TICKS_PER_SECOND)
    return await store.save(SaveBatch(key, [SaveItem(push_id, payload, 600)], Mid(0), deadline))


async def load_all(store: EmbeddedStore, key: Key) -> list[bytes]:
    """Payloads of everything stored for a key."""
    page = await store.load_after(key, Mid(0), 1_000_000, 1_000_000_000)
    return [message.payload for message in page.messages]


def broken(_: sqlite3.Connection) -> NoReturn:
    """A change, or a query, with a bug."""
    raise RuntimeError("a bug")
