"""The README's page for a browser, as it stands there, next to a server of several processes."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from tests.support.browser import chromium, serve_page
from tests.support.system import running
from tests.support.workers import WorkerCluster, serve_workers, worker_pids

README = Path(__file__).parents[2] / "README.md"
KEY = "alice"

# What the example leaves to its reader.
SHOWING = """
function tell(step, value) { fetch("/told", {method: "POST", body: JSON.stringify({step, value})}); }
function show(message) { tell("shown", message); }
function reloadEverything() { tell("error", "a gap"); }
"""


def page_for(public: str) -> str:
    """The example, with the address of a public API."""
    found = re.search(r"^```js\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    assert f"k={KEY}&" in found[1]
    script = found[1].replace("HOST:8090", public)
    return f"<!DOCTYPE html><meta charset=utf-8><script>{SHOWING}{script}</script>"


async def test_page_of_the_readme_finds_its_worker_and_resumes_at_another(tmp_path: Path) -> None:
    server = serve_workers(tmp_path / "server", 2, config='[web]\npublic_origins = ["*"]\n')
    with running(server):
        assert await server.push(KEY, "stored", 600) == 0
        path = tmp_path / "page.html"
        path.write_text(page_for("{}:{}".format(*server.addresses["public"])))
        async with serve_page(path) as page, chromium(f"http://{page.address}/", tmp_path / "profile"):
            assert await page.told("shown") == "stored"
            assert await server.push(KEY, "live", 600) == 0
            assert await page.told("shown") == "live"

            owner = await WorkerCluster(server).owner(KEY)
            assert owner is not None
            os.kill(worker_pids(server)[owner], signal.SIGKILL)
            assert await server.push(KEY, "resumed", 600) == 0
            assert await page.told("shown") == "resumed"
