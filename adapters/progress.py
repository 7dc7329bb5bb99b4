"""Whether a process gets on with its work. That it lives, or is busy, says nothing.

An `Activity` is one line of work: it tells how much is waiting or in flight, and what was achieved
so far. The `Watchdog` looks at all activities of a process. While there is work and nothing is
achieved, a clock runs; when it reaches `stuck_seconds` the process ends with `Stuck`, to be started
again. Whether a call is in flight makes no difference: a call that never returns is what this is
for.

A server that is known to be away is no reason to restart. Waits for servers happen in one place,
`adapters.retry.until_available`, which reports each failed attempt here; that sets the clock back,
so the clock only runs on where an attempt itself never ends.
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
"""How long a process that is stuck may take to end in order before it is ended without."""


class Stuck(Exception):
    """There is work, no server is known to be away, and nothing is achieved: a restart may help."""


@dataclass(frozen=True, slots=True)
class Outage:
    """A server that an activity waits for, why, and since when (`time.monotonic`)."""

    what: str
    reason: str
    since: float


class Activity:
    """One line of work of a process.

    Args:
        name: what it is called in the log.
        pending: how much is waiting or in flight; 0 if there is nothing to do.
        achieved: anything that differs from its former value whenever something was achieved.
    """

    def __init__(
        self, name: str, *, pending: Callable[[], int], achieved: Callable[[], object]
    ) -> None:
        self.name = name
        self.quiet = 0.0
        """Seconds with work to do in which nothing was achieved and no server known to be away."""
        self.outage: Outage | None = None
        self._pending = pending
        self._achieved = achieved
        self._last = achieved()
        self._server_failed = False
        self._next_try = 0.0

    @contextmanager
    def here(self) -> Iterator[None]:
        """Servers found away within the block, and in tasks created there, concern this one."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)

    def waits(self, what: str, reason: str, pause: float = 0.0) -> None:
        """A server has just been found to be away; it is tried again in `pause` seconds."""
        self._server_failed = True
        self._next_try = time.monotonic() + pause
        since = time.monotonic() if self.outage is None else self.outage.since
        self.outage = Outage(what, reason, since)

    def look(self, elapsed: float) -> None:
        """Compare with the last look, `elapsed` seconds ago."""
        achieved = self._achieved()
        if achieved != self._last:
            self._last, self.outage, self.quiet = achieved, None, 0.0
        elif self._server_failed or time.monotonic() < self._next_try or not self._pending():
            self.quiet = 0.0
        else:
            self.quiet += elapsed
        self._server_failed = False

    def describe(self) -> str:
        """What is to be said of it when it is stuck."""
        text = f"{self.name}: {self._pending()} waiting or in flight, nothing achieved"
        return f"{text} for {self.quiet:.0f} s"


_CURRENT: ContextVar[Activity | None] = ContextVar("activity", default=None)


def server_is_away(what: str, reason: str, pause: float = 0.0) -> None:
    """Tell the activity that this belongs to, if any, that a server does not answer now.

    It is tried again in `pause` seconds.
    """
    if (activity := _CURRENT.get()) is not None:
        activity.waits(what, reason, pause)


class Watchdog:
    """Looks at the activities of this process every `BEAT_SECONDS`, and keeps its heartbeat.

    Args:
        activities: all that the process does.
        stuck_seconds: longest time without an achievement.
        ready_file: touched at each look at which all is well, from `ready` on.
        end_process: also end the process, with the stacks of its threads in the log, when its
            event loop is blocked, or when it does not end after `Stuck` because a thread never
            returns. Only for a process's own main.
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
        self._said = ""

    def ready(self) -> None:
        """The process is ready: say so, and keep saying so."""
        self._is_ready = True
        self._touch()

    def _touch(self) -> None:
        if self._is_ready and self._ready_file is not None:
            # A line for each server that is waited for: `status` shows them.
            outages = [each.outage for each in self._activities if each.outage is not None]
            lines = (" ".join(f"{o.what}: {o.reason}".split()) for o in outages)
            said = "".join(f"{line}\n" for line in lines)
            self._ready_file.touch()
            if said != self._said:
                # On a full disk there is no room to say so, but the process is as well as before.
                with suppress(OSError):
                    self._ready_file.write_text(said)
                    self._said = said

    async def run(self) -> NoReturn:
        """Watch until cancelled.

        Raises:
            Stuck: an activity achieves nothing.
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
        looked = time.monotonic()
        while True:
            self._end_in(self._stuck_seconds + BEAT_SECONDS)
            self._touch()
            await asyncio.sleep(BEAT_SECONDS)
            # Not longer than a look takes: a process that was stopped for a while did not idle.
            elapsed = min(time.monotonic() - looked, 2 * BEAT_SECONDS)
            looked = time.monotonic()
            self.look(elapsed)

    def look(self, elapsed: float) -> None:
        """Look at each activity, `elapsed` seconds after the last time.

        Raises:
            Stuck: one achieves nothing.
        """
        for activity in self._activities:
            activity.look(elapsed)
            if activity.quiet > self._stuck_seconds:
                raise Stuck(activity.describe())

    def _end_in(self, seconds: float) -> None:
        if self._end_process:
            faulthandler.dump_traceback_later(seconds, exit=True)
