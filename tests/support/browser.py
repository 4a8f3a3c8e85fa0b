"""A headless Chromium that opens one page; the page tells what happens by posting to where it came from."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--no-proxy-server",
)
# A cold start on a busy machine.
TOLD_DEADLINE_S = 60.0
END_DEADLINE_S = 20.0


class Page:
    """What a page told, in order."""

    def __init__(self) -> None:
        self.address = ""
        self._told: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

    async def told(self, step: str) -> Any:
        """Wait until the page tells this step; its value. Other steps are skipped, errors are not."""
        async with asyncio.timeout(TOLD_DEADLINE_S):
            while True:
                found, value = await self._told.get()
                assert found == step or found != "error", value
                if found == step:
                    return value

    async def told_all(self, steps: set[str]) -> dict[str, Any]:
        """Wait until the page has told each of these, in any order; their values."""
        values: dict[str, Any] = {}
        async with asyncio.timeout(TOLD_DEADLINE_S):
            while steps - set(values):
                step, value = await self._told.get()
                assert step != "error", value
                values[step] = value
        return values

    async def take(self, request: web.Request) -> web.Response:
        """The page's posts arrive here."""
        told = await request.json()
        self._told.put_nowait((told["step"], told["value"]))
        return web.Response(text="")


@contextlib.asynccontextmanager
async def serve_page(path: Path) -> AsyncIterator[Page]:
    """Serve one file at / on a free port of 127.0.0.1."""
    page = Page()
    text = await asyncio.to_thread(path.read_text)

    async def show(_: web.Request) -> web.Response:
        return web.Response(text=text, content_type="text/html")

    application = web.Application()
    application.router.add_get("/", show)
    application.router.add_post("/told", page.take)
    runner = web.AppRunner(application, shutdown_timeout=1.0, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        page.address = f"{host}:{port}"
        yield page
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def chromium(url: str, profile: Path) -> AsyncIterator[None]:
    """Show a page in a browser with a new profile, until the block ends."""
    program = shutil.which("chromium")
    assert program is not None, "needs Debian's package chromium"
    process = await asyncio.create_subprocess_exec(
        program,
        *FLAGS,
        f"--user-data-dir={profile}",
        # Without it a headless browser ends after the page has loaded.
        "--remote-debugging-port=0",
        url,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        # A group of its own, so that its helpers end with it.
        start_new_session=True,
    )
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        async with asyncio.timeout(END_DEADLINE_S):
            await process.wait()
