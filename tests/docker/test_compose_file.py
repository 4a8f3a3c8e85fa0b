"""compose.yaml and cluster.toml as text: what is refused, and what has to fit together."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import fields
from pathlib import Path

import pytest

from cluster.service import DRAIN_GRACE_S, STOP_TIMEOUT_S
from cluster.settings import settings_of
from encke.config import EnckeConfig, load_config
from tests.docker.conftest import DOCKER, ROOT
from tests.docker.test_compose import ENVIRON, NODES, TEXT, compose_of
from tests.support.compose import ComposeError, read_compose, seconds

REQUIRED = sorted({"COMPOSE_PROFILES", *ENVIRON})
DOCUMENTS = [
    *(DOCKER / name for name in ("compose.yaml", "cluster.toml", "encke@.service", "Dockerfile")),
    *(ROOT / "docs").glob("*.md"),
    ROOT / "README.md",
]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    restart: unless-stopped\n", "    restart: unless-stopped\n    no_such_key: 1\n"),
        ("  retries: 3\n", "  retries: 3\n  no_such_key: 1\n"),
        ("volumes:\n  zookeeper-data:\n", "no_such_key: 1\nvolumes:\n  zookeeper-data:\n"),
        ("volumes:\n  zookeeper-data:\n", "volumes:\n"),
        ("service_healthy, required", "service_helthy, required"),
        ("      redis: {condition", "      rediz: {condition"),
        ("    redis: {condition", "    zookeeper: {condition"),
        ("$$MARIADB_PASSWORD", "$MARIADB_PASSWORD"),
        ("nofile: 200000", "nofile: many"),
    ],
    ids=[
        *("key of a service", "key of a healthcheck", "key of the file", "missing volume"),
        *("unknown condition", "unknown service", "key that stands twice", "lone dollar", "wrong type"),
    ],
)
def test_reader_refuses_what_docker_compose_would(old: str, new: str) -> None:
    changed = TEXT.replace(old, new)
    if changed == TEXT:
        changed = TEXT.replace(old.lstrip(), new.lstrip())
    assert changed != TEXT
    with pytest.raises(ComposeError):
        read_compose(changed, {**ENVIRON, "COMPOSE_PROFILES": "redis"})


@pytest.mark.parametrize("name", REQUIRED)
def test_nothing_that_is_secret_has_a_default(name: str) -> None:
    environ = {**ENVIRON, "COMPOSE_PROFILES": "redis"}
    del environ[name]
    with pytest.raises(ComposeError, match=name):
        read_compose(TEXT, environ)


def test_head_of_the_file_makes_every_variable_that_is_required() -> None:
    head = TEXT[: TEXT.index("name: encke")]
    assert [name for name in REQUIRED if name not in head] == []


@pytest.mark.parametrize(("profile", "store"), [("redis", {"redis"}), ("mysql", {"mariadb", "schema"})])
def test_profile_starts_the_nodes_and_its_own_store(profile: str, store: set[str]) -> None:
    assert set(compose_of(profile).of_profile(profile)) == {*NODES, "zookeeper", *store}


def test_node_is_given_longer_to_stop_than_it_takes() -> None:
    process = load_config(str(DOCKER / "cluster.toml"), used=()).process
    longest = process.drain_delay_s + process.drain_s + DRAIN_GRACE_S + STOP_TIMEOUT_S
    for name in NODES:
        assert seconds(compose_of("redis").services[name].stop_grace_period) > longest


def test_no_port_is_published_twice_and_the_admin_api_only_to_this_machine() -> None:
    ports = [port for service in compose_of("redis").services.values() for port in service.ports]
    outside = Counter(port.rsplit(":", 2)[-2] for port in ports)
    assert [port for port, count in outside.items() if count > 1] == []
    admin = [port for port in ports if port.endswith(":8091")]
    assert len(admin) == 2
    assert all(port.startswith("127.0.0.1:") for port in admin)


def test_comet_nodes_advertise_the_ports_that_are_published() -> None:
    compose = read_compose(TEXT, {**ENVIRON, "COMPOSE_PROFILES": "redis", "ENCKE_HOST": "push.example.org"})
    for name in ("comet-1", "comet-2"):
        service = compose.services[name]
        for transport, inside in (("WS", 6968), ("TCP", 6969)):
            host, _, port = service.environment[f"ENCKE_COMET__{transport}_ADVERTISE"].rpartition(":")
            assert host == "push.example.org"
            assert service.published[int(port)] == inside


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_setting_that_is_named_as_a_variable_exists(document: Path) -> None:
    known = {
        f"ENCKE_{table.name}__{setting.key}".upper()
        for table in fields(EnckeConfig)
        for setting in settings_of(table.name, _class_of(table.name))
    }
    named = set(re.findall(r"\bENCKE_[A-Z]+__[A-Z_]+\b", document.read_text()))
    assert named <= known


def _class_of(table: str) -> type:
    return type(getattr(load_config(None), table))
