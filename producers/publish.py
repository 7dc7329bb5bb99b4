"""The one place that decides and publishes: what was found at a path against what is known of it.

Everything passes through a single sequence of batches, so that of two things that happened to one
picture the later is always published last. The next batch is looked at while one is decided; as a
look starts from what is known, no picture is in two batches at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from adapters.event_log import Message
from producers.announce import removal
from producers.dead_letters import DeadLetters
from producers.examination import Examination
from producers.guard import Guards
from producers.hashing import (
    Candidate,
    Finding,
    Gone,
    NoPicture,
    Present,
    TooLarge,
    Unreadable,
    Unsettled,
    look_of,
)
from producers.mounts import MountPoints
from producers.passed import Passed
from producers.rules import Rules
from producers.settling import PATIENCE_SECONDS, Settling, Waiting
from producers.state import State
from producers.tree import FileStat, Known, is_utf8
from producers.writer import Writer

logger = logging.getLogger(__name__)

BATCH: Final = 2048
BACKLOG: Final = 4 * BATCH
"""Paths a scan may be ahead of the examination; beyond it the scan waits."""
AHEAD: Final = 2
"""Batches that are looked at or decided at the same time."""
REMOVAL_QUIET_SECONDS: Final = 0.2
REMOVAL_WAIT_SECONDS: Final = 1.5
"""A removal waits until none has followed for the first of these, at most for the second, so that
removals that belong together are judged together."""


@dataclass
class Counters:
    """What this process has done so far."""

    added: int = 0
    removed: int = 0
    unchanged: int = 0
    refused: int = 0
    unreadable: set[str] = field(default_factory=set)


_Batch = list[tuple[Candidate, Waiting | None]]


@dataclass(slots=True)
class _Look:
    batch: _Batch
    findings: asyncio.Future[list[Finding]]


class Pipeline:
    """Takes paths, looks at them in threads, and publishes what differs from the state."""

    def __init__(
        self,
        *,
        state: State,
        rules: Callable[[], Rules],
        examination: Examination,
        writer: Writer,
        dead_letters: DeadLetters,
        guard: Guards,
        settling: Settling,
        id_prefix: str,
        removable: Callable[[], Awaitable[bool]],
        mounts: MountPoints,
        passed: Passed | None = None,
    ) -> None:
        self._state = state
        self._rules = rules
        self._examination = examination
        self._writer = writer
        self._dead_letters = dead_letters
        self._guard = guard
        self._settling = settling
        self._id_prefix = id_prefix
        self._removable = removable
        self._mounts = mounts
        self._passed = passed or Passed()
        self._backlog: deque[str] = deque()
        self._removals: dict[str, float] = {}
        self._newest_removal = 0.0
        self._wake = asyncio.Event()
        self._progress = asyncio.Condition()
        self._looks: deque[_Look] = deque()
        self._busy = False
        self.counters = Counters()

    @property
    def waiting(self) -> int:
        """Paths that are still to be looked at or published."""
        return len(self._backlog) + len(self._settling) + len(self._removals)

    @property
    def at_work(self) -> int:
        """Paths and batches that are being looked at or published now."""
        return len(self._backlog) + len(self._looks) + self._busy + self._writer.busy

    @property
    def steps(self) -> object:
        """Another value whenever something of that was done."""
        return (self._examination.looked_at, self._writer.written)

    def touched(
        self, image_id: str, *, writing: bool | None = None, seen: FileStat | None = None
    ) -> None:
        """Something happened to this path just now."""
        self._settling.touch(image_id, time.monotonic(), writing=writing, seen=seen)
        self._wake.set()

    async def submit(self, image_ids: Iterable[str]) -> None:
        """Have these looked at soon; waits while too many are ahead."""
        for image_id in image_ids:
            if len(self._backlog) >= BACKLOG:
                async with self._progress:
                    await self._progress.wait_for(lambda: len(self._backlog) < BACKLOG)
            self._backlog.append(image_id)
            self._wake.set()

    async def drained(self) -> None:
        """Wait until all that was submitted is published (not what is still settling)."""
        async with self._progress:
            await self._progress.wait_for(
                lambda: not (self._backlog or self._looks or self._removals or self._busy)
            )
        await self._writer.flushed()

    async def work_off(self, image_ids: Iterable[str]) -> None:
        """Have these looked at, and wait until all is published."""
        await self.submit(image_ids)
        await self.drained()

    async def decided(self) -> None:
        """Wait until all that is being looked at now is known, so that it is compared as well."""
        looks = list(self._looks)
        async with self._progress:
            await self._progress.wait_for(
                lambda: not any(look is each for look in looks for each in self._looks)
            )

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                self._busy = True
                self._look_ahead()
                idle = not self._looks
                if self._looks:
                    look = self._looks[0]
                    await self._decide(look.batch, await look.findings)
                    self._looks.popleft()
                # What a look has seen is decided before anything else is said of it.
                if not self._looks:
                    await self._remove()
                self._busy = False
                async with self._progress:
                    self._progress.notify_all()
                if idle:
                    await self._writer.flushed()
                    await self._sleep()
        finally:
            for look in self._looks:
                look.findings.cancel()

    def _look_ahead(self) -> None:
        while len(self._looks) < AHEAD and not (self._looks and self._removal_is_due()):
            busy = {candidate.image_id for look in self._looks for candidate, _ in look.batch}
            batch = self._take(busy)
            if not batch:
                return
            candidates = [candidate for candidate, _ in batch]
            findings = self._examination.examine(candidates, self._rules())
            self._looks.append(_Look(batch, asyncio.ensure_future(findings)))

    def _take(self, busy: Container[str]) -> _Batch:
        moment = time.monotonic()
        mounts = self._mounts
        batch: _Batch = []
        for image_id, waiting in self._settling.take_due(moment, BATCH, busy):
            candidate = Candidate(
                image_id,
                self._state.get(image_id),
                hash_always=True,
                seen=waiting.seen,
                quiet=self._settling.quiet_seconds,
                maybe_open=waiting.maybe_open,
                patience_over=moment - waiting.unchanged_since > PATIENCE_SECONDS,
                mount=mounts.of(image_id),
            )
            batch.append((candidate, waiting))
        taken = {candidate.image_id for candidate, _ in batch}
        while self._backlog and len(batch) < BATCH and self._backlog[0] not in busy:
            image_id = self._backlog.popleft()
            if image_id not in taken:
                taken.add(image_id)
                known = self._state.get(image_id)
                batch.append((Candidate(image_id, known, mount=mounts.of(image_id)), None))
        return batch

    async def _decide(self, batch: _Batch, findings: Sequence[Finding]) -> None:
        added: list[Message] = []
        moment = time.monotonic()
        self._passed.looked(look_of(each) for each in findings if not isinstance(each, Unsettled))
        for (candidate, waiting), finding in zip(batch, findings, strict=True):
            image_id = finding.image_id
            if not isinstance(finding, Gone | NoPicture):
                self._removals.pop(image_id, None)
            if not isinstance(finding, Unreadable):
                self.counters.unreadable.discard(image_id)
            match finding:
                case Present() if not is_utf8(image_id):
                    await self._refuse(image_id, "InvalidName", "the name is not UTF-8")
                case Present():
                    known = Known(finding.sha256, finding.stat, mount=candidate.mount)
                    self._state.put(image_id, known)
                    if finding.event is None:
                        self.counters.unchanged += 1
                    else:
                        added.append(Message(self._id_prefix + image_id, finding.event))
                case Gone() | NoPicture():
                    if self._state.get(image_id) is not None:
                        self._removals.setdefault(image_id, moment)
                        self._newest_removal = moment
                case Unsettled():
                    self._settling.again(
                        image_id,
                        waiting or Waiting(0.0, unchanged_since=moment),
                        finding.stat,
                        moment,
                    )
                case Unreadable():
                    if image_id not in self.counters.unreadable:
                        logger.warning("cannot read %r: %s", image_id, finding.reason)
                    self.counters.unreadable.add(image_id)
                case TooLarge():
                    await self._refuse(image_id, "TooLarge", finding.reason)
        self.counters.added += len(added)
        await self._writer.write(added)

    async def _refuse(self, image_id: str, error_class: str, reason: str) -> None:
        self.counters.refused += 1
        await self._dead_letters.report(self._id_prefix + image_id, error_class, reason)
        if self._state.get(image_id) is not None:
            # What was published under this id before is there no more.
            self._state.remove(image_id)
            await self._writer.write([removal(self._id_prefix + image_id)])

    async def _remove(self) -> None:
        moment = time.monotonic()
        if not self._removal_is_due():
            return
        missing = list(self._removals)
        self._removals.clear()
        # Asked last, so that a root that vanished meanwhile is noticed. What is not removed now is
        # found again by the scan that follows the root's return.
        if not await self._removable():
            return
        left_out, missing = self._rules().parted(missing)
        await self._publish_removals(left_out)
        missing = self._guard.admitted(missing, self._state, moment)
        self._guard.count([self._state.get(image_id) for image_id in missing], moment)
        await self._publish_removals(missing)

    async def _publish_removals(self, image_ids: Sequence[str]) -> None:
        self.counters.removed += len(image_ids)
        for start in range(0, len(image_ids), BATCH):
            part = image_ids[start : start + BATCH]
            for image_id in part:
                self._state.remove(image_id)
            await self._writer.write([removal(self._id_prefix + image_id) for image_id in part])

    def _removal_is_due(self) -> bool:
        return bool(self._removals) and time.monotonic() >= self._removal_time()

    def _removal_time(self) -> float:
        return min(
            self._newest_removal + REMOVAL_QUIET_SECONDS,
            min(self._removals.values(), default=0.0) + REMOVAL_WAIT_SECONDS,
        )

    async def _sleep(self) -> None:
        due = [] if (next_due := self._settling.next_due()) is None else [next_due]
        if self._removals:
            due.append(self._removal_time())
        timeout = max(min(due) - time.monotonic(), 0.0) if due else None
        try:
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()
