"""Who may use a listener: web origins (CORS), names in requests, and the admin token. Pure."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from enum import Enum

ANY_ORIGIN = "*"


class Verdict(Enum):
    ALLOWED = "allowed"
    FOREIGN_ORIGIN = "this web origin is not allowed"
    FOREIGN_NAME = "without web.admin_token only an IP address or localhost may be asked for, no other name"
    BAD_TOKEN = "the admin token is missing or wrong"


class Access:
    """The rules of one listener."""

    def __init__(
        self,
        origins: Sequence[str],
        token: str,
        *,
        refuses_foreign: bool,
        methods: str,
        refuses_names: bool = False,
    ) -> None:
        """Set the rules.

        Args:
            origins: web origins that are told they may read the answers; '*' is all of them.
            token: wanted as a bearer token; empty for none.
            refuses_foreign: turn away requests with another origin. The public API does not:
                its answers are only kept from the page by the browser.
            methods: what a preflight is told, "GET, POST".
            refuses_names: turn away requests for a domain name. A page may have its own name point to
                the loopback address of whoever looks at it, and is then of the origin that it asks.
        """
        self._origins = frozenset(origins)
        self._token = token.encode()
        self._refuses_foreign = refuses_foreign
        self._methods = methods
        self._refuses_names = refuses_names

    @property
    def wants_token(self) -> bool:
        """Whether requests without a token are turned away."""
        return bool(self._token)

    @property
    def wants_check(self) -> bool:
        """Whether a request without an origin may be turned away, too."""
        return self.wants_token or self._refuses_names

    def check(self, origin: str | None, authorization: str | None, host: str | None) -> Verdict:
        """Decide about a request by three of its headers (None = absent)."""
        if self._refuses_names and host is not None and _is_domain_name(host):
            return Verdict.FOREIGN_NAME
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


def _is_domain_name(host: str) -> bool:
    """Whether a Host header names what others may own: a name with a dot, and no number at its end."""
    if host.startswith("["):
        return False
    name = host.partition(":")[0].removesuffix(".")
    last = name.rpartition(".")[2].lower()
    return "." in name and not last.isdigit() and last != "localhost"
