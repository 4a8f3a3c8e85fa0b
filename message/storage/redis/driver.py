"""The driver's connections: how they are made, and how they are ended at once."""

from __future__ import annotations

from typing import Any

from redis.asyncio.connection import AbstractConnection, ConnectionPool

from message.storage.redis.config import RedisSettings


def connection_factory(url: str, settings: RedisSettings) -> Any:
    """A pool of the driver that only makes connections.

    Raises:
        ValueError: the URL is wrong.
    """
    return ConnectionPool.from_url(
        url,
        protocol=2,
        socket_timeout=settings.timeout_s,
        socket_connect_timeout=settings.connect_timeout_s,
        client_name="encke",
    )


def abort(connection: AbstractConnection) -> None:
    """End it, written or not; its reader is told."""
    # A close would wait for a server that has stopped to take what was written.
    if connection._writer is not None:
        connection._writer.transport.abort()


async def drop(connection: AbstractConnection) -> None:
    """End it, and have the driver forget it."""
    abort(connection)
    await connection.disconnect(nowait=True)
