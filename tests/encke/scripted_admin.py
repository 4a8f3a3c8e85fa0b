"""An admin server that refuses, breaks off and comes back; real sockets, scripted answers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web

from tests.encke.scripted import serving_http

DEADLINE_S = 10.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Admin:
    """An admin API that stores pushes in a dict, and does what `trouble` says first."""

    def __init__(self) -> None:
        # By key and id: the message is there once.
        self.stored: dict[tuple[str, str], object] = {}
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        # Each is used for one request: a status, or "cut" before or after the push is done.
        self.trouble: list[int | str] = []
        # Code for each of these keys, once.
        self.failing: dict[str, str] = {}
        # A stream is cut after so many answers, once each.
        self.cuts: list[int] = []
        # A stream is ended in order after so many answers, once each.
        self.ends: list[int] = []

    async def push(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        trouble = self.trouble.pop(0) if self.trouble else None
        if isinstance(trouble, int):
            return web.json_response({"error": {"code": "word", "message": "words"}}, status=trouble)
        if trouble == "cut before":
            return _cut(request)
        answer = self.store(body)
        return _cut(request) if trouble == "cut after" else web.json_response(answer)

    def store(self, body: dict[str, Any]) -> dict[str, Any]:
        keys = [body["key"]] if "key" in body else body["keys"]
        push_id = body.get("id", f"none-{len(self.stored)}")
        results, failed = [], []
        for key in keys:
            if key in self.failing:
                failed.append({"key": key, "code": self.failing.pop(key)})
                continue
            known = (key, push_id) in self.stored
            self.stored.setdefault((key, push_id), body["msg"])
            mid = 80 * (1 + list(self.stored).index((key, push_id)))
            result = {"key": key, "mid": mid, "online": 1}
            results.append({**result, "repeated": True} if known else result)
        return {"results": results, "failed": failed}

    async def stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        trouble = self.trouble.pop(0) if self.trouble else None
        if isinstance(trouble, int):
            return web.json_response({"error": {"code": "word", "message": "words"}}, status=trouble)
        await response.prepare(request)
        cut_at = self.cuts.pop(0) if self.cuts else -1
        end_at = self.ends.pop(0) if self.ends else -1
        answered = 0
        async for line in request.content:
            if answered == cut_at:
                return _cut(request)
            if answered == end_at:
                return response
            try:
                answer = self.store(json.loads(line))
            except ValueError:
                answer = {"error": {"code": "bad_request", "message": "not JSON"}}
            answered += 1
            await response.write(json.dumps(answer).encode() + b"\n")
        return response


def _cut(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@contextlib.asynccontextmanager
async def served(admin: Admin) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/2/admin/push", admin.push)
    app.router.add_post("/2/admin/push/stream", admin.stream)
    async with serving_http(app) as url:
        yield url
