"""Detects a process that makes no progress although it is alive or busy.

An `Activity` reports how much work is waiting or in flight, and a value that changes with each
progress. The `Watchdog` checks all activities of a process. While there is work and no progress,
a clock runs; when it reaches `stuck_seconds`, the process ends with `Stuck`, to be restarted. A
call in flight does not stop the clock: the watchdog exists because some calls never return.

An unavailable server is no reason to restart. All waits for servers are in
`adapters.retry.until_available`, which reports each failed attempt here. That resets the clock, so
it reaches the limit only if an attempt never ends.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

logger = logging.getLogger(__name__)

BEAT_SECONDS: Final = 2.0
END_SECONDS: Final = 30.0
"""How long a stuck process may take to shut down before it is killed."""


class Stuck(Exception):
    """There is work and every server is available, but no progress: a restart may help."""


@dataclass(frozen=True, slots=True)
class Outage:
    """A server that an activity waits for, why, and since when (`time.monotonic`)."""

    what: str
    reason: str
    since: float


class Activity:
    """One kind of work of a process.

    Args:
        name: its name in the log.
        pending: returns the amount of work that is waiting or in flight; 0 if there is none.
        achieved: returns a value that changes with each progress.
    """

    def __init__(
        self, name: str, *, pending: Callable[[], int], achieved: Callable[[], object]
    ) -> None:
        self.name = name
        self.quiet = 0.0
        """Seconds with work but without progress, while every server was available."""
        self.outage: Outage | None = None
        self._pending = pending
        self._achieved = achieved
        self._last = achieved()
        self._server_failed = False
        self._next_try = 0.0

    @contextmanager
    def here(self) -> Iterator[None]:
        """Attribute outages to this activity, in the block and in tasks created there."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)

    def waits(self, what: str, reason: str, pause: float = 0.0) -> None:
        """A server has just been unavailable; it is tried again in `pause` seconds."""
        self._server_failed = True
        self._next_try = time.monotonic() + pause
        since = time.monotonic() if self.outage is None else self.outage.since
        self.outage = Outage(what, reason, since)

    def update(self, elapsed: float) -> None:
        """Check for progress since the last call, `elapsed` seconds ago."""
        achieved = self._achieved()
        if achieved != self._last:
            self._last, self.outage, self.quiet = achieved, None, 0.0
        elif self._server_failed or time.monotonic() < self._next_try or not self._pending():
            self.quiet = 0.0
        else:
            self.quiet += elapsed
        self._server_failed = False

    def describe(self) -> str:
        """The message of `Stuck`."""
        text = f"{self.name}: {self._pending()} waiting or in flight, no progress"
        return f"{text} for {self.quiet:.0f} s"


_CURRENT: ContextVar[Activity | None] = ContextVar("activity", default=None)


def server_is_away(what: str, reason: str, pause: float = 0.0) -> None:
    """Report to the current activity, if there is one, that a server is unavailable.

    It is tried again in `pause` seconds.
    """
    if (activity := _CURRENT.get()) is not None:
        activity.waits(what, reason, pause)


class Watchdog:
    """Checks the activities of this process, and touches its ready file, every `BEAT_SECONDS`.

    Args:
        activities: all activities of the process.
        stuck_seconds: longest time without progress.
        ready_file: touched at each check after `ready`, as long as nothing is stuck.
        end_process: also kill the process, with the stacks of its threads in the log, if its event
            loop is blocked, or if a thread keeps it from ending after `Stuck`. Only for the main
            function of a process.
    """

    def __init__(
        self,
        activities: Sequence[Activity],
        *,
        stuck_seconds: float,
        ready_file: Path | None = None,
        end_process: bool = False,
    ) -> None:
        self._activities = activities
        self._stuck_seconds = stuck_seconds
        self._ready_file = ready_file
        self._end_process = end_process
        self._is_ready = False
        self._written = ""

    def ready(self) -> None:
        """The process is ready: touch the ready file from now on."""
        self._is_ready = True
        self._touch()

    def _touch(self) -> None:
        if self._is_ready and self._ready_file is not None:
            # One line for each server that the process waits for; the `status` command shows them.
            outages = [each.outage for each in self._activities if each.outage is not None]
            lines = (" ".join(f"{o.what}: {o.reason}".split()) for o in outages)
            text = "".join(f"{line}\n" for line in lines)
            self._ready_file.touch()
            if text != self._written:
                # A full disk must not end the process.
                with suppress(OSError):
                    self._ready_file.write_text(text)
                    self._written = text

    async def run(self) -> NoReturn:
        """Watch until cancelled.

        Raises:
            Stuck: an activity has made no progress for too long.
        """
        try:
            await self._run()
        except Stuck:
            self._end_in(END_SECONDS)
            raise
        except BaseException:
            if self._end_process:
                faulthandler.cancel_dump_traceback_later()
            raise

    async def _run(self) -> NoReturn:
        checked = time.monotonic()
        while True:
            self._end_in(self._stuck_seconds + BEAT_SECONDS)
            self._touch()
            await asyncio.sleep(BEAT_SECONDS)
            # Limited, as a process that was suspended for a while was not idle.
            elapsed = min(time.monotonic() - checked, 2 * BEAT_SECONDS)
            checked = time.monotonic()
            self.check(elapsed)

    def check(self, elapsed: float) -> None:
        """Check each activity, `elapsed` seconds after the last check.

        Raises:
            Stuck: an activity has made no progress for too long.
        """
        for activity in self._activities:
            activity.update(elapsed)
            if activity.quiet > self._stuck_seconds:
                raise Stuck(activity.describe())

    def _end_in(self, seconds: float) -> None:
        if self._end_process:
            faulthandler.dump_traceback_later(seconds, exit=True)
