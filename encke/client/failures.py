"""What a failed HTTP request of the publisher means."""

from __future__ import annotations

import aiohttp

from encke.client.errors import PushError, PushTimeoutError


def push_failure(url: str, error: Exception, push_id: str = "") -> PushError:
    """Tell "surely not done" (it could not connect) from "nobody knows" (everything else).

    Both are worth another attempt.
    """
    if isinstance(error, aiohttp.ClientConnectorError):
        return PushError("unavailable", f"{url} cannot be reached: {error}", push_id)
    if isinstance(error, TimeoutError):
        return PushTimeoutError(f"{url} did not answer in time", push_id)
    return PushTimeoutError(f"{url} did not answer: {error or type(error).__name__}", push_id)
