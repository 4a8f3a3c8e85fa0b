"""What a failed HTTP request means."""

from __future__ import annotations

import aiohttp

from encke.client.errors import PushError, PushTimeoutError


def push_failure(url: str, error: Exception, push_id: str = "") -> PushError:
    """Tell "surely not done" (it could not connect) from "nobody knows" (everything else).

    Both are worth another attempt.
    """
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return PushError("unavailable", failure_words(url, error), push_id)
    return PushTimeoutError(failure_words(url, error), push_id)


def failure_words(url: str, error: Exception) -> str:
    """Say it in one line, without what the library repeats."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"{url} cannot be reached: {error.os_error.strerror or error.os_error}"
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return f"{url} cannot be reached: no connection in time"
    if isinstance(error, TimeoutError):
        return f"{url} did not answer in time"
    return f"{url} did not answer: {error or type(error).__name__}"
