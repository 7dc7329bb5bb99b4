"""Runs tasks on untrusted input in processes, which may crash, hang or exhaust their memory.

Each process runs one task at a time, so a crash can be attributed to its task. A process is killed
when its time is over or its caller is cancelled. Its slot and its memory are released once it has
really ended. Processes are forked from a server process that has loaded the
decoders; they start on demand and end when idle.

Decision and measurements: `docs/decisions/0013-decoding-processes.md`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import Any, Final, NamedTuple

from adapters.errors import DecoderCrashed, DecoderMemory, DecoderTimeout, SlowFile, Unavailable
from imaging.sandbox.memory_budget import MemoryBudget, MemoryHold
from imaging.sandbox.process import ProcessEnded, SandboxProcess
from imaging.sandbox.worker import NeedsMemory, Phase, Request

logger = logging.getLogger(__name__)

IDLE_SECONDS: Final = 60.0
MIN_SHARE_BYTES: Final = 4_000_000


def worker_count(setting: int) -> int:
    """Number of processes for a setting; 0 means one per core."""
    return setting or os.cpu_count() or 1


class _Permit(NamedTuple):
    """The right to use a process and an amount of memory."""

    memory: MemoryHold | None
    slots: asyncio.Semaphore

    def give_back(self) -> None:
        if self.memory is not None:
            self.memory.give_back()
        self.slots.release()


class _Job:
    """One task in a process."""

    def __init__(self) -> None:
        self.process: SandboxProcess | None = None
        self.abandoned = False

    def abandon(self) -> None:
        """The caller was cancelled: kill the process."""
        self.abandoned = True
        if self.process is not None:
            self.process.kill()


class Sandbox:
    """A bounded number of processes, which take a bounded amount of memory together.

    Use from one event loop.
    """

    def __init__(
        self, workers: int, *, memory_bytes: int, seconds: float, once: bool = False
    ) -> None:
        """
        Args:
            workers: maximum number of processes.
            memory_bytes: limit for all tasks together, files and decoded images. A task that needs
                more runs while no other large task does.
            seconds: time limit of one task, without the time it waits for its turn.
            once: do not retry a task that timed out, as its caller's deadline is over.
        """
        self.workers = workers
        self.seconds = seconds
        self._again = (
            (ProcessEnded, DecoderMemory) if once else (ProcessEnded, DecoderMemory, DecoderTimeout)
        )
        # Most images need less than this share. The rest is for large ones.
        self.share = max(MIN_SHARE_BYTES, memory_bytes // (4 * workers))
        # Each slot has a share. Tasks that need more take it from the common rest, so large ones
        # wait for one another while small ones continue.
        others = (workers - 1) * self.share
        self._large = MemoryBudget(max(memory_bytes, others + self.share) - others)
        self._slots = asyncio.Semaphore(workers)
        self._idle: list[SandboxProcess] = []
        self._all: set[SandboxProcess] = set()
        self._jobs: set[asyncio.Task[Any]] = set()
        self._used = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def processes(self) -> list[int]:
        """Ids of the present processes."""
        return [process.pid for process in self._all]

    async def run(
        self, function: str, *arguments: object, memory: int = 0, reading: float = 0.0
    ) -> Any:
        """Call `module:name` with `arguments` and `memory` in a process.

        `memory` is the least number of bytes to grant. `reading` is the time limit in seconds for
        reading a file before decoding; with 0, both together have the sandbox's `seconds`.

        Raises:
            DecoderCrashed: the task crashed its process, twice, the second time in a new one.
            DecoderMemory: it took much more memory than granted, twice.
            DecoderTimeout: it exceeded its time limit, twice (unless `once`).
            SlowFile: its file could not be read in time.
            Unavailable: no process could be started, or none began the task in time.
        """
        if self._closed:
            raise Unavailable("this process is shutting down and decodes no more files")
        try:
            return await self._run_granted(function, arguments, memory, reading, fresh=False)
        except self._again as error:
            if self._closed:
                raise Unavailable("not decoded: this process is shutting down") from error
            # The cause may be an earlier task of the process, a lack of memory on the machine, or a
            # machine that was suspended, so that all running tasks timed out.
            logger.warning("%s ended its process: %s; retrying once", function, error)
        try:
            return await self._run_granted(function, arguments, memory, reading, fresh=True)
        except ProcessEnded as error:
            if error.phase != Phase.DECODING or self._closed:
                raise Unavailable(f"the decoder process ended before decoding: {error}") from error
            raise DecoderCrashed(f"decoding it crashed the decoder ({error})") from error

    def close(self) -> None:
        """End the processes. Tasks in them end with an error."""
        self._closed = True
        self._end_idle(len(self._all))
        for process in list(self._all):
            process.kill()
        if self._idle_timer is not None:
            self._idle_timer.cancel()

    async def _run_granted(
        self,
        function: str,
        arguments: tuple[object, ...],
        memory: int,
        reading: float,
        *,
        fresh: bool,
    ) -> Any:
        """Run the task; grant more memory and run it again if it needs more."""
        memory = max(memory, self.share)
        while True:
            request = Request(function, arguments, memory, self.seconds, reading)
            try:
                return await self._once(request, fresh=fresh)
            except NeedsMemory as more:
                if more.needed <= memory:
                    raise RuntimeError(
                        f"{function} still needs more than the {memory} bytes that it requested"
                    ) from more
                memory = more.needed

    async def _once(self, request: Request, *, fresh: bool) -> Any:
        permit = await self._permit(request.memory)
        job = _Job()
        task = asyncio.get_running_loop().create_task(self._work(request, job, permit, fresh))
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            job.abandon()
            task.add_done_callback(_ignore_error)
            raise

    async def _permit(self, memory: int) -> _Permit:
        hold = await self._large.take(memory) if memory > self.share else None
        try:
            await self._slots.acquire()
        except BaseException:
            if hold is not None:
                hold.give_back()
            raise
        return _Permit(hold, self._slots)

    async def _work(self, request: Request, job: _Job, permit: _Permit, fresh: bool) -> Any:
        """Run the request in a process. Must not be cancelled: it owns the permit until the end."""
        process: SandboxProcess | None = None
        reusable = False
        try:
            process = job.process = await self._process(fresh)
            if job.abandoned:
                raise ProcessEnded("its caller was cancelled")
            result = await process.execute(request)
            reusable = True
            return result
        except DecoderMemory:
            raise  # It is unknown which memory the process still holds.
        except ProcessEnded as end:
            if end.timed_out and end.phase == Phase.READING:
                seconds = request.reading or request.seconds
                raise SlowFile(f"a file could not be read within {seconds:g} s") from end
            if end.timed_out and end.phase != Phase.DECODING:
                raise Unavailable(
                    f"no decoder process began the task within {request.seconds:g} s"
                ) from end
            if end.timed_out:
                raise DecoderTimeout(f"decoding it takes more than {request.seconds:g} s") from end
            raise
        except Exception:
            reusable = True  # The task's own error.
            raise
        finally:
            self._used = time.monotonic()
            job.process = None  # From here on the process is no longer this job's.
            if process is None:
                permit.give_back()
            elif reusable and not process.ended.done() and not (job.abandoned or self._closed):
                self._idle.append(process)
                permit.give_back()
                self._schedule_idle_check()
            else:
                process.kill()
                process.ended.add_done_callback(lambda _: permit.give_back())

    async def _process(self, fresh: bool) -> SandboxProcess:
        while self._idle:
            process = self._idle.pop()
            if process.ended.done():
                continue
            if not fresh:
                return process
            process.kill()  # There are never more processes than slots.
            fresh = False
            await asyncio.wait([process.ended])
            break
        try:
            process = await SandboxProcess.start()
        except (OSError, EOFError) as error:
            raise Unavailable(f"no decoder process can be started: {error}") from error
        self._all.add(process)
        process.ended.add_done_callback(lambda _: self._all.discard(process))
        return process

    def _schedule_idle_check(self) -> None:
        if self._idle_timer is None:
            loop = asyncio.get_running_loop()
            self._idle_timer = loop.call_later(IDLE_SECONDS, self._check_idle)

    def _check_idle(self) -> None:
        self._idle_timer = None
        left = self._used + IDLE_SECONDS - time.monotonic()
        if left > 0 or len(self._jobs) > 0:
            loop = asyncio.get_running_loop()
            self._idle_timer = loop.call_later(max(left, 1.0), self._check_idle)
        else:
            self._end_idle(len(self._idle))

    def _end_idle(self, count: int) -> None:
        for process in self._idle[:count]:
            process.kill()
        del self._idle[:count]


def _ignore_error(task: asyncio.Task[Any]) -> None:
    """Retrieve the error of a task that is no longer awaited, so that asyncio does not log it."""
    if not task.cancelled():
        task.exception()
