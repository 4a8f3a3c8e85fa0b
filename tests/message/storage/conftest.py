"""The real servers of the stores, each started once."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import MariaServer, RedisServer


@pytest.fixture(scope="session")
def timed_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis whose clock tests may set; what is in it belongs to the test that runs."""
    with RedisServer(tmp_path_factory.mktemp("timed-redis"), has_own_time=True) as server:
        yield server


@pytest.fixture(scope="session")
def plain_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis for everything else. Tests that change its settings put them back."""
    with RedisServer(tmp_path_factory.mktemp("plain-redis")) as server:
        yield server


@pytest.fixture(scope="session")
def timed_mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaServer]:
    """A MariaDB whose clock tests may set; what is in it belongs to the test that runs."""
    with MariaServer(tmp_path_factory.mktemp("timed-mariadb"), has_own_time=True) as server:
        yield server


@pytest.fixture(scope="session")
def plain_mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaServer]:
    """A MariaDB for everything else. Tests that change its settings put them back."""
    with MariaServer(tmp_path_factory.mktemp("plain-mariadb")) as server:
        yield server


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of 127.0.0.1, with its key beside it; nobody but itself vouches for it."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "1", "-subj", "/CN=store"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    return tmp_path / "cert.pem"
