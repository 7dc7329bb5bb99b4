"""Settings of the C library's memory allocator."""

from __future__ import annotations

import ctypes
import logging
import sys
from typing import Final

logger = logging.getLogger(__name__)

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
"""Constants of glibc's `malloc.h`."""
MMAP_THRESHOLD_BYTES: Final = 4 << 20
"""More than a photograph takes that is scaled while it is read. Mapping such a block anew for each
image would make decoding in two threads a quarter slower."""

TRIM_THRESHOLD_BYTES: Final = 16 << 20
"""Free bytes that stay at the end of the heap.

With glibc's 128 KiB, which apply once the other threshold is set, the megabytes of each photograph
are mapped again, page by page."""


def return_memory_promptly() -> None:
    """Return every large block to the system when it is freed.

    By default glibc raises its threshold to the size of freed blocks, so each decoding thread would
    keep the memory of the largest image it ever decoded.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        set_option = ctypes.CDLL(None).mallopt
    except AttributeError:
        logger.info("the C library has no mallopt; its defaults apply")
        return
    set_option(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
    set_option(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
