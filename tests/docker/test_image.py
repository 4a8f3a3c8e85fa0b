"""The image: what is in it, who it runs as, what it runs by itself."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from encke.version import encke_version
from tests.docker.conftest import DOCKER, ROOT
from tests.support.compose import Healthcheck, Service
from tests.support.containers import Container, Image
from tests.support.dockerfile import Stage, read_dockerfile
from tests.support.servers import free_port
from tests.support.system import STOP_DEADLINE_S

FINAL = read_dockerfile(DOCKER / "Dockerfile")[-1]


def test_base_is_a_pinned_python_that_the_project_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = tuple(map(int, project["requires-python"].removeprefix(">=").split(".")))
    for stage in read_dockerfile(DOCKER / "Dockerfile"):
        found = re.fullmatch(r"python:(\d+)\.(\d+)-slim-[a-z]+", stage.base)
        assert found, stage.base
        assert (int(found[1]), int(found[2])) >= oldest


def test_dependencies_are_pinned_within_what_the_project_allows() -> None:
    lines = (DOCKER / "constraints.txt").read_text().splitlines()
    pins = {
        canonicalize_name(name): version
        for name, version in (line.split("==") for line in lines if not line.startswith("#"))
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for wanted in map(Requirement, project["dependencies"]):
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), wanted


def test_build_installs_what_is_pinned() -> None:
    build = read_dockerfile(DOCKER / "Dockerfile")[0]
    assert "--constraint constraints.txt" in " ".join(build.all("RUN"))
    assert ("docker/constraints.txt", "./") in build.copied


def test_build_has_every_file_of_every_package(image: Image) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for package in project["tool"]["setuptools"]["packages"]:
        folder = Path(*package.split("."))
        assert names(image.packages / folder) == names(ROOT / folder)


def test_program_is_the_one_that_was_built(image: Image, tmp_path: Path) -> None:
    environ = image.environ({}, tmp_path)
    where = ["python3", "-c", "import encke; print(encke.__file__)"]
    # The interpreter of the program, as its first line names it.
    where[0] = image.program.read_text().splitlines()[0].removeprefix("#!")
    assert str(image.packages) in subprocess.check_output(where, env=environ, cwd=tmp_path, text=True)
    version = subprocess.check_output(image.command(["encke", "--version"]), env=environ, text=True)
    assert version == f"encke {encke_version()}\n"


def test_containers_run_as_somebody_without_rights() -> None:
    user, _, group = FINAL.last("USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0
    made = " ".join(FINAL.all("RUN"))
    assert f"--uid {user} " in made
    assert f"--gid {group} " in made


def test_last_stage_installs_nothing() -> None:
    assert not re.search(r"\b(apt|apt-get|pip|gcc)\b", " ".join(FINAL.all("RUN")))
    assert [source for source, _ in FINAL.copied] == []


def test_image_runs_serve_is_found_healthy_and_stops(image: Image, tmp_path: Path) -> None:
    ports = dict.fromkeys(FINAL.ports, 0)
    assert set(ports) == {6968, 6969, 8090}
    # Those that a container has to itself.
    binds = {
        name: f"127.0.0.1:{free_port()}"
        for name in (
            *("ENCKE_COMET__WS_BIND", "ENCKE_COMET__TCP_BIND", "ENCKE_WEB__PUBLIC_BIND"),
            *("ENCKE_WEB__ADMIN_BIND", "ENCKE_SERVE__STATUS_BIND"),
        )
    }
    container = Container(
        "serve", service_of(FINAL), image.command(FINAL.entrypoint + FINAL.command),
        image.environ(binds, tmp_path), tmp_path / "work",
    )  # fmt: skip
    container.start()
    try:
        container.wait_healthy(image.command(FINAL.healthcheck))
        container.terminate()
        assert container.wait_end(STOP_DEADLINE_S) == 0
    finally:
        container.kill()
    # Below the working directory, where the volume is.
    assert (container.work / "encke-data" / "store.db").exists()


def service_of(stage: Stage) -> Service:
    """Of a container without a compose file."""
    health = Healthcheck(test=["CMD", *stage.healthcheck], start_period="60s", timeout="5s")
    return Service(image="encke", command=stage.command, healthcheck=health)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}
