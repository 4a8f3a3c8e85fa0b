"""Subscriber tokens: stateless, valid on every node (docs/subscriber-protocol.md, tokens).

A token is ``EXPIRY.HEX``: Unix seconds, a dot, and the lower-case hex of
HMAC-SHA256(secret, "EXPIRY.KEY").
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence

from cluster.model import Key

_TOKEN = re.compile(r"([1-9][0-9]{0,15})\.([0-9a-f]{64})", re.ASCII)


def mint(secret: str, key: Key, expires_at: int) -> str:
    """Make the token that lets its bearer subscribe to key until expires_at (Unix seconds)."""
    return f"{expires_at}.{_signature(secret, key, str(expires_at))}"


class TokenVerifier:
    """Checks tokens against any of several secrets (the first mints; the others are being rotated out)."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = tuple(secrets)

    @property
    def is_required(self) -> bool:
        """Whether subscribers need a token: true as soon as one secret is configured."""
        return bool(self._secrets)

    def expiry(self, key: Key, token: str, now: float) -> int | None:
        """Unix second at which a good token expires; None when it is bad or has expired.

        Constant-time in the signature.
        """
        match = _TOKEN.fullmatch(token)
        if match is None:
            return None
        expiry, signature = match.groups()
        if int(expiry) <= now:
            return None
        good = [hmac.compare_digest(_signature(s, key, expiry), signature) for s in self._secrets]
        return int(expiry) if any(good) else None


def _signature(secret: str, key: Key, expiry: str) -> str:
    return hmac.new(secret.encode(), f"{expiry}.{key}".encode(), hashlib.sha256).hexdigest()
