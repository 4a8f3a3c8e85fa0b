"""encke/interrupts.py; what it does during an import: test_cli.py."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from encke.interrupts import catch_interrupts, release_interrupts


@pytest.fixture(autouse=True)
def _as_python_begins() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_interrupt_outside_of_imports_is_raised_as_usual() -> None:
    catch_interrupts()
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    release_interrupts()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_interrupt_that_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    catch_interrupts()
    release_interrupts()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_only_the_main_thread_is_interrupted() -> None:
    thread = threading.Thread(target=catch_interrupts)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
