"""Start processes when their dependencies are ready, restart those that die, stop all in order."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from stack.errors import StackError

CHILD: Final = Path(__file__).with_name("child.py")
POLL_SECONDS: Final = 0.1
ALIVE_SECONDS: Final = 3.0
ALIVE_FAILURES: Final = 4
FIRST_BACKOFF_SECONDS: Final = 0.5
LONGEST_BACKOFF_SECONDS: Final = 30.0
HEALTHY_SECONDS: Final = 60.0
"""After running this long, a process is restarted with the shortest back-off."""

logger = logging.getLogger(__name__)


class ProcessState(StrEnum):
    """The state of a supervised process."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    DONE = "done"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process: how to start it, when it counts as ready, how long it may take to stop.

    A `one_shot` process is ready when it has exited with status 0. Times are in seconds.
    """

    name: str
    command: Sequence[str]
    log: Path
    ready: Callable[[], Awaitable[bool]]
    needs: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    one_shot: bool = False
    finite: bool = False
    """It ends by itself when its work is done, and is not restarted, also if it is killed: whoever
    added it decides what follows."""
    start_timeout: float = 120.0
    stop_grace: float = 20.0
    alive: Callable[[], Awaitable[bool]] | None = None
    """Called while the process runs; after `ALIVE_FAILURES` failures in a row it is killed."""
    prepare: Callable[[], None] | None = None
    """Runs before each start, for instance to remove what a killed process has left."""


@dataclass(slots=True)
class SupervisedProcess:
    """A process and its current state."""

    spec: ProcessSpec
    state: ProcessState = ProcessState.WAITING
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0
    exit_status: int | None = None
    """That of a finite process that has ended; a negative one is the signal that killed it."""
    started_at: float = 0.0
    """By the system clock, for display."""
    started: float = 0.0
    """By `time.monotonic`, for measuring."""
    ready_event: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def pid(self) -> int | None:
        """Its process id; None while it is not running."""
        running = self.process is not None and self.process.returncode is None
        return self.process.pid if self.process and running else None


def backoff(failures: int) -> float:
    """Seconds to wait before start number `failures` + 1: exponential, with jitter."""
    longest = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** (failures - 1))
    return float(longest * random.uniform(0.5, 1.0))  # noqa: S311


class Supervisor:
    """Runs a set of processes until it is cancelled, then stops them, last started first."""

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        say: Callable[[str], None],
        changed: Callable[[Sequence[SupervisedProcess]], None],
    ) -> None:
        self.processes = {spec.name: SupervisedProcess(spec) for spec in specs}
        self._say = say
        self._changed = changed
        self._all_ready = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def add(self, spec: ProcessSpec) -> None:
        """Start one more process and keep it running; its failures do not end the others."""
        if self._group is None or not self._all_ready.is_set():
            raise RuntimeError("processes can be added only when all others are ready")
        self.processes[spec.name] = SupervisedProcess(spec)
        self._tasks[spec.name] = self._group.create_task(self._keep(self.processes[spec.name]))

    async def remove(self, name: str) -> None:
        """Stop a process and forget it."""
        supervised = self.processes[name]
        task = self._tasks.pop(name)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if supervised.process is not None and supervised.pid is not None:
            await self._stop(supervised, supervised.process)
        del self.processes[name]
        self._changed(list(self.processes.values()))

    async def run(self, ready: Callable[[], None]) -> None:
        """Start all processes, call `ready` once when all are ready, and keep them running.

        Raises:
            StackError: a process could not be started; by then all others are stopped.
        """
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for name, supervised in self.processes.items():
                    self._tasks[name] = group.create_task(self._keep(supervised))
                group.create_task(self._announce(ready))
        except* StackError as errors:
            raise errors.exceptions[0] from None
        finally:
            await self._stop_all()

    async def _announce(self, ready: Callable[[], None]) -> None:
        for supervised in self.processes.values():
            await supervised.ready_event.wait()
        self._all_ready.set()
        ready()

    async def _keep(self, supervised: SupervisedProcess) -> None:
        spec = supervised.spec
        for name in spec.needs:
            await self.processes[name].ready_event.wait()
        failures = 0
        while True:
            try:
                process = await self._start(supervised)
            except (StackError, OSError) as error:
                if not self._all_ready.is_set():
                    raise
                # The others go on running; this one is retried, as after any other failure.
                failures += 1
                self._say(f"{spec.name} could not be restarted: {error}")
                await asyncio.sleep(backoff(failures))
                continue
            exited = asyncio.ensure_future(self._exit(supervised, process))
            try:
                await self._watch_start(supervised, exited)
                if spec.one_shot and supervised.state is ProcessState.DONE:
                    return
                await self._watch_life(supervised, exited)
                status = await exited
                if spec.finite:
                    supervised.exit_status = status
                    self._set(supervised, ProcessState.DONE)
                    return
            finally:
                exited.cancel()
            lived = time.monotonic() - supervised.started
            failures = 1 if lived > HEALTHY_SECONDS else failures + 1
            if not self._all_ready.is_set() and failures > 3:
                raise StackError(self._why(supervised, f"exited with status {status} at start"))
            wait = backoff(failures)
            self._set(supervised, ProcessState.RESTARTING)
            supervised.restarts += 1
            self._say(
                f"{spec.name} {exit_description(status)} after {lived:.0f} s; "
                f"restarting it in {wait:.1f} s (log: {spec.log})"
            )
            await asyncio.sleep(wait)

    async def _start(self, supervised: SupervisedProcess) -> asyncio.subprocess.Process:
        spec = supervised.spec
        if spec.prepare is not None:
            await asyncio.to_thread(spec.prepare)
        # Append: a restart must not hide why the previous process died.
        with spec.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                str(CHILD),
                str(os.getpid()),
                *spec.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **spec.environment},
                start_new_session=True,
            )
        supervised.process = process
        supervised.started_at, supervised.started = time.time(), time.monotonic()
        self._set(supervised, ProcessState.STARTING)
        return process

    async def _watch_start(
        self, supervised: SupervisedProcess, exited: asyncio.Future[int]
    ) -> None:
        spec = supervised.spec
        deadline = time.monotonic() + spec.start_timeout
        while not exited.done():
            if not spec.one_shot and await spec.ready():
                self._set(supervised, ProcessState.READY)
                if not supervised.ready_event.is_set():
                    took = time.monotonic() - supervised.started
                    if not spec.finite:
                        self._say(f"{spec.name} is ready ({took:.1f} s)")
                    supervised.ready_event.set()
                else:
                    self._say(f"{spec.name} is ready again")
                return
            if time.monotonic() > deadline:
                if not supervised.ready_event.is_set() and not self._all_ready.is_set():
                    raise StackError(
                        self._why(supervised, f"was not ready within {spec.start_timeout:.0f} s")
                    )
                self._say(f"{spec.name} is not ready after {spec.start_timeout:.0f} s: killed")
                _signal_group(supervised, signal.SIGKILL)
                return
            await asyncio.sleep(POLL_SECONDS)
        if spec.one_shot and exited.result() == 0:
            self._set(supervised, ProcessState.DONE)
            self._say(f"{spec.name} is done")
            supervised.ready_event.set()

    async def _watch_life(self, supervised: SupervisedProcess, exited: asyncio.Future[int]) -> None:
        spec = supervised.spec
        if spec.alive is None:
            return
        failures = 0
        while failures < ALIVE_FAILURES:
            await asyncio.wait([exited], timeout=ALIVE_SECONDS)
            if exited.done():
                return
            failures = 0 if await spec.alive() else failures + 1
        self._say(f"{spec.name} runs but does not work any more: killed")
        _signal_group(supervised, signal.SIGKILL)

    async def _exit(
        self, supervised: SupervisedProcess, process: asyncio.subprocess.Process
    ) -> int:
        status = await process.wait()
        # The children of a killed process (Triton's stubs) may outlive it.
        _signal_group(supervised, signal.SIGKILL)
        return status

    def _why(self, supervised: SupervisedProcess, what: str) -> str:
        spec = supervised.spec
        lines = spec.log.read_text(errors="replace").splitlines()[-20:] if spec.log.exists() else []
        return "\n".join([f"{spec.name} {what}; the end of {spec.log}:", *lines])

    def _set(self, supervised: SupervisedProcess, state: ProcessState) -> None:
        supervised.state = state
        self._changed(list(self.processes.values()))

    async def _stop_all(self) -> None:
        """Stop in reverse order of start; processes that ignore SIGTERM are killed."""
        for supervised in reversed(self.processes.values()):
            if supervised.process is not None and supervised.pid is not None:
                await self._stop(supervised, supervised.process)
            if supervised.state is not ProcessState.DONE:
                self._set(supervised, ProcessState.STOPPED)

    async def _stop(
        self, supervised: SupervisedProcess, process: asyncio.subprocess.Process
    ) -> None:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(supervised.spec.stop_grace):
                await process.wait()
        except TimeoutError:
            self._say(f"{supervised.spec.name} did not stop in time: killed")
        _signal_group(supervised, signal.SIGKILL)
        await process.wait()


def _signal_group(supervised: SupervisedProcess, number: signal.Signals) -> None:
    """Signal a process and its descendants: each process was started in its own session."""
    if supervised.process is not None:
        try:
            os.killpg(supervised.process.pid, number)
        except ProcessLookupError:
            return


def exit_description(status: int) -> str:
    """How a process ended, as a clause."""
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"exited with status {status}"
