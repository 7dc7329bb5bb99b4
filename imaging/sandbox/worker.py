"""The worker's side of a sandbox process: runs one request after the other.

A message is a length of eight bytes and a pickle. Arrays of a result are passed in shared memory,
so that they are copied only once.
"""

from __future__ import annotations

import importlib
import mmap
import os
import pickle
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from multiprocessing import reduction
from pathlib import Path
from typing import Any, Final

from adapters.child_process import live_with_the_parent
from adapters.errors import DecoderMemory
from imaging.sandbox.allocator import return_memory_promptly

LENGTH: Final = struct.Struct("<Q")
ARENA_BYTES: Final = 4 << 20
"""Size of the shared memory. Arrays that do not fit are part of the pickle."""
FIRST_ARRAY: Final = 64
LATE_SECONDS: Final = 2.0
"""A worker that the parent has not killed this long after its time limit ends itself."""
MARGIN_BYTES: Final = (192 << 20) + (32 << 20) * (os.cpu_count() or 1)
"""Memory that a worker may take beyond the need of its task. The decoders' thread stacks, one or
more per core, count in full."""


class Phase(IntEnum):
    """What a worker is doing; stored in the first byte of the shared memory."""

    STARTING = 0
    READY = 1
    READING = 2
    DECODING = 3


class Descriptor:
    """A file descriptor that is duplicated into a child process when it is pickled."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _receive, (reduction.DupFd(self.number),)


def _receive(duplicate: Any) -> Descriptor:
    return Descriptor(duplicate.detach())


class NeedsMemory(Exception):
    """Raised by a task that needs more memory than it was granted; it is rerun with `needed`."""

    def __init__(self, needed: int) -> None:
        """`needed` in bytes."""
        super().__init__(needed)
        self.needed = needed


@dataclass(frozen=True, slots=True)
class Request:
    """A function to call, `module:name`, with `arguments` and the keyword `memory` in bytes.

    `seconds` is its time limit. With `reading`, reading a file has a limit of its own, and
    `seconds` begin when decoding does.
    """

    function: str
    arguments: tuple[Any, ...]
    memory: int
    seconds: float
    reading: float = 0.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What the function returned or raised. `arrays` are ranges of the shared memory."""

    content: bytes
    failed: bool
    arrays: tuple[tuple[int, int], ...] = ()


_arena: mmap.mmap | None = None
_times: dict[Phase, float] = {}
"""Phase -> its time limit in seconds, if phases have separate limits."""


def enter_phase(phase: Phase) -> None:
    """Record the present phase for the parent. Does nothing outside a worker."""
    if _arena is not None:
        if phase in _times:
            signal.setitimer(signal.ITIMER_REAL, _times[phase])
        _arena[0] = phase


def main(connection: socket.socket, arena: Descriptor) -> None:
    """Serve requests until the connection is closed. `arena` is the shared memory."""
    global _arena, _times
    _arena = mmap.mmap(arena.number, ARENA_BYTES)
    os.close(arena.number)
    live_with_the_parent()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    return_memory_promptly()
    # Crashes are expected here; do not write core dumps.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prefer_for_oom_kill()
    limit, term = _MemoryLimit(), _Termination()
    enter_phase(Phase.READY)
    with connection, connection.makefile("rb") as incoming:
        while head := incoming.read(LENGTH.size):
            request: Request = pickle.loads(incoming.read(LENGTH.unpack(head)[0]))  # noqa: S301
            with term.later():
                # The timer ends even a decoder that never returns to Python, if the parent is gone.
                signal.setitimer(signal.ITIMER_REAL, request.seconds + LATE_SECONDS)
                own = {Phase.READING: request.reading, Phase.DECODING: request.seconds}
                _times = own if request.reading else {}
                answer = _answer(request, _arena, limit)
                signal.setitimer(signal.ITIMER_REAL, 0)
                reply = pickle.dumps(answer)
                try:
                    connection.sendall(LENGTH.pack(len(reply)) + reply)
                except OSError:  # The parent is gone.
                    break
    os._exit(0)


def _answer(request: Request, arena: mmap.mmap, limit: _MemoryLimit) -> Reply:
    # Errors from here on are the task's, and would happen again.
    enter_phase(Phase.DECODING)
    try:
        with limit.at(request.memory):
            result = _function(request.function)(*request.arguments, memory=request.memory)
            return _pack(result, arena)
    except MemoryError:
        return _failure(DecoderMemory("decoding it takes more memory than is available"))
    except Exception as error:
        return _failure(error)


def _pack(result: object, arena: mmap.mmap) -> Reply:
    arrays: list[tuple[int, int]] = []
    end = FIRST_ARRAY

    def to_arena(buffer: pickle.PickleBuffer) -> bool:
        """Copy the buffer into shared memory; True (keep it in the pickle) if that is full."""
        nonlocal end
        raw = buffer.raw()
        if end + raw.nbytes > len(arena):
            return True
        arena[end : end + raw.nbytes] = raw
        arrays.append((end, end + raw.nbytes))
        end += raw.nbytes
        return False

    content = pickle.dumps(result, protocol=5, buffer_callback=to_arena)
    return Reply(content, failed=False, arrays=tuple(arrays))


def _failure(error: Exception) -> Reply:
    try:
        content = pickle.dumps(error)
        pickle.loads(content)  # noqa: S301 (some errors can be pickled but not unpickled)
    except Exception:
        content = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return Reply(content, failed=True)


@lru_cache(maxsize=64)
def _function(name: str) -> Callable[..., object]:
    module, _, attribute = name.partition(":")
    function: Callable[..., object] = getattr(importlib.import_module(module), attribute)
    return function


class _Termination:
    """Handles SIGTERM, which may be sent to the parent's whole process group.

    The present request is finished first, as the parent may still want its result.
    """

    def __init__(self) -> None:
        self._busy = self._is_requested = False
        signal.signal(signal.SIGTERM, self._end)

    @contextmanager
    def later(self) -> Iterator[None]:
        """Defer termination to the end of the block."""
        self._busy = True
        yield
        self._busy = False
        if self._is_requested:
            os._exit(0)

    def _end(self, *_: object) -> None:
        if not self._busy:
            os._exit(0)
        self._is_requested = True


class _MemoryLimit:
    """The limit on this process's memory, enforced by the kernel.

    It limits private writable memory (RLIMIT_DATA, since Linux 4.7), not address space, of which
    libraries reserve far more than they use. Other systems have no such limit.
    """

    def __init__(self) -> None:
        self._base = _data_bytes()
        self._usual = resource.getrlimit(resource.RLIMIT_DATA)

    @contextmanager
    def at(self, memory: int) -> Iterator[None]:
        """Within the block, allow one and a half times `memory` bytes, and the margin."""
        if self._base is None:
            yield
            return
        usual, hard = self._usual
        wanted = min(self._base + memory * 3 // 2 + MARGIN_BYTES, sys.maxsize)
        if usual != resource.RLIM_INFINITY:
            wanted = min(wanted, usual)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, self._usual)


def _data_bytes() -> int | None:
    """The bytes that count for RLIMIT_DATA now; None if the system has no such limit."""
    if not sys.platform.startswith("linux"):
        return None
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[5]) * resource.getpagesize()


def _prefer_for_oom_kill() -> None:
    """Make the kernel kill this process before its parent when memory runs out."""
    if sys.platform.startswith("linux"):
        with suppress(OSError):  # Not permitted in some containers.
            Path("/proc/self/oom_score_adj").write_text("1000")
