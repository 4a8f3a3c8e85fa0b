"""Runs the services of a compose file as processes of this machine, on loopback.

What a container has of its own is mapped: its name and addresses to 127.0.0.1,
each of its ports to a free one, its files to copies and directories below a
test's own. Commands, environment, configuration files and healthchecks are
otherwise those that the file names. For the images of others, Debian's packages
of the same programs run, started as the entrypoints of those images would.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

from tests.support.compose import Compose, Service, seconds
from tests.support.dockerfile import Stage
from tests.support.servers import free_port
from tests.support.zookeeper import JAR

# A container port is mapped wherever its number stands, so it must not be one of those it is mapped to.
FIRST_EPHEMERAL_PORT = 32_768
# The machine is slow, and runs everything at once.
PATIENCE = 3.0


@dataclass(frozen=True)
class Image:
    """Our own: what its Dockerfile says of containers, and where its program is on this machine."""

    stage: Stage
    program: Path
    # Where `import encke` finds what was built.
    packages: Path

    def environ(self, variables: Mapping[str, str], home: Path) -> dict[str, str]:
        """The environment of a container, and none of this process's."""
        ours = {name: value for name, value in self.stage.environment.items() if name != "PATH"}
        # Deterministic output; what finds the programs of this machine instead of the image's.
        local = {"PATH": os.environ["PATH"], "PYTHONPATH": str(self.packages), "HOME": str(home)}
        return {**local, **ours, **variables}

    def command(self, words: list[str]) -> list[str]:
        """A command line with the program of this machine."""
        assert words[0] == "encke", words
        return [str(self.program), *words[1:]]


class Container:
    """One service as a process."""

    def __init__(
        self, name: str, service: Service, command: list[str], environ: dict[str, str], work: Path
    ) -> None:
        self.name = name
        self.service = service
        # The working directory; its logs are beside it.
        self.work = work
        self.environ = environ
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        work.mkdir(parents=True, exist_ok=True)

    @property
    def output(self) -> str:
        """Standard output of all its runs."""
        return self._path("out").read_text(errors="replace")

    @property
    def errors(self) -> str:
        """Standard error of all its runs."""
        return self._path("err").read_text(errors="replace")

    def start(self) -> None:
        """Run it."""
        with self._path("out").open("ab") as out, self._path("err").open("ab") as err:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.work,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                # Ctrl-C is for the tests; they end it.
                start_new_session=True,
            )
        if self.service.ulimits.nofile is not None:
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            limit = min(self.service.ulimits.nofile, most)
            resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, (limit, limit))

    def run(self, command: list[str], within: float) -> subprocess.CompletedProcess[bytes]:
        """Run another command in it, as `docker exec`."""
        return subprocess.run(
            command, cwd=self.work, env=self.environ, capture_output=True, timeout=within, check=False
        )

    def wait_healthy(self, check: list[str]) -> None:
        """Until its healthcheck is content.

        Raises:
            AssertionError: it ended, or was not within the time in which failures do not count.
        """
        health = self.service.healthcheck
        assert health is not None
        end = time.monotonic() + seconds(health.start_period) * PATIENCE
        while (done := self.run(check, seconds(health.timeout) * PATIENCE)).returncode:
            assert self._running().poll() is None, f"{self.name} has ended:\n{self.story}"
            assert time.monotonic() < end, f"{self.name} is not healthy: {done.stderr!r}\n{self.story}"
            time.sleep(0.05)

    def wait_end(self, within: float) -> int:
        """Wait until it ends; return the exit code (128 + signal, as Docker tells it).

        Raises:
            AssertionError: it does not.
        """
        try:
            code = self._running().wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} does not end:\n{self.story}") from None
        self._process = None
        return 128 - code if code < 0 else code

    def terminate(self) -> None:
        """Ask it to end, as `docker stop` begins."""
        self._running().send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def story(self) -> str:
        """The end of what it said."""
        return f"{self.output[-2000:]}\n{self.errors[-4000:]}"

    def _path(self, kind: str) -> Path:
        return self.work.with_suffix(f".{kind}")

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self.name} does not run"
        return self._process


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
            command = _entrypoint(service.image, words, variables, own, self._paths[name])
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
            assert port < FIRST_EPHEMERAL_PORT
            while (free := free_port()) in taken or free < FIRST_EPHEMERAL_PORT:
                pass
            taken.add(free)
            inside[port] = free
        published = {outside: inside[port] for outside, port in service.published.items()}
        for port in published.keys() & inside.keys():
            assert published[port] == inside[port], f"{name}: {port} means two things"
        ports[name] = {**inside, **published}
    return ports


def _entrypoint(
    image: str, words: list[str], environ: Mapping[str, str], own: Path, paths: Mapping[str, Path]
) -> list[str]:
    """The command of an image of others with a program of this machine, on loopback only."""
    match image.split(":")[0], words:
        case "zookeeper", ["zkServer.sh", "start-foreground"]:
            return _zookeeper(environ, paths["/conf/zoo.cfg"])
        case "redis", ["redis-server", *options]:
            return ["redis-server", *options, "--bind", "127.0.0.1"]
        case "mariadb", ["mariadbd", *options]:
            return _mariadb(options, environ, own, paths["/var/lib/mysql"])
    raise AssertionError(f"not known how to run {words} of {image}")


def _zookeeper(environ: Mapping[str, str], config: Path) -> list[str]:
    config.write_text(config.read_text() + "\nclientPortAddress=127.0.0.1\n")
    return [
        *("java", f"-Xmx{environ['ZK_SERVER_HEAP']}m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
        *("-cp", f"{config.parent}:{JAR}", "org.apache.zookeeper.server.quorum.QuorumPeerMain", str(config)),
    ]


def _mariadb(options: list[str], environ: Mapping[str, str], own: Path, data: Path) -> list[str]:
    user = ["--user=root"] if os.geteuid() == 0 else []
    subprocess.run(
        ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--skip-test-db", *user],
        check=True,
        capture_output=True,
        timeout=120,
    )
    name, login = environ["MARIADB_DATABASE"], f"{environ['MARIADB_USER']}@'%'"
    statements = own / "init.sql"
    statements.write_text(
        f"CREATE DATABASE IF NOT EXISTS {name};\n"
        f"CREATE USER IF NOT EXISTS {login} IDENTIFIED BY '{environ['MARIADB_PASSWORD']}';\n"
        f"GRANT ALL ON {name}.* TO {login};\n"
    )
    return [
        *("mariadbd", "--no-defaults", f"--datadir={data}", f"--socket={own / 'socket'}", *user),
        *(f"--pid-file={own / 'pid'}", "--bind-address=127.0.0.1", f"--init-file={statements}", *options),
    ]
