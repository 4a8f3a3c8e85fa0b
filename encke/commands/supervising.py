"""What the commands share that start processes of their own: the flag, and the run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from encke.commands.arguments import whole_number
from encke.commands.running import run_process, say
from encke.listeners import status_listener, switched_on

if TYPE_CHECKING:
    from encke.config import EnckeConfig
    from encke.invocation import Invocation
    from encke.workerplan import WorkerPlan

MAX_WORKERS = 256


def add_workers_flag(parser: argparse.ArgumentParser, words: str) -> None:
    """How many processes."""
    count = whole_number(1, MAX_WORKERS, f"is not a whole number from 1 to {MAX_WORKERS}")
    parser.add_argument("--workers", metavar="N", type=count, help=words)


def run_workers(
    config: EnckeConfig, command: str, plans: Sequence[WorkerPlan], serving: Invocation | None = None
) -> int:
    """Run these processes and their supervisor until a signal; 0 after an orderly drain.

    Args:
        command: whose status port the supervisor has.
        serving: see Supervisor.

    Raises:
        ConfigError: an address cannot be bound, or the data directory cannot be used.
    """
    from encke.datadir import directory_faults
    from encke.supervisor import Supervisor
    from encke.workerplan import check_binds

    status = status_listener(command)
    own = [listener.bind(config) for listener in switched_on([status], config)]
    binds = [*own, *(bind for plan in plans for bind in plan.binds)]
    check_binds(binds, directory_faults(config, command))
    return run_process(
        config,
        lambda stats: Supervisor(config, plans, status.address(config), stats, say, serving=serving),
        command=command,
    )
