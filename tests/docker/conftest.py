"""The image, as far as it can be made without a container engine: its build's files, installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.containers import Image
from tests.support.dockerfile import copy_context, read_dockerfile

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """What `docker build` makes, without its dependencies: those are the ones of these tests."""
    build, final = read_dockerfile(DOCKER / "Dockerfile")
    context = tmp_path_factory.mktemp("context")
    packages = tmp_path_factory.mktemp("image")
    copy_context(ROOT, DOCKER / "Dockerfile.dockerignore", build.copied, context)
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-compile"]
    subprocess.run(
        [sys.executable, "-m", "pip", *install, "--target", str(packages), str(context)],
        check=True,
        capture_output=True,
        timeout=120,
    )
    return Image(final, packages / "bin" / "encke", packages)
