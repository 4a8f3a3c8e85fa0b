"""GET /openapi.json: the part of web/api/openapi.json that a listener answers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

import msgspec

from web.api.routes import Route
from web.codec.replies import Answer, Api, document
from web.serving.request import Request

PATH = "/openapi.json"


def with_document(routes: Sequence[Route]) -> list[Route]:
    """Add the route that describes these routes, itself included."""
    whole = msgspec.json.decode(resources.files("web.api").joinpath("openapi.json").read_bytes())
    known = {PATH, *(route.path for route in routes)}
    whole["paths"] = {path: item for path, item in whole["paths"].items() if path in known}
    answer = document(msgspec.json.encode(whole))

    async def serve(_: Request) -> Answer:
        return answer

    return [*routes, Route("GET", PATH, Api.V2, serve)]
