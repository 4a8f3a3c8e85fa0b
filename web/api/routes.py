"""Which handler answers which request: the tables of both listeners, and what all requests go through.

On the way in: web origin and token, path, method. On the way out: an error
becomes an answer; an unexpected one is logged, once, with its traceback.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from cluster.errors import EnckeError
from cluster.failurelimiter import FailureLimiter
from cluster.stats import Counter
from web.api.dialect import COMPATIBLE, OLDEST
from web.api.inspect import Inspector
from web.api.locate import Locator
from web.api.nodes import NodeListing
from web.api.offline import Offline
from web.api.pushapi import PushApi
from web.api.stream import PushStreams
from web.codec.replies import (
    Answer,
    Api,
    api_of,
    failure,
    no_content,
    not_found,
    refusal,
    too_many_tokens,
    wrong_method,
)
from web.metrics import WebMetrics
from web.serving.access import Access, Verdict
from web.serving.request import BodyTimeoutError, DisconnectedError, Request

log = logging.getLogger(__name__)

# With a handler's further arguments: the parts of the path in braces, as sent.
Handler = Callable[..., Awaitable[Answer | None]]


class Route(msgspec.Struct, frozen=True):
    """One line of a table."""

    method: str
    # Parts in braces stand for any one part of a path.
    path: str
    api: Api
    handler: Handler


def public_routes(locator: Locator, offline: Offline) -> list[Route]:
    """What subscribers ask."""

    async def server_1(request: Request) -> Answer:
        return await locator.one(request, COMPATIBLE)

    async def server_0(request: Request) -> Answer:
        return await locator.one(request, OLDEST)

    async def messages_1(request: Request) -> Answer:
        return await offline.stored(request, COMPATIBLE)

    async def messages_0(request: Request) -> Answer:
        return await offline.stored(request, OLDEST)

    async def time_1(request: Request) -> Answer:
        return await offline.time(request, COMPATIBLE)

    async def time_0(request: Request) -> Answer:
        return await offline.time(request, OLDEST)

    return [
        Route("GET", "/1/server/get", Api.COMPATIBLE, server_1),
        Route("GET", "/2/server/get", Api.COMPATIBLE, locator.every),
        Route("GET", "/1/msg/get", Api.COMPATIBLE, messages_1),
        Route("GET", "/1/time/get", Api.COMPATIBLE, time_1),
        Route("GET", "/server/get", Api.OLDEST, server_0),
        Route("GET", "/msg/get", Api.OLDEST, messages_0),
        Route("GET", "/time/get", Api.OLDEST, time_0),
    ]


def admin_routes(
    pushes: PushApi, streams: PushStreams, inspector: Inspector, listing: NodeListing
) -> list[Route]:
    """What backends and operators ask. The old names answer as the new ones do."""
    return [
        Route("POST", "/1/admin/push/private", Api.COMPATIBLE, pushes.one),
        Route("POST", "/1/admin/push/mprivate", Api.COMPATIBLE, pushes.many),
        Route("POST", "/1/admin/msg/del", Api.COMPATIBLE, inspector.delete_form),
        Route("POST", "/admin/push", Api.COMPATIBLE, pushes.one),
        Route("POST", "/admin/msg/clean", Api.COMPATIBLE, inspector.delete_form),
        Route("POST", "/2/admin/push", Api.V2, pushes.v2),
        Route("POST", "/2/admin/push/stream", Api.V2, streams.serve),
        Route("GET", "/2/admin/nodes", Api.V2, listing.nodes),
        Route("GET", "/2/admin/keys/{key}", Api.V2, inspector.key),
        Route("DELETE", "/2/admin/keys/{key}", Api.V2, inspector.delete_key),
        Route("GET", "/2/admin/keys/{key}/messages", Api.V2, inspector.messages),
        Route("DELETE", "/2/admin/keys/{key}/messages/{mid}", Api.V2, inspector.delete_message),
    ]


class _Endpoint:
    """All methods of one path."""

    def __init__(self, path: str, api: Api, counter: Counter) -> None:
        self.parts = path.split("/")
        self.api = api
        self.counter = counter
        self.handlers: dict[str, Handler] = {}

    @property
    def allowed(self) -> str:
        return ", ".join(self.handlers)

    def match(self, parts: Sequence[str]) -> list[str] | None:
        """The parts of a path that stand where this one has braces; None when it is another path."""
        if len(parts) != len(self.parts):
            return None
        found = []
        for mine, given in zip(self.parts, parts, strict=True):
            if mine.startswith("{"):
                found.append(given)
            elif mine != given:
                return None
        return found


class Router:
    """Serves the requests of one listener."""

    def __init__(
        self, routes: Sequence[Route], access: Access, metrics: WebMetrics, limiter: FailureLimiter
    ) -> None:
        """Build the tables.

        Args:
            limiter: counts bad tokens per address.
        """
        self._access = access
        self._is_guarded = access.wants_token
        self._checks_all = access.wants_check
        self._limiter = limiter
        self._metrics = metrics
        # Paths without braces: one look-up.
        self._exact: dict[str, _Endpoint] = {}
        self._patterns: dict[str, _Endpoint] = {}
        for route in routes:
            table = self._patterns if "{" in route.path else self._exact
            endpoint = table.get(route.path)
            if endpoint is None:
                counter = metrics.requests.child(route.path)
                endpoint = table[route.path] = _Endpoint(route.path, route.api, counter)
            endpoint.handlers[route.method] = route.handler

    async def serve(self, request: Request) -> Answer | None:
        """Answer a request; None when the handler has sent its answer itself.

        Raises:
            DisconnectedError: the client is gone.
        """
        arguments: Sequence[str] = ()
        endpoint = self._exact.get(request.path)
        if endpoint is None:
            endpoint, arguments = self._match(request.path)
        api = endpoint.api if endpoint is not None else api_of(request.path)
        if self._checks_all or "Origin" in request.headers:
            turned_away = self._check_access(request, api)
            if turned_away is not None:
                return turned_away
        if endpoint is None:
            return not_found(api)
        handler = endpoint.handlers.get(request.method)
        if handler is None:
            return wrong_method(api, endpoint.allowed)
        endpoint.counter.value += 1
        try:
            return await handler(request, *arguments)
        except EnckeError as error:
            return self._failure(error, api)
        except Exception:
            self._metrics.errors.value += 1
            log.exception("request failed: method=%s path=%s", request.method, request.path[:80])
            return failure(EnckeError("internal error"), api)

    def _match(self, path: str) -> tuple[_Endpoint | None, Sequence[str]]:
        parts = path.split("/")
        for endpoint in self._patterns.values():
            found = endpoint.match(parts)
            if found is not None:
                return endpoint, found
        return None, ()

    def _check_access(self, request: Request, api: Api) -> Answer | None:
        origin = request.headers.get("Origin")
        if origin is not None and self._is_preflight(request):
            preflight = self._access.preflight_headers(origin)
            return no_content(preflight) if preflight else self._refuse(403, api, Verdict.FOREIGN_ORIGIN)
        headers = request.headers
        verdict = self._access.check(origin, headers.get("Authorization"), headers.get("Host"))
        if verdict in (Verdict.FOREIGN_ORIGIN, Verdict.FOREIGN_NAME):
            return self._refuse(403, api, verdict)
        if origin is not None:
            request.extra_head = _header_lines(self._access.cors_headers(origin))
        if not self._is_guarded:
            return None
        wait_s = self._limiter.wait_s(request.remote)
        if wait_s:
            # Whatever the token: who guesses must not be told.
            self._metrics.refusals.inc("rate")
            return too_many_tokens(api, wait_s)
        if verdict is Verdict.BAD_TOKEN:
            self._limiter.add_failure(request.remote)
            return self._refuse(401, api, verdict)
        self._limiter.trust(request.remote)
        return None

    @staticmethod
    def _is_preflight(request: Request) -> bool:
        return request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers

    def _refuse(self, status: int, api: Api, verdict: Verdict) -> Answer:
        self._metrics.refusals.inc(verdict.name.lower())
        extra = {"WWW-Authenticate": "Bearer"} if status == 401 else None
        return refusal(status, api, verdict.value, extra)

    def _failure(self, error: EnckeError, api: Api) -> Answer:
        if isinstance(error, DisconnectedError):
            raise error
        if isinstance(error, BodyTimeoutError):
            self._metrics.refusals.inc("body_timeout")
            return refusal(408, api, str(error))
        return failure(error, api)


def _header_lines(headers: dict[str, str]) -> bytes:
    text = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return text.encode("utf-8", "surrogateescape")
