"""Reads a compose file as Docker Compose does, as far as ours goes: what it does not know is a fault."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import yaml

_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?:(:[-?])([^}]*))?\}|(.?))")
_DURATION = re.compile(r"(\d+)s")

Condition = Literal["service_started", "service_healthy", "service_completed_successfully"]


class ComposeError(Exception):
    """The file would not be accepted, or holds what this reader does not know."""


class Healthcheck(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    test: list[str] = []
    interval: str = "30s"
    timeout: str = "30s"
    retries: int = 3
    start_period: str = "0s"
    start_interval: str = "5s"
    disable: bool = False

    @property
    def command(self) -> list[str]:
        """What runs in the container."""
        match self.test:
            case ["CMD", *words]:
                return words
            case ["CMD-SHELL", line]:
                return ["sh", "-c", line]
        raise ComposeError(f"unknown form of a healthcheck: {self.test}")


class Dependency(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    condition: Condition
    required: bool = True


class Ulimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    nofile: int | None = None


class Service(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    image: str
    command: str | list[str]
    environment: dict[str, str] = {}
    # Container ports that other services talk to.
    expose: list[str] = []
    # [ADDRESS:]PUBLISHED:CONTAINER
    ports: list[str] = []
    # SOURCE:TARGET[:ro]; a source with a slash is a path beside the file, else a volume.
    volumes: list[str] = []
    depends_on: dict[str, Dependency] = {}
    healthcheck: Healthcheck | None = None
    profiles: list[str] = []
    restart: Literal["no", "always", "on-failure", "unless-stopped"] = "no"
    stop_grace_period: str = "10s"
    read_only: bool = False
    cap_drop: list[str] = []
    security_opt: list[str] = []
    ulimits: Ulimits = Ulimits()

    @property
    def words(self) -> list[str]:
        """The command, split as a shell would."""
        return shlex.split(self.command) if isinstance(self.command, str) else self.command

    @property
    def published(self) -> dict[int, int]:
        """Port on the machine → port in the container."""
        pairs = (one.rsplit(":", 2)[-2:] for one in self.ports)
        return {int(outside): int(inside) for outside, inside in pairs}

    @property
    def container_ports(self) -> set[int]:
        """Every port of it that somebody may connect to."""
        return {int(port) for port in self.expose} | set(self.published.values())


class Compose(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    services: dict[str, Service]
    volumes: dict[str, None] = {}

    def of_profile(self, profile: str) -> dict[str, Service]:
        """The services that are started with a profile."""
        return {
            name: service
            for name, service in self.services.items()
            if not service.profiles or profile in service.profiles
        }


def read_compose(text: str, environ: Mapping[str, str]) -> Compose:
    """Read a file.

    Args:
        environ: what .env holds.

    Raises:
        ComposeError: it would not be accepted, or holds something unknown.
    """
    _refuse_duplicates(yaml.compose(text, Loader=yaml.SafeLoader))
    document: dict[str, Any] = yaml.safe_load(text)
    known = {key: value for key, value in document.items() if not key.startswith("x-")}
    try:
        compose = msgspec.convert(_interpolate(known, environ), Compose)
    except msgspec.ValidationError as error:
        raise ComposeError(str(error)) from error
    _refuse_dangling(compose)
    return compose


def seconds(duration: str) -> float:
    """A duration in seconds.

    Raises:
        ComposeError: not in the one form that we use.
    """
    found = _DURATION.fullmatch(duration)
    if found is None:
        raise ComposeError(f"unknown form of a duration: {duration}")
    return float(found[1])


def _refuse_duplicates(node: Any) -> None:
    """YAML readers for Python take the last one of two equal keys; Docker Compose does not."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise ComposeError(f"{key} stands twice in line {node.start_mark.line + 1} and below")
        for _, value in node.value:
            _refuse_duplicates(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_duplicates(value)


def _interpolate(value: Any, environ: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _interpolate(one, environ) for key, one in value.items()}
    if isinstance(value, list):
        return [_interpolate(one, environ) for one in value]
    if isinstance(value, str):
        return _VARIABLE.sub(lambda found: _variable(found, environ), value)
    return value


def _variable(found: re.Match[str], environ: Mapping[str, str]) -> str:
    dollar, name, operator, word, other = found.groups()
    if dollar:
        return "$"
    if other is not None:
        raise ComposeError(f"a lone $ (or an unknown form of a variable) before {other!r}")
    if value := environ.get(name):
        return value
    if operator == ":-":
        return str(word)
    # Docker Compose takes an unset variable without a word on it for empty, with a warning.
    raise ComposeError(f"{name} is not set: {word}")


def _refuse_dangling(compose: Compose) -> None:
    for name, service in compose.services.items():
        for other in service.depends_on:
            if other not in compose.services:
                raise ComposeError(f"{name} depends on {other}, which is not there")
        for volume in service.volumes:
            source = volume.split(":")[0]
            if "/" not in source and source not in compose.volumes:
                raise ComposeError(f"{name} mounts {source}, which is not there")
