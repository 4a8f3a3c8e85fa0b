"""web/api/openapi.json describes what the server does: schemathesis asks a running one and compares."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
import requests
import schemathesis
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks as openapi_checks

from tests.support.web import Web, running_system
from web.api.inspect import Inspector
from web.api.locate import Locator
from web.api.nodes import NodeListing
from web.api.offline import Offline
from web.api.openapi import PATH
from web.api.pushapi import PushApi
from web.api.routes import admin_routes, public_routes
from web.api.stream import PushStreams

# Bounds the run to half a minute; every parameter is varied all the same.
EXAMPLES = 15

# No 5xx, and status, type and body are as described.
CHECKS = [
    schemathesis.checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
]


class Background:
    """A whole server in a thread with a loop of its own, because schemathesis asks from plain functions."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()))
        self.web: Web | None = None

    def __enter__(self) -> Web:
        self._thread.start()
        assert self._ready.wait(20)
        assert self.web is not None
        return self.web

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with running_system(self._data_dir) as self.web:
            self._ready.set()
            await self._stop.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with Background(tmp_path_factory.mktemp("openapi") / "data") as web:
        yield web


def described(listener: str) -> list[tuple[str, str, str]]:
    """(listener, method, path) of everything that is described for a listener."""
    document = json.loads(resources.files("web.api").joinpath("openapi.json").read_bytes())
    return [
        (listener, method, path)
        for path, item in document["paths"].items()
        for method in item
        # A stream is answered while it is read, which schemathesis does not do; test_stream.py does.
        if ("admin" in path) == (listener == "admin") and not path.endswith("/stream")
    ]


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("listener", "method", "path"), [*described("public"), *described("admin")])
def test_server_does_what_its_description_says(
    server: Web, listener: str, method: str, path: str, mode: GenerationMode
) -> None:
    schema = schemathesis.openapi.from_url(f"http://{server.node.addresses[listener]}{PATH}")
    operation = schema[path][method]

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS)

    try:
        ask()
    except Unsatisfiable:
        # Nothing can be wrong about a request without parameters.
        assert mode is GenerationMode.NEGATIVE


def test_each_listener_describes_exactly_what_it_answers(server: Web) -> None:
    # Tables of the classes, not of what answers here: only methods and paths are looked at.
    tables = {
        "public": public_routes(Locator, Offline),
        "admin": admin_routes(PushApi, PushStreams, Inspector, NodeListing),
    }
    for listener, routes in tables.items():
        answered = requests.get(f"http://{server.node.addresses[listener]}{PATH}", timeout=10)
        described = {
            (method.upper(), path) for path, item in answered.json()["paths"].items() for method in item
        }
        assert described == {("GET", PATH), *((route.method, route.path) for route in routes)}
