"""A bound on the memory that pictures take while they are decoded."""

from __future__ import annotations

import ctypes
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

logger = logging.getLogger(__name__)

M_MMAP_THRESHOLD: Final = -3
"""Of glibc's `malloc.h`."""
MMAP_THRESHOLD_BYTES: Final = 4 << 20
"""Above what a photograph takes that was scaled down while it was read: to get that much anew from
the system for each one makes decoding in two threads a quarter dearer."""


def return_memory_promptly() -> None:
    """Have every block of some megabytes or more go back to the system when it is freed.

    glibc raises its threshold to the size of what was freed before, so that after one big picture
    each decoding thread would keep the memory of the biggest it ever had.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        set_option = ctypes.CDLL(None).mallopt
    except AttributeError:
        logger.info("this C library has no mallopt; its own ways of returning memory apply")
        return
    set_option(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)


class MemoryBudget:
    """Lets threads in as long as what they need together fits.

    A need above the whole budget is let in alone, so nothing waits for ever.
    """

    def __init__(self, limit: int) -> None:
        """`limit` in bytes."""
        self._limit = limit
        self._used = 0
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, needed: int) -> Iterator[None]:
        """Wait until `needed` bytes fit; they are given back at the end of the block."""
        share = min(needed, self._limit)
        with self._changed:
            self._changed.wait_for(lambda: self._used + share <= self._limit)
            self._used += share
        try:
            yield
        finally:
            with self._changed:
                self._used -= share
                self._changed.notify_all()
