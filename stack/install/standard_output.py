"""Standard output that may fail, or that may not take every character.

This file uses the standard library alone and the syntax of Python 3.9: see `preflight`.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def printable(text: str) -> str:
    """The text with what is no character, or controls a terminal, escaped.

    For what comes from outside: names of files, and what servers say.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class _Recorded(io.FileIO):
    """A file that remembers why it took nothing."""

    failure: OSError | None = None

    def write(self, data):  # type: ignore[no-untyped-def]  # its type has no name in Python 3.9
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


@contextmanager
def reported() -> Iterator[None]:
    """End a program whose standard output fails with one line on standard error and status 1. A
    reader that has closed its pipe, like `head`, wants no line. What standard output cannot encode
    is escaped.

    For the outermost block of a program.
    """
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")
    if sys.stdout is None:
        # It was closed, and the next file that is opened would take its number.
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
    before = sys.stdout  # It stays referenced, since it closes its file when it is deleted.
    number = _number(before)
    if number is None:
        yield  # Not the program's own.
        return
    file = _Recorded(number, "wb", closefd=False)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(file),
        encoding=before.encoding,
        errors="backslashreplace",
        line_buffering=getattr(before, "line_buffering", False),
    )
    try:
        yield
    except (OSError, SystemExit):
        if not _failed(file):
            raise
    else:
        if not _failed(file):
            return
    sys.exit(1)


def _number(stream: object) -> int | None:
    """The file descriptor of a text stream; None if it is of another kind or in memory."""
    if not isinstance(stream, io.TextIOWrapper):
        return None
    try:
        return stream.fileno()
    except io.UnsupportedOperation:
        return None


def _failed(file: _Recorded) -> bool:
    with suppress(OSError):
        sys.stdout.flush()
    if file.failure is None:
        return False
    # What is left is not written again at the end of the program, which would fail again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
    if not isinstance(file.failure, BrokenPipeError):
        with suppress(OSError):
            print(f"error: standard output: {file.failure.strerror}", file=sys.stderr)
    return True
