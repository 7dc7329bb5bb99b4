"""How the C library gives memory back to the system."""

from __future__ import annotations

import ctypes
import logging
import sys
from typing import Final

logger = logging.getLogger(__name__)

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
"""Of glibc's `malloc.h`."""
MMAP_THRESHOLD_BYTES: Final = 4 << 20
"""Above what a photograph takes that was scaled down while it was read: to get that much anew from
the system for each one makes decoding in two threads a quarter dearer."""

TRIM_THRESHOLD_BYTES: Final = 16 << 20
"""So much at the end of the heap stays for what comes next. With the 128 KiB that glibc keeps once
the other threshold was set, each photograph has its megabytes mapped anew, page by page."""


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
    set_option(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
