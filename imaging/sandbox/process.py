"""The parent's side of one worker process: its start, requests and end."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import mmap
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta, timezone
from multiprocessing.process import BaseProcess
from typing import Any, Final

import numpy as np

from imaging.decoded_image import DecodedImage
from imaging.sandbox import worker as sandbox_worker
from imaging.sandbox.worker import ARENA_BYTES, LENGTH, Descriptor, Phase, Reply, Request

logger = logging.getLogger(__name__)

_CONTEXT: Final = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["imaging.sandbox.preload"])
_STARTS: Final = threading.Lock()
"""Held while a process is started or its exit status is read: `multiprocessing` reads the status of
all others when it starts one, and a status can be read only once."""
_STARTER: Final = ThreadPoolExecutor(1, thread_name_prefix="sandbox-start")
"""A thread of its own, as all default threads of the loop may be waiting for workers."""
PIECE_BYTES: Final = 1 << 18
BUSY_SECONDS: Final = 0.005


class ProcessEnded(Exception):
    """The process has ended. `phase` is its last one, `timed_out` whether its time was over."""

    def __init__(
        self, reason: str, *, phase: Phase = Phase.STARTING, timed_out: bool = False
    ) -> None:
        super().__init__(reason)
        self.phase = phase
        self.timed_out = timed_out


class SandboxProcess:
    """A process that runs one request at a time. Created by `start`."""

    def __init__(self, process: BaseProcess, connection: socket.socket, arena: mmap.mmap) -> None:
        loop = asyncio.get_running_loop()
        self._process = process
        self._connection = connection
        self._arena = arena
        self._receive = bytearray()
        self._reply: asyncio.Future[Any] | None = None
        self._timed_out = False
        self._closing = False
        self.pid = process.pid or 0
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done when the process has ended."""
        loop.add_reader(connection, self._read)
        loop.add_reader(process.sentinel, self._on_exit)

    @classmethod
    async def start(cls) -> SandboxProcess:
        """Start a new process."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        descriptor = _shared_memory()
        try:
            arena = mmap.mmap(descriptor, ARENA_BYTES)
            process = _CONTEXT.Process(
                target=sandbox_worker.main, args=(theirs, Descriptor(descriptor)), daemon=True
            )
            # The first start waits for the fork server.
            await asyncio.get_running_loop().run_in_executor(_STARTER, _start, process)
        finally:
            theirs.close()
            os.close(descriptor)
        return cls(process, ours, arena)

    async def execute(self, request: Request) -> Any:
        """Run a request; return or raise what its function does.

        Raises:
            Ended: the process has ended, or was killed because its time was over.
        """
        loop = asyncio.get_running_loop()
        content = pickle.dumps(request, protocol=5)
        # A late time-out of the previous request does not concern this one.
        self._timed_out = False
        self._arena[0] = Phase.READY
        reply = self._reply = loop.create_future()
        timer = loop.call_later(request.seconds + request.reading, self._on_timeout)
        try:
            with contextlib.suppress(OSError):  # The end of the process is noticed by `_on_exit`.
                await loop.sock_sendall(self._connection, LENGTH.pack(len(content)) + content)
            return await reply
        finally:
            timer.cancel()

    def kill(self) -> None:
        """Kill it; `ended` is done once it has ended."""
        if not self._closing:
            self._process.kill()

    def _on_timeout(self) -> None:
        if self._reply is None:
            return  # The reply came in the same turn of the loop.
        self._timed_out = True
        self.kill()

    def _read(self) -> None:
        try:
            while piece := self._connection.recv(PIECE_BYTES):
                self._receive += piece
                if len(piece) < PIECE_BYTES:
                    break
            else:
                # It closes its end when it exits; see `_on_exit`.
                asyncio.get_running_loop().remove_reader(self._connection)
                self.kill()
        except BlockingIOError:
            pass
        except OSError:
            asyncio.get_running_loop().remove_reader(self._connection)
            self.kill()
        self._take_reply()

    def _take_reply(self) -> None:
        if len(self._receive) < LENGTH.size:
            return
        (length,) = LENGTH.unpack_from(self._receive)
        if len(self._receive) < LENGTH.size + length:
            return
        content = bytes(memoryview(self._receive)[LENGTH.size : LENGTH.size + length])
        self._receive.clear()
        waiting, self._reply = self._reply, None
        if waiting is None or waiting.done():
            return
        try:
            failed, result = self._unpack(content)
        except Exception as error:
            # The reply is not valid: its input may have taken over the process.
            logger.warning("a worker's reply cannot be read: %s", error)
            self.kill()
            self._reply = waiting
            return
        if failed:
            waiting.set_exception(result)
        else:
            waiting.set_result(result)

    def _unpack(self, content: bytes) -> tuple[bool, Any]:
        reply = _load(content, ())
        arrays = [self._arena[start:end] for start, end in reply.arrays]
        result = _load(reply.content, arrays)
        if reply.failed and not isinstance(result, Exception):
            raise pickle.UnpicklingError("the error is not an exception")
        return reply.failed, result

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._process.sentinel)
        self._closing = True
        self._close()

    def _close(self) -> None:
        loop = asyncio.get_running_loop()
        if not _STARTS.acquire(blocking=False):
            loop.call_later(BUSY_SECONDS, self._close)
            return
        try:
            code = self._process.exitcode
            self._process.close()
        finally:
            _STARTS.release()
        loop.remove_reader(self._connection)
        if self._reply is not None and not self._reply.done():
            self._read_rest()
        if self._reply is not None and not self._reply.done():
            timed_out = self._timed_out or code == -signal.SIGALRM
            end = ProcessEnded(
                _describe_exit(code), phase=Phase(self._arena[0]), timed_out=timed_out
            )
            self._reply.set_exception(end)
        self._connection.close()
        self._arena.close()
        self.ended.set_result(None)

    def _read_rest(self) -> None:
        with contextlib.suppress(OSError):
            while piece := self._connection.recv(PIECE_BYTES):
                self._receive += piece
        self._take_reply()


def _start(process: BaseProcess) -> None:
    with _STARTS:
        process.start()


def _describe_exit(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"status {code}"


def _shared_memory() -> int:
    """A file descriptor of anonymous shared memory."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("decoded", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, ARENA_BYTES)
    return descriptor


_DATA: Final = {
    (each.__module__, each.__qualname__)
    for each in (DecodedImage, Reply, date, datetime, timedelta, timezone, np.ndarray, np.dtype)
} | {("numpy._core.numeric", "_frombuffer")}


class _ReplyUnpickler(pickle.Unpickler):
    """Creates only data and exceptions, even if the worker was taken over by its input."""

    def find_class(self, module: str, name: str) -> Any:
        if module in sys.modules:
            found = super().find_class(module, name)
            is_error = isinstance(found, type) and issubclass(found, Exception)
            if is_error or (module, name) in _DATA:
                return found
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a reply")


def _load(content: bytes, arrays: Sequence[bytes]) -> Any:
    return _ReplyUnpickler(io.BytesIO(content), buffers=arrays).load()
