"""Who may use a listener: web origins (CORS) and the admin token. Pure."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from enum import Enum

ANY_ORIGIN = "*"


class Verdict(Enum):
    ALLOWED = "allowed"
    FOREIGN_ORIGIN = "this web origin is not allowed"
    BAD_TOKEN = "the admin token is missing or wrong"


class Access:
    """The rules of one listener."""

    def __init__(self, origins: Sequence[str], token: str, *, refuses_foreign: bool, methods: str) -> None:
        """Set the rules.

        Args:
            origins: web origins that are told they may read the answers; '*' is all of them.
            token: wanted as a bearer token; empty for none.
            refuses_foreign: turn away requests with another origin. The public API does not:
                its answers are only kept from the page by the browser.
            methods: what a preflight is told, "GET, POST".
        """
        self._origins = frozenset(origins)
        self._token = token.encode()
        self._refuses_foreign = refuses_foreign
        self._methods = methods

    @property
    def wants_token(self) -> bool:
        """Whether requests without a token are turned away."""
        return bool(self._token)

    def check(self, origin: str | None, authorization: str | None) -> Verdict:
        """Decide about a request by its two headers (None = absent)."""
        if origin is not None and self._refuses_foreign and not self._is_listed(origin):
            return Verdict.FOREIGN_ORIGIN
        if self._token and not self._is_token_good(authorization):
            return Verdict.BAD_TOKEN
        return Verdict.ALLOWED

    def cors_headers(self, origin: str | None) -> dict[str, str]:
        """Headers that let a listed origin's page read the answer; empty for all others."""
        if origin is None or not self._is_listed(origin):
            return {}
        # A '*' would not do for pages that send the token.
        return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}

    def preflight_headers(self, origin: str | None) -> dict[str, str]:
        """Headers of the answer to a preflight; empty when it is to be refused."""
        headers = self.cors_headers(origin)
        if headers:
            headers["Access-Control-Allow-Methods"] = self._methods
            headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type"
            headers["Access-Control-Max-Age"] = "600"
        return headers

    def _is_listed(self, origin: str) -> bool:
        return ANY_ORIGIN in self._origins or origin in self._origins

    def _is_token_good(self, authorization: str | None) -> bool:
        scheme, _, token = (authorization or "").partition(" ")
        given = token.strip().encode("utf-8", "surrogateescape")
        return scheme.lower() == "bearer" and hmac.compare_digest(given, self._token)
