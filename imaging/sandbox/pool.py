"""Work on untrusted bytes, done in processes that may crash, hang or eat memory without harm.

Each process does one thing at a time, so whatever becomes of it is that thing's doing. It is killed
when its time is over or when nobody waits for it any more; its place, and the memory granted to it,
are given back when it is really gone. Processes are forked from one that has the decoders loaded
already, start when they are needed and end when there has been nothing to do for a while.

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
from imaging.sandbox.process import Ended, SandboxProcess
from imaging.sandbox.worker import DECODING, READING, NeedsMemory, Request

logger = logging.getLogger(__name__)

IDLE_SECONDS: Final = 60.0
LEAST_SHARE_BYTES: Final = 4_000_000


def workers_of(setting: int) -> int:
    """How many processes a setting means; 0 is as many as there are cores."""
    return setting or os.cpu_count() or 1


class _Permit(NamedTuple):
    """Who holds it may have a process work, and have it take memory."""

    memory: MemoryHold | None
    places: asyncio.Semaphore

    def give_back(self) -> None:
        if self.memory is not None:
            self.memory.give_back()
        self.places.release()


class _Job:
    """One piece of work on its way through a process."""

    def __init__(self) -> None:
        self.process: SandboxProcess | None = None
        self.abandoned = False

    def abandon(self) -> None:
        """Nobody wants its result any more."""
        self.abandoned = True
        if self.process is not None:
            self.process.kill()


class Sandbox:
    """A bounded number of processes, and of bytes that they may take together.

    Use from one event loop.
    """

    def __init__(
        self, workers: int, *, memory_bytes: int, seconds: float, once: bool = False
    ) -> None:
        """
        Args:
            workers: how many processes there are at most.
            memory_bytes: what all work together may take, files and decoded pictures. One thing
                that takes more is done while nothing else that is large is.
            seconds: the time that one thing may take, without the time it waits for its turn.
            once: whether what is not done in its time is not tried again, as nobody would wait.
        """
        self.workers = workers
        self.seconds = seconds
        self._again = (Ended, DecoderMemory) if once else (Ended, DecoderMemory, DecoderTimeout)
        # Most pictures need less than this, and ask for no more. The rest is for large ones.
        self.share = max(LEAST_SHARE_BYTES, memory_bytes // (4 * workers))
        # A place comes with a share. What needs more shares what the other places leave, so large
        # ones may wait for one another while small ones go on beside them.
        others = (workers - 1) * self.share
        self._large = MemoryBudget(max(memory_bytes, others + self.share) - others)
        self._places = asyncio.Semaphore(workers)
        self._idle: list[SandboxProcess] = []
        self._all: set[SandboxProcess] = set()
        self._jobs: set[asyncio.Task[Any]] = set()
        self._used = 0.0
        self._resting: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def processes(self) -> list[int]:
        """The ids of the processes there are now."""
        return [process.pid for process in self._all]

    async def run(
        self, function: str, *arguments: object, memory: int = 0, reading: float = 0.0
    ) -> Any:
        """What `module:name` returns or raises, called with `arguments` and `memory`, in a process.

        `memory` is what is known before: it gets that much at least. `reading` is how many seconds
        it may read a file before it decodes; 0 where both together have the sandbox's `seconds`.

        Raises:
            DecoderCrashed: it ended its process, and so it did once more in one of its own.
            DecoderMemory: it took much more than it was granted, and so it did once more.
            DecoderTimeout: it was not done in its time, and so it was once more.
            SlowFile: its file could not be read in its time.
            Unavailable: no process could be started, or it did not begin in that time.
        """
        if self._closed:
            raise Unavailable("nothing is decoded any more: this process ends")
        try:
            return await self._granted(function, arguments, memory, reading, fresh=False)
        except self._again as error:
            if self._closed:
                raise Unavailable("it was not decoded any more: this process ends") from error
            # What was decoded before may have left it damaged, the system wanted its memory, or the
            # machine stood still, and then the time of all that was begun was over.
            logger.warning("%s ended the process that did it: %s; once more", function, error)
        try:
            return await self._granted(function, arguments, memory, reading, fresh=True)
        except Ended as error:
            if error.doing != DECODING or self._closed:
                raise Unavailable(f"the process that was to decode it ended: {error}") from error
            raise DecoderCrashed(f"decoding it crashed the decoder ({error})") from error

    def close(self) -> None:
        """End the processes. Work in them ends with an error."""
        self._closed = True
        self._rest_from(len(self._all))
        for process in list(self._all):
            process.kill()
        if self._resting is not None:
            self._resting.cancel()

    async def _granted(
        self,
        function: str,
        arguments: tuple[object, ...],
        memory: int,
        reading: float,
        *,
        fresh: bool,
    ) -> Any:
        """Grant what it says it needs, once it has said so."""
        memory = max(memory, self.share)
        while True:
            request = Request(function, arguments, memory, self.seconds, reading)
            try:
                return await self._once(request, fresh=fresh)
            except NeedsMemory as more:
                if more.needed <= memory:
                    raise RuntimeError(f"{function} was granted {memory} bytes") from more
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
            task.add_done_callback(_look_away)
            raise

    async def _permit(self, memory: int) -> _Permit:
        hold = await self._large.take(memory) if memory > self.share else None
        try:
            await self._places.acquire()
        except BaseException:
            if hold is not None:
                hold.give_back()
            raise
        return _Permit(hold, self._places)

    async def _work(self, request: Request, job: _Job, permit: _Permit, fresh: bool) -> Any:
        """Have a process do it. Not to be cancelled: it owns the permit until the end."""
        process: SandboxProcess | None = None
        reusable = False
        try:
            process = job.process = await self._process(fresh)
            if job.abandoned:
                raise Ended("nobody waits for it")
            result = await process.ask(request)
            reusable = True
            return result
        except DecoderMemory:
            raise  # What it holds on to is not known.
        except Ended as end:
            if end.timed_out and end.doing == READING:
                seconds = request.reading or request.seconds
                raise SlowFile(f"a file could not be read in {seconds:g} s") from end
            if end.timed_out and end.doing != DECODING:
                raise Unavailable(f"no process began with it in {request.seconds:g} s") from end
            if end.timed_out:
                raise DecoderTimeout(f"decoding it takes over {request.seconds:g} s") from end
            raise
        except Exception:
            reusable = True  # Its own answer.
            raise
        finally:
            self._used = time.monotonic()
            job.process = None  # What becomes of it now is not this job's.
            if process is None:
                permit.give_back()
            elif reusable and not process.ended.done() and not (job.abandoned or self._closed):
                self._idle.append(process)
                permit.give_back()
                self._rest_later()
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
            process.kill()  # To make room: there are never more of them than places.
            fresh = False
            await asyncio.wait([process.ended])
            break
        try:
            process = await SandboxProcess.start()
        except (OSError, EOFError) as error:
            raise Unavailable(f"no process can be started to decode in: {error}") from error
        self._all.add(process)
        process.ended.add_done_callback(lambda _: self._all.discard(process))
        return process

    def _rest_later(self) -> None:
        if self._resting is None:
            loop = asyncio.get_running_loop()
            self._resting = loop.call_later(IDLE_SECONDS, self._rest)

    def _rest(self) -> None:
        self._resting = None
        left = self._used + IDLE_SECONDS - time.monotonic()
        if left > 0 or len(self._jobs) > 0:
            loop = asyncio.get_running_loop()
            self._resting = loop.call_later(max(left, 1.0), self._rest)
        else:
            self._rest_from(len(self._idle))

    def _rest_from(self, count: int) -> None:
        for process in self._idle[:count]:
            process.kill()
        del self._idle[:count]


def _look_away(task: asyncio.Task[Any]) -> None:
    """Its error is nobody's any more."""
    if not task.cancelled():
        task.exception()
