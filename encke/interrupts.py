"""What Ctrl-C does while a command is starting. Imports nothing that takes time."""

from __future__ import annotations

import os
import signal

# As in typing.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

INTERRUPTED = 130

_IMPORTING = "<frozen importlib._bootstrap>"


def catch_interrupts() -> None:
    """Let an interrupt during an import end the process at once: there is nothing to clean up yet.

    As an exception it would pass through code that is not ready for it, which prints
    it as ignored and goes on, so that the command does not end.
    """
    # Otherwise a shell has it ignored, for what runs in the background, or our caller takes it.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        _set(_interrupt)


def release_interrupts() -> None:
    """The opposite; before asyncio.run(), which takes interrupts itself where nobody else does."""
    if signal.getsignal(signal.SIGINT) is _interrupt:
        _set(signal.default_int_handler)


def _set(handler: signal._HANDLER) -> None:
    try:
        signal.signal(signal.SIGINT, handler)
    except ValueError:
        # Not the main thread, which alone is interrupted.
        return


def _interrupt(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTING:
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt
