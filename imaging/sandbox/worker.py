"""What runs in a worker process of `imaging.sandbox`: one piece of work after the other.

Messages are a length of eight bytes and a pickle. Arrays of a result lie in memory that both
processes see, so that they are copied once.
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
from functools import lru_cache
from multiprocessing import reduction
from pathlib import Path
from typing import Any, Final

from adapters.errors import DecoderMemory
from imaging.sandbox.allocator import return_memory_promptly
from imaging.sandbox.child_process import live_with_the_parent

LENGTH: Final = struct.Struct("<Q")
ARENA_BYTES: Final = 4 << 20
"""Of the shared memory. Arrays that do not fit into it are part of the pickle."""
FIRST_ARRAY: Final = 64
NOTHING, READY, READING, DECODING = range(4)
"""What a worker is doing, told in the first byte of the shared memory; nothing before it runs."""
LATE_SECONDS: Final = 2.0
"""After its time a worker is ended by its parent; so much later it ends by itself."""
MARGIN_BYTES: Final = (192 << 20) + (32 << 20) * (os.cpu_count() or 1)
"""What a worker may take beyond what its work is said to need: stacks of decoders' threads, one or
more for each core, count with all they may grow to."""


class Descriptor:
    """A file descriptor that another process gets a copy of when this is pickled for its start."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (reduction.DupFd(self.number),)


def _received(passed: Any) -> Descriptor:
    return Descriptor(passed.detach())


class NeedsMemory(Exception):
    """Raised by work that needs more memory than it was granted; it is done again with as much."""

    def __init__(self, needed: int) -> None:
        """`needed` in bytes."""
        super().__init__(needed)
        self.needed = needed


@dataclass(frozen=True, slots=True)
class Request:
    """`function` is `module:name`. It is called with `arguments` and, by name, `memory`: the bytes
    it may take. `seconds` is the time it has; with `reading`, reading a file has a time of its own,
    and that of decoding begins when decoding does."""

    function: str
    arguments: tuple[Any, ...]
    memory: int
    seconds: float
    reading: float = 0.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What the function returned or raised. `arrays`: where in the shared memory its arrays lie."""

    content: bytes
    failed: bool
    arrays: tuple[tuple[int, int], ...] = ()


_arena: mmap.mmap | None = None
_times: dict[int, float] = {}
"""What is done now -> how many seconds it has, where each has its own."""


def doing(what: int) -> None:
    """Tell the parent, and whoever has to say why this process ended. Nothing elsewhere."""
    if _arena is not None:
        if what in _times:
            signal.setitimer(signal.ITIMER_REAL, _times[what])
        _arena[0] = what


def main(connection: socket.socket, arena: Descriptor) -> None:
    """Work until the connection is closed. `arena` is the memory that the parent sees as well."""
    global _arena, _times
    _arena = mmap.mmap(arena.number, ARENA_BYTES)
    os.close(arena.number)
    live_with_the_parent()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    return_memory_promptly()
    # A crash is an answer like others here: no file that tells of it is wanted.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _be_the_first_to_go()
    limit, term = _MemoryLimit(), _Termination()
    doing(READY)
    with connection, connection.makefile("rb") as incoming:
        while head := incoming.read(LENGTH.size):
            request: Request = pickle.loads(incoming.read(LENGTH.unpack(head)[0]))  # noqa: S301
            with term.later():
                # Even a decoder that never returns to Python ends if the parent is gone.
                signal.setitimer(signal.ITIMER_REAL, request.seconds + LATE_SECONDS)
                own = {READING: request.reading, DECODING: request.seconds}
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
    # Whatever goes wrong from here on is what was asked for, and would go wrong again.
    doing(DECODING)
    try:
        with limit.at(request.memory):
            result = _function(request.function)(*request.arguments, memory=request.memory)
            return _packed(result, arena)
    except MemoryError:
        return _failure(DecoderMemory("decoding it takes more memory than there is for it"))
    except Exception as error:
        return _failure(error)


def _packed(result: object, arena: mmap.mmap) -> Reply:
    arrays: list[tuple[int, int]] = []
    end = FIRST_ARRAY

    def apart(buffer: pickle.PickleBuffer) -> bool:
        """Copy it into the shared memory; true, which is "in the pickle", where that is full."""
        nonlocal end
        raw = buffer.raw()
        if end + raw.nbytes > len(arena):
            return True
        arena[end : end + raw.nbytes] = raw
        arrays.append((end, end + raw.nbytes))
        end += raw.nbytes
        return False

    content = pickle.dumps(result, protocol=5, buffer_callback=apart)
    return Reply(content, failed=False, arrays=tuple(arrays))


def _failure(error: Exception) -> Reply:
    try:
        content = pickle.dumps(error)
        pickle.loads(content)  # noqa: S301 (an error may be pickled and yet not be made again)
    except Exception:
        content = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return Reply(content, failed=True)


@lru_cache(maxsize=64)
def _function(name: str) -> Callable[..., object]:
    module, _, attribute = name.partition(":")
    function: Callable[..., object] = getattr(importlib.import_module(module), attribute)
    return function


class _Termination:
    """SIGTERM, which also comes when the parent's whole group is told to end: what was begun is
    finished before, as the parent may still want it."""

    def __init__(self) -> None:
        self._busy = self._asked = False
        signal.signal(signal.SIGTERM, self._end)

    @contextmanager
    def later(self) -> Iterator[None]:
        """Not within the block, but at its end."""
        self._busy = True
        yield
        self._busy = False
        if self._asked:
            os._exit(0)

    def _end(self, *_: object) -> None:
        if not self._busy:
            os._exit(0)
        self._asked = True


class _MemoryLimit:
    """The bound on what this process may take, kept by the kernel.

    On its private writable memory (RLIMIT_DATA, since Linux 4.7), not on its address space, of
    which libraries reserve far more than they use. Elsewhere there is none.
    """

    def __init__(self) -> None:
        self._base = _data_bytes()
        self._usual = resource.getrlimit(resource.RLIMIT_DATA)

    @contextmanager
    def at(self, memory: int) -> Iterator[None]:
        """Let the block take `memory` bytes, half as much again, and the margin."""
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
    """What the kernel counts for RLIMIT_DATA now; None where it does not."""
    if not sys.platform.startswith("linux"):
        return None
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[5]) * resource.getpagesize()


def _be_the_first_to_go() -> None:
    """Should the machine run out of memory, the system ends this process rather than its parent."""
    if sys.platform.startswith("linux"):
        with suppress(OSError):  # Not permitted in some containers: then it is one among others.
            Path("/proc/self/oom_score_adj").write_text("1000")
