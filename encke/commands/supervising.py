"""What the commands share that start processes of their own: the flag, and the run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from encke.commands.running import run_process, say
from encke.listeners import status_listener

if TYPE_CHECKING:
    from encke.config import EnckeConfig
    from encke.workerplan import WorkerPlan


def add_workers_flag(parser: argparse.ArgumentParser, words: str) -> None:
    """How many processes."""
    parser.add_argument("--workers", metavar="N", type=_worker_count, help=words)


def run_workers(config: EnckeConfig, command: str, plans: Sequence[WorkerPlan], program: str = "") -> int:
    """Run these processes and their supervisor until a signal; 0 after an orderly drain.

    Args:
        command: whose status port the supervisor has.
        program: see Supervisor.

    Raises:
        ConfigError: an address cannot be bound.
    """
    from encke.supervisor import Supervisor
    from encke.workerplan import check_binds

    status = status_listener(command)
    check_binds([status.bind(config), *(bind for plan in plans for bind in plan.binds)])
    return run_process(
        config, lambda stats: Supervisor(config, plans, status.address(config), stats, say, program=program)
    )


def _worker_count(text: str) -> int:
    from encke.workerplan import MAX_WORKERS

    if not (text.isascii() and text.isdigit() and 1 <= int(text[:20]) <= MAX_WORKERS):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {MAX_WORKERS}, got {text!r}")
    return int(text)
