"""`encke sub` where something before the server ends TLS: for its public address, its node, or both."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.encke.scripted import Connection, ScriptedServer, scripted
from tests.support.proxy import FaultProxy

DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 127.0.0.1, with its key beside it; nobody but itself vouches for it."""
    directory = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "1", "-subj", "/CN=encke"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        cwd=directory,
        check=True,
        capture_output=True,
    )
    return directory / "cert.pem"


@contextlib.asynccontextmanager
async def ending_tls(certificate: Path, *targets: str) -> AsyncIterator[list[str]]:
    """Addresses that speak TLS for those that do not."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, certificate.with_name("key.pem"))
    proxies = [FaultProxy(target) for target in targets]
    try:
        for proxy in proxies:
            await proxy.start(tls)
        yield [proxy.address for proxy in proxies]
    finally:
        for proxy in proxies:
            await proxy.stop()


async def say_one(connection: Connection) -> None:
    await connection.say("+h")
    await connection.say('{"mid":1000001,"msg":"by TLS"}')
    await connection.hear()


async def sub(certificate: Path, *words: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "encke.cli", "sub", "bob", "--count", "1", *words),
        env={"SSL_CERT_FILE": str(certificate)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(DEADLINE_S):
        out, err = await process.communicate()
    return process.returncode, out.decode() + err.decode()


def node_ports(server: ScriptedServer) -> list[str]:
    return [f"127.0.0.1:{server.ports[proto]}" for proto in ("1", "2")]


@pytest.mark.parametrize("is_public", [True, False])
async def test_node_behind_tls_is_connected_to_with_tls(
    certificate: Path, transport: str, is_public: bool
) -> None:
    async with scripted(say_one) as server:
        public = server.url.removeprefix("http://")
        async with ending_tls(certificate, public, *node_ports(server)) as (https, *nodes):
            server.ports = {str(i): int(node.rpartition(":")[2]) for i, node in enumerate(nodes, 1)}
            flags = ["--url", f"https://{https}"] if is_public else ["--url", server.url, "--tls"]
            code, said = await sub(certificate, *flags, "--transport", transport)
    assert (code, said.splitlines()[0]) == (0, '1000001 "by TLS"'), said


async def test_node_without_tls_can_be_connected_to_where_the_public_address_has_it(
    certificate: Path, transport: str
) -> None:
    async with (
        scripted(say_one) as server,
        ending_tls(certificate, server.url.removeprefix("http://")) as (https,),
    ):
        flags = ["--url", f"https://{https}", "--no-tls"]
        code, said = await sub(certificate, *flags, "--transport", transport)
    assert (code, said.splitlines()[0]) == (0, '1000001 "by TLS"'), said
