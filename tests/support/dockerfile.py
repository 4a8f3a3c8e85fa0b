"""Reads a Dockerfile and its list of ignored files, as far as ours goes."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import dataclass, field
from pathlib import Path

_HEALTHCHECK_FLAG = re.compile(r"--(interval|timeout|start-period|start-interval|retries)=\S+\s+")
KNOWN = {
    *("ARG", "FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER"),
    *("EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"),
}


@dataclass
class Stage:
    """What stands behind one FROM."""

    base: str
    # Instruction and its arguments, in order.
    lines: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        """Arguments of every line of an instruction."""
        return [rest for word, rest in self.lines if word == instruction]

    def last(self, instruction: str) -> str:
        """Arguments of the line that counts.

        Raises:
            IndexError: there is none.
        """
        return self.all(instruction)[-1]

    @property
    def environment(self) -> dict[str, str]:
        """Of the containers."""
        pairs = [word.partition("=") for line in self.all("ENV") for word in shlex.split(line)]
        return {name: value for name, _, value in pairs}

    @property
    def entrypoint(self) -> list[str]:
        """In the exec form; another one would keep signals from the program."""
        return list(json.loads(self.last("ENTRYPOINT")))

    @property
    def command(self) -> list[str]:
        """What runs when nobody says otherwise, behind the entrypoint."""
        return list(json.loads(self.last("CMD")))

    @property
    def healthcheck(self) -> list[str]:
        """The command of it."""
        flagless = _HEALTHCHECK_FLAG.sub("", self.last("HEALTHCHECK"))
        assert flagless.startswith("CMD "), flagless
        return list(json.loads(flagless.removeprefix("CMD ")))

    @property
    def ports(self) -> list[int]:
        """What EXPOSE names."""
        return [int(port) for port in self.last("EXPOSE").split()]

    @property
    def copied(self) -> list[tuple[str, str]]:
        """(from the build context, to) of every COPY."""
        pairs: list[tuple[str, str]] = []
        for line in self.all("COPY"):
            *sources, target = line.split()
            if not sources[0].startswith("--from="):
                pairs += [(source, target) for source in sources]
        return pairs


def read_dockerfile(path: Path) -> list[Stage]:
    """The stages of a Dockerfile, with the defaults of ARG put in.

    Raises:
        AssertionError: it holds an instruction that this reader does not know.
    """
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for line in _logical_lines(path.read_text()):
        word, _, rest = line.partition(" ")
        assert word in KNOWN, f"unknown instruction: {line}"
        if word == "ARG":
            name, _, default = rest.partition("=")
            arguments[name] = default
        elif word == "FROM":
            base = rest.partition(" AS ")[0]
            stages.append(Stage(re.sub(r"\$\{(\w+)\}", lambda found: arguments[found[1]], base)))
        else:
            stages[-1].lines.append((word, rest.strip()))
    return stages


def copy_context(root: Path, ignored: Path, copied: list[tuple[str, str]], target: Path) -> None:
    """Copy what the build copies from its context, without what is ignored.

    Raises:
        AssertionError: a pattern is not one of the forms that we use, or a source is ignored or missing.
    """
    patterns = [line for line in ignored.read_text().splitlines() if line and not line.startswith("#")]
    assert patterns[0] == "*", "everything is ignored that is not named"
    named = {pattern[1:] for pattern in patterns if pattern.startswith("!")}
    anywhere = [pattern.removeprefix("**/") for pattern in patterns if pattern.startswith("**/")]
    assert len(patterns) == 1 + len(named) + len(anywhere), f"unknown pattern in {patterns}"
    for source, destination in copied:
        assert source in named, f"{source} is copied, but ignored"
        place = target / destination
        if (root / source).is_dir():
            shutil.copytree(root / source, place, ignore=shutil.ignore_patterns(*anywhere))
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / source, place)


def _logical_lines(text: str) -> list[str]:
    kept = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [line.strip() for line in "\n".join(kept).replace("\\\n", " ").splitlines()]
