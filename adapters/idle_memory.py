"""Gives memory that was freed back to the system when a process is idle.

The C library keeps what a burst of work has freed, for the next one: some megabytes of each
process, and dozens of an indexer.
"""

from __future__ import annotations

import ctypes
import threading
import time
from typing import Final

CHECK_SECONDS: Final = 20.0
IDLE_SHARE: Final = 0.1
"""A process that uses a smaller share of one core is idle."""


def return_free_memory() -> None:
    """Give free pages of the heap back, where the C library can (glibc). Takes milliseconds."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return
    trim(0)


def return_memory_when_idle(seconds: float = CHECK_SECONDS) -> threading.Thread:
    """Start a thread that gives free memory back whenever the process was idle for `seconds`."""
    thread = threading.Thread(target=_run, args=(seconds,), name="idle-memory", daemon=True)
    thread.start()
    return thread


def _run(seconds: float) -> None:
    while True:
        before = time.process_time()
        time.sleep(seconds)
        if time.process_time() - before < IDLE_SHARE * seconds:
            return_free_memory()
