"""The time that a silent step has taken so far, on standard error.

This file uses the standard library alone and the syntax of Python 3.9: see `preflight`.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

TERMINAL_SECONDS, LOG_SECONDS = 1.0, 15.0
"""Between two reports: in a terminal, where each replaces the one before, and elsewhere."""


@contextmanager
def elapsed(
    what: str, *, terminal_seconds: float = TERMINAL_SECONDS, log_seconds: float = LOG_SECONDS
) -> Iterator[None]:
    """Say what is done, and every now and then for how long, until the block ends."""
    terminal = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    started = time.monotonic()
    ended = threading.Event()

    def report() -> None:
        while not ended.wait(terminal_seconds if terminal else log_seconds):
            text = f"{what}, {time.monotonic() - started:.0f} s"
            # The cursor stays at the start of the line, which any other message replaces.
            print(f"\r{text}\x1b[K\r" if terminal else text, file=sys.stderr, flush=True, end=end)

    end = "" if terminal else "\n"
    print(f"{what}\r" if terminal else what, file=sys.stderr, flush=True, end=end)
    reporter = threading.Thread(target=report, daemon=True)
    reporter.start()
    try:
        yield
    finally:
        ended.set()
        reporter.join()
        if terminal:
            print(f"\r{what}, {time.monotonic() - started:.0f} s\x1b[K", file=sys.stderr)
