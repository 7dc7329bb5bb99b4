"""Decoding tasks that misbehave on request, for worker processes of tests.

A picture that begins with one of the words below meets a decoder that does that; any other is
decoded as always. Named where a test builds what decodes, so nothing of it is in the product.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import unquote, urlsplit

from adapters.embedder.spec import ModelSpec
from consumers.indexing import worker_task as decoding_task
from consumers.indexing.reading import Limits, read
from imaging import worker_tasks as decoding_tasks
from imaging.decoded_image import DecodedImage
from imaging.sandbox.worker import Phase, enter_phase
from schemas.events import ImageAdded

MODULE = __name__
AWAY = "away"
SEGFAULT, ABORT, LOOP, EAT, KILL, SLOW = b"SEGFAULT", b"ABORT", b"LOOP", b"EAT", b"KILL", b"SLOW"


def misbehave(data: bytes) -> None:
    """Misbehave as the first word of the image demands, if it is one of those above."""
    if data.startswith(SEGFAULT):
        ctypes.string_at(0)
    elif data.startswith(ABORT):
        os.abort()
    elif data.startswith(KILL):
        os.kill(os.getpid(), signal.SIGKILL)
    elif data.startswith(LOOP):
        while True:
            pass
    elif data.startswith(SLOW):
        time.sleep(float(data.split()[1]))
    elif data.startswith(EAT):
        eaten = []
        while True:
            eaten.append(bytearray(os.urandom(1 << 12) * 4096))


def decode_image(data: bytes, spec: ModelSpec, max_pixels: int, *, memory: int) -> DecodedImage:
    misbehave(data)
    return decoding_tasks.decode_image(data, spec, max_pixels, memory=memory)


def thumbnail(
    source: Path | bytes, edge: int, max_pixels: int, max_bytes: int, *, memory: int
) -> bytes:
    data = source if isinstance(source, bytes) else source.read_bytes()
    count(data)
    misbehave(data.partition(b"\nNOTE ")[2])
    return decoding_tasks.thumbnail(source, edge, max_pixels, max_bytes, memory=memory)


def media_type(source: Path | bytes, max_pixels: int, max_bytes: int, *, memory: int) -> str:
    misbehave(source if isinstance(source, bytes) else source.read_bytes())
    return decoding_tasks.media_type(source, max_pixels, max_bytes, memory=memory)


def read_and_decode(
    event: ImageAdded, data: bytes | None, spec: ModelSpec, limits: Limits, *, memory: int
) -> tuple[DecodedImage, float, float]:
    misbehave(read(event, max_bytes=limits.max_bytes))
    return decoding_task.read_and_decode(event, data, spec, limits, memory=memory)


def read_from_a_disk(
    event: ImageAdded, data: bytes | None, spec: ModelSpec, limits: Limits, *, memory: int
) -> tuple[DecodedImage, float, float]:
    """As usual, unless a file beside the image marks its disk as away."""
    with ExitStack() as stack:
        if (Path(unquote(urlsplit(event.uri).path)).parent / AWAY).exists():
            failure = OSError(errno.ENOTCONN, "Transport endpoint is not connected")
            stack.enter_context(mock.patch.object(Path, "open", side_effect=failure))
        return decoding_task.read_and_decode(event, data, spec, limits, memory=memory)


def read_bad_sectors(
    event: ImageAdded, data: bytes | None, spec: ModelSpec, limits: Limits, *, memory: int
) -> tuple[DecodedImage, float, float]:
    """As usual, but reading an image whose name begins with "bad" fails."""
    with ExitStack() as stack:
        if event.image_id.startswith("bad"):
            failure = OSError(errno.EIO, "Input/output error")
            stack.enter_context(mock.patch.object(Path, "open", side_effect=failure))
        return decoding_task.read_and_decode(event, data, spec, limits, memory=memory)


def read_slowly(
    event: ImageAdded, data: bytes | None, spec: ModelSpec, limits: Limits, *, memory: int
) -> tuple[DecodedImage, float, float]:
    """As always, but reading "slow…" takes three seconds, "never…" for ever; then decoders of
    such misbehave, too."""

    def slow(event: ImageAdded, *, max_bytes: int) -> bytes:
        time.sleep({"slow": 3.0, "neve": 600.0}.get(event.image_id[:4], 0.0))
        return read(event, max_bytes=max_bytes)

    def begin(data: bytes, *others: int) -> None:
        enter_phase(Phase.DECODING)
        misbehave(data)
        decoding_tasks.begin(data, *others)

    with (
        mock.patch.object(decoding_task, "read", slow),
        mock.patch.object(decoding_task, "begin", begin),
    ):
        return decoding_task.read_and_decode(event, data, spec, limits, memory=memory)


def count(data: bytes) -> None:
    """Append to the file that the image names, so that calls can be counted."""
    _, found, rest = data.partition(b"\nCOUNT ")
    if found:
        with Path(rest.split(b"\n")[0].decode()).open("a") as file:
            file.write("x")


def echo(value: Any, *, memory: int) -> Any:
    return value


def process_id(*, memory: int) -> int:
    return os.getpid()


def process_id_after(seconds: float, mark: Path, *, memory: int) -> int:
    """Create one file at the beginning and one at the end."""
    Path(f"{mark}.begun").write_text(str(os.getpid()))
    time.sleep(seconds)
    Path(f"{mark}.ended").touch()
    return os.getpid()


def dies_unless_fresh(*, memory: int) -> str:
    """Crash if the process has run another task before."""
    if "done_before" in globals():
        os.abort()
    return "alone"


def spoil(*, memory: int) -> None:
    globals()["done_before"] = True


def hang_while_reading(*, memory: int) -> None:
    enter_phase(Phase.READING)
    time.sleep(600)


def code_for_the_parent(*, memory: int) -> Any:
    """A pickle as a compromised decoder might send it."""
    return _Code()


class _Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


def open_sockets(*, memory: int) -> list[str]:
    """Names of the sockets and files that this process has open."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(each.readlink()))
        except OSError:
            continue
    return found


def modules(*, memory: int) -> list[str]:
    return list(sys.modules)
