"""Runs the services of a compose file as processes of this machine, on loopback.

What a container has of its own is mapped: its name and addresses to 127.0.0.1,
each of its ports to a free one, its files to copies and directories below a
test's own. Commands, environment, configuration files and healthchecks are
otherwise those that the file names.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

from tests.support.compose import Compose, Service, seconds
from tests.support.containers import PATIENCE, Container, Image
from tests.support.entrypoints import entrypoint

# Container ports are mapped into this range: no container has one in it, so a number stands for one
# thing; and it is below those that connections take, which come and go while a cluster starts.
PORTS = range(20_000, 32_768)


class Project:
    """The services of one profile. Nothing runs before up()."""

    def __init__(self, compose: Compose, profile: str, directory: Path, beside: Path, image: Image) -> None:
        """Map everything.

        Args:
            directory: for what containers have of their own.
            beside: where the compose file is: paths in it begin there.
        """
        self._services = compose.of_profile(profile)
        self._directory = directory
        self._beside = beside
        self._image = image
        # Of all profiles: what nobody starts is nowhere.
        self._ports = _map_ports(compose.services)
        self._paths = {name: self._mounts(name, service) for name, service in self._services.items()}
        self.containers = {name: self._container(name, service) for name, service in self._services.items()}

    def port(self, service: str, container_port: int) -> int:
        """Where a port of a container is on this machine."""
        return self._ports[service][container_port]

    def up(self) -> None:
        """Start everything, each as soon as what it depends on is as it wants it."""
        for batch in self._batches():
            for name in batch:
                self.containers[name].start()
            for name in batch:
                self._wait_done_or_healthy(name)

    def down(self) -> dict[str, int]:
        """Stop everything that runs, who depends on others first; return the exit codes."""
        codes: dict[str, int] = {}
        for batch in reversed(self._batches()):
            running = [self.containers[name] for name in batch if not self._is_one_shot(name)]
            for container in running:
                container.terminate()
            for container in running:
                within = seconds(container.service.stop_grace_period)
                codes[container.name] = container.wait_end(within)
        return codes

    def exec(self, service: str, *words: str) -> subprocess.CompletedProcess[bytes]:
        """`docker compose exec SERVICE WORDS`, of our own image."""
        command = [self.mapped(service, word) for word in words]
        return self.containers[service].run(self._image.command(command), 30.0)

    def kill(self) -> None:
        """Leave no process."""
        for container in self.containers.values():
            container.kill()

    def mapped(self, service: str, text: str) -> str:
        """A text as it is read inside a container, with addresses and paths of this machine."""
        names = "|".join(map(re.escape, self._ports))
        text = re.sub(
            rf"(?<![\w.-])({names}):(\d+)\b",
            lambda found: f"127.0.0.1:{self._ports[found[1]][int(found[2])]}",
            text,
        )
        own = self._ports[service]
        text = re.sub(r"(?<![\w.])\d+(?![\w.])", lambda found: str(own.get(int(found[0]), found[0])), text)
        text = text.replace("0.0.0.0:", "127.0.0.1:")
        for inside, outside in self._paths[service].items():
            text = re.sub(rf"(?<![\w./-]){re.escape(inside)}(?![\w-])", str(outside), text)
        return text

    # -- helpers

    def _batches(self) -> list[list[str]]:
        """Names of services, those that can start at once together."""
        sorter = TopologicalSorter(
            {
                name: {other for other in service.depends_on if self._is_there(name, other)}
                for name, service in self._services.items()
            }
        )
        sorter.prepare()
        batches: list[list[str]] = []
        while sorter.is_active():
            batches.append(sorted(sorter.get_ready()))
            sorter.done(*batches[-1])
        return batches

    def _is_there(self, name: str, other: str) -> bool:
        if other in self._services:
            return True
        assert not self._services[name].depends_on[other].required, f"{name} needs {other} of another profile"
        return False

    def _is_one_shot(self, name: str) -> bool:
        conditions = {
            service.depends_on[name].condition
            for service in self._services.values()
            if name in service.depends_on
        }
        if "service_completed_successfully" in conditions:
            assert conditions == {"service_completed_successfully"}
            return True
        return False

    def _wait_done_or_healthy(self, name: str) -> None:
        container = self.containers[name]
        if self._is_one_shot(name):
            assert container.wait_end(30.0 * PATIENCE) == 0, container.story
            return
        health = container.service.healthcheck
        assert health is not None, f"{name} has no healthcheck"
        command = [self.mapped(name, word) for word in health.command]
        if command[0] == "encke":
            command = self._image.command(command)
        container.wait_healthy(command)

    def _mounts(self, name: str, service: Service) -> dict[str, Path]:
        """Path in the container → path here; files are copied when everything is mapped."""
        mounts: dict[str, Path] = {}
        for volume in service.volumes:
            source, target, *mode = volume.split(":")
            if "/" in source:
                assert mode == ["ro"], f"{name} could change {source}"
                mounts[target] = self._directory / name / Path(source).name
            else:
                mounts[target] = self._directory / "volumes" / source
        return mounts

    def _container(self, name: str, service: Service) -> Container:
        own = self._directory / name
        own.mkdir()
        for volume in service.volumes:
            source, target, *_ = volume.split(":")
            place = self._paths[name][target]
            if "/" in source:
                place.write_text(self.mapped(name, (self._beside / source).read_text()))
            else:
                place.mkdir(parents=True, exist_ok=True)
        variables = {key: self.mapped(name, value) for key, value in service.environment.items()}
        words = [self.mapped(name, word) for word in service.words]
        if service.image == "encke":
            command = self._image.command([*self._image.stage.entrypoint, *words])
            environ = self._image.environ(variables, own)
        else:
            command = entrypoint(service.image, words, variables, own, self._paths[name])
            environ = {"PATH": os.environ["PATH"], "HOME": str(own), **variables}
        return Container(name, service, command, environ, own / "work")


@contextlib.contextmanager
def started(project: Project) -> Iterator[Project]:
    """All services, healthy; whatever still runs at the end is killed."""
    try:
        project.up()
        yield project
    finally:
        project.kill()


def _map_ports(services: Mapping[str, Service]) -> dict[str, dict[int, int]]:
    """By service: number of a port of the container, or of one that it is published at → a free one."""
    taken: set[int] = set()
    ports: dict[str, dict[int, int]] = {}
    for name, service in services.items():
        inside: dict[int, int] = {}
        for port in sorted(service.container_ports):
            assert port not in PORTS
            inside[port] = _free_port(taken)
            taken.add(inside[port])
        published = {outside: inside[port] for outside, port in service.published.items()}
        for port in published.keys() & inside.keys():
            assert published[port] == inside[port], f"{name}: {port} means two things"
        ports[name] = {**inside, **published}
    return ports


def _free_port(taken: set[int]) -> int:
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            if port not in taken:
                probe.bind(("127.0.0.1", port))
                return port
