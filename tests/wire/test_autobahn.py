"""The Autobahn cases of RFC 6455 against the frame codec (without 9.*: sizes, 12.* and 13.*: compression)."""

import asyncio
import json
import sys
from pathlib import Path

from tests.support.echo_server import start_echo_server

CASES = 247
# Where RFC 6455 leaves the order or the moment to the server: text that is
# wrong from its first bytes on, frames after a violation, fragments.
MAY_BE_NON_STRICT = ("3.", "4.", "5.15", "6.4.")
DEADLINE_S = 120.0


async def test_all_autobahn_cases_pass(tmp_path: Path) -> None:
    server, port = await start_echo_server()
    try:
        results = await _run_cases(port, tmp_path)
    finally:
        server.close()
        await server.wait_closed()

    assert len(results) == CASES
    assert {case: result for case, result in results.items() if not _is_good(case, result)} == {}


def _is_good(case: str, result: dict[str, object]) -> bool:
    if result["behaviorClose"] not in ("OK", "INFORMATIONAL"):
        return False
    if result["behavior"] == "NON-STRICT":
        return case.startswith(MAY_BE_NON_STRICT)
    return result["behavior"] in ("OK", "INFORMATIONAL")


async def _run_cases(port: int, reports: Path) -> dict[str, dict[str, object]]:
    arguments = ("-m", "fuzzingclient", "-x", "9.*", "-x", "12.*", "-x", "13.*", "-o", str(reports))
    kosoku = Path(sys.executable).with_name("kosoku")
    process = await asyncio.create_subprocess_exec(
        str(kosoku), *arguments, f"127.0.0.1:{port}", stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(DEADLINE_S):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    index = json.loads((reports / "index.json").read_text())
    (results,) = index.values()
    assert isinstance(results, dict)
    return results
