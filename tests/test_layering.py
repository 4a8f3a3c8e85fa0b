"""Which package may import which, and which files stay pure."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Nodes meet only in cluster/contracts.
MAY_IMPORT = {
    "cluster": {"cluster"},
    "comet": {"cluster", "comet"},
    "message": {"cluster", "message"},
    "web": {"cluster", "web"},
    "encke": {"cluster", "comet", "message", "web", "encke"},
}
OURS = {*MAY_IMPORT, "tests", "bench"}

# Values, rules and codecs: they are told the time, handed the bytes or the database's
# connection, and can be tested without a loop.
PURE = (
    "cluster/addresses.py",
    "cluster/canonical.py",
    "cluster/episode.py",
    "cluster/errors.py",
    "cluster/exposition.py",
    "cluster/failurelimiter.py",
    "cluster/mids.py",
    "cluster/model.py",
    "cluster/ring.py",
    "cluster/membership.py",
    "cluster/settings.py",
    "cluster/stats.py",
    "cluster/tokens.py",
    "cluster/registry/base.py",
    "cluster/registry/config.py",
    "cluster/registry/znodes.py",
    "cluster/rpc/balancer.py",
    "cluster/rpc/config.py",
    "cluster/rpc/faults.py",
    "cluster/rpc/frames.py",
    "cluster/rpc/handshake.py",
    "cluster/rpc/metrics.py",
    "cluster/storeclocks.py",
    "cluster/storering.py",
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "comet/codec").glob("*.py"))),
    "comet/config.py",
    "comet/metrics.py",
    "comet/ownership/interval.py",
    "comet/ownership/ownership.py",
    "comet/sockets/timers.py",
    "comet/subscribers/channel.py",
    "comet/subscribers/connection.py",
    "comet/subscribers/hub.py",
    "comet/subscribers/outgoing.py",
    "message/config.py",
    "message/storage/checks.py",
    "message/storage/counters.py",
    "message/storage/embedded/changes.py",
    "message/storage/embedded/config.py",
    "message/storage/embedded/keys.py",
    "message/storage/embedded/rows.py",
    "message/storage/embedded/schema.py",
    "message/storage/limits.py",
    "message/storage/mysql/config.py",
    "message/storage/redis/config.py",
    "message/storage/redis/lua.py",
    "message/storage/redis/members.py",
    "message/storage/redis/replies.py",
    "message/storage/rules.py",
    "message/storage/servers.py",
    "message/storage/trimming.py",
    "message/storage/waiting.py",
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "web/codec").glob("*.py"))),
    "web/config.py",
    "web/metrics.py",
    "web/pushing/merge.py",
    "web/serving/access.py",
    "web/serving/limits.py",
)
IMPURE_MODULES = {"asyncio", "logging", "os", "random", "socket", "subprocess", "threading", "time", "uvloop"}

# What the packages of a node may import of each other, besides what lies beside them.
BESIDE = {"config", "metrics"}
PACKAGES_MAY_IMPORT: dict[str, dict[str, set[str]]] = {
    # Sockets tell everything else of bytes and times; a push knows no socket.
    "comet": {
        "codec": set(),
        "subscribers": {"codec"},
        "sockets": {"codec", "subscribers"},
        "ownership": set(),
        "pushing": {"codec", "subscribers", "ownership"},
        "handover": {"codec", "subscribers", "ownership", "pushing"},
    },
    # A push knows no request. The short way of pushes can be left out.
    "web": {
        "codec": set(),
        "serving": {"codec"},
        "pushing": set(),
        "api": {"codec", "serving", "pushing"},
        "quick": {"codec", "serving", "pushing"},
    },
}
STORES = {"embedded", "mysql", "redis"}


def imports(path: Path, *, with_types: bool = True) -> Iterator[str]:
    """Dotted names of what a file imports, also inside functions.

    Args:
        with_types: also what is imported for type checkers only.
    """
    nodes: list[ast.AST] = [ast.parse(path.read_text(), str(path))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # "from cluster import errors" names a module, "from cluster.errors import X" does not.
            if node.module in OURS:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""
        elif with_types or not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            nodes += ast.iter_child_nodes(node)


def module_name(path: Path) -> str:
    """The dotted name of a file."""
    return str(path.relative_to(ROOT)).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_package_imports_only_what_its_layer_may(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imports(path)
        if name.split(".")[0] in OURS - MAY_IMPORT[package]
    ]
    assert wrong == []


@pytest.mark.parametrize("file", PURE)
def test_pure_file_imports_nothing_that_waits_or_tells_the_time(file: str) -> None:
    found = set(imports(ROOT / file, with_types=False))
    assert {name for name in found if name.split(".")[0] in IMPURE_MODULES} == set()
    # Contracts name asyncio.Future in their signatures, and do nothing with it.
    pure = {module_name(ROOT / one) for one in PURE} | {
        "cluster.contracts.comet",
        "cluster.contracts.message",
    }
    ours = {name for name in found if name.split(".")[0] in OURS}
    assert ours - pure == set(), "a pure file imports only pure files"


@pytest.mark.parametrize(
    ("node", "package"),
    [(node, package) for node, packages in PACKAGES_MAY_IMPORT.items() for package in packages],
)
def test_package_of_a_node_imports_only_those_below_it(node: str, package: str) -> None:
    files = list((ROOT / node / package).glob("*.py"))
    assert files
    allowed = PACKAGES_MAY_IMPORT[node][package] | BESIDE | {package}
    found = {name.split(".")[1] for path in files for name in imports(path) if name.startswith(f"{node}.")}
    assert found - allowed == set()


@pytest.mark.parametrize("node", PACKAGES_MAY_IMPORT)
def test_every_package_of_a_node_has_its_place(node: str) -> None:
    there = {path.parent.name for path in (ROOT / node).glob("*/__init__.py")}
    assert there == set(PACKAGES_MAY_IMPORT[node])


def test_stores_know_nothing_of_the_node_around_them() -> None:
    found = {name for path in (ROOT / "message/storage").rglob("*.py") for name in imports(path)}
    assert {name for name in found if name.startswith("message.") and ".storage" not in name} == set()


@pytest.mark.parametrize("kind", STORES)
def test_stores_know_nothing_of_each_other(kind: str) -> None:
    files = list((ROOT / "message/storage" / kind).glob("*.py"))
    assert files
    others = tuple(f"message.storage.{other}." for other in STORES - {kind})
    assert [name for path in files for name in imports(path) if name.startswith(others)] == []


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_inside_a_package_go_one_way(package: str) -> None:
    graph = {
        module_name(path): set(imports(path, with_types=False)) for path in (ROOT / package).rglob("*.py")
    }
    TopologicalSorter(graph).prepare()


def test_every_package_is_listed_for_installation() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    there = {
        str(path.parent.relative_to(ROOT)).replace("/", ".")
        for package in MAY_IMPORT
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert there == listed


def test_every_test_folder_is_a_package() -> None:
    # Without it `import comet` may find tests/comet.
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []
