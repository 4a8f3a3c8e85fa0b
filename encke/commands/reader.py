"""Notices that nobody reads standard output any more, also while there is nothing to print."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def while_somebody_reads(descriptor: int) -> Iterator[None]:
    """Cancel the body when the pipe that it writes to has lost its reader, as in `encke sub KEY | head -1`.

    A write would tell, but the next message may be hours away. Of what is no pipe nothing is asked.

    Raises:
        BrokenPipeError: the reader is gone.
    """
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        yield
        return
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    is_gone = False

    def end() -> None:
        nonlocal is_gone
        is_gone = True
        loop.remove_reader(descriptor)
        task.cancel()

    # Nothing can be read from this end: it becomes "readable" by the error only.
    loop.add_reader(descriptor, end)
    try:
        yield
    except asyncio.CancelledError:
        if not is_gone:
            raise
        task.uncancel()
        raise BrokenPipeError from None
    finally:
        loop.remove_reader(descriptor)
