"""What a failed HTTP request means: surely not done, or nobody knows."""

from __future__ import annotations

from typing import Any

import aiohttp

from encke.client.errors import PushError, PushTimeoutError


class Attempt:
    """One request, as far as its failure needs to know of it; given to aiohttp as trace_request_ctx."""

    __slots__ = ("has_connection",)

    def __init__(self) -> None:
        # Until it has one the server was surely not asked.
        self.has_connection = False


def attempt_tracing() -> aiohttp.TraceConfig:
    """What a session needs to tell attempts of their connections."""

    async def on_connection(_: aiohttp.ClientSession, context: Any, __: object) -> None:
        attempt = context.trace_request_ctx
        if isinstance(attempt, Attempt):
            attempt.has_connection = True

    tracing = aiohttp.TraceConfig()
    tracing.on_connection_create_end.append(on_connection)
    tracing.on_connection_reuseconn.append(on_connection)
    return tracing


def push_failure(url: str, error: Exception, push_id: str = "", *, was_connected: bool = True) -> PushError:
    """Tell "surely not done" (it had no connection) from "nobody knows" (everything else).

    Both are worth another attempt.
    """
    if not was_connected and isinstance(error, TimeoutError):
        return PushError("unavailable", f"{url} cannot be reached: no connection in time", push_id)
    if isinstance(error, aiohttp.ClientConnectorError):
        return PushError("unavailable", failure_words(url, error), push_id)
    return PushTimeoutError(failure_words(url, error), push_id)


def failure_words(url: str, error: Exception) -> str:
    """Say it in one line, without what the library repeats."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"{url} cannot be reached: {error.os_error.strerror or error.os_error}"
    if isinstance(error, TimeoutError):
        return f"{url} did not answer in time"
    return f"{url} did not answer: {error or type(error).__name__}"
