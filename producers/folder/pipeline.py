"""Compares findings with the known images and publishes the differences; nothing else does.

All paths pass through a single sequence of batches, so of two changes of one image the later is
always published last. While one batch is decided, the next is examined. An examination depends on
the known image, so no image is in two batches at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from adapters.log.port import Message
from producers.events import removal
from producers.folder.examination import ParallelExaminer
from producers.folder.hashing import (
    Candidate,
    Finding,
    Gone,
    NotAnImage,
    Present,
    TooLarge,
    Unreadable,
    Unsettled,
    skip_of,
)
from producers.folder.mount_points import MountPoints
from producers.folder.settling import PATIENCE_SECONDS, Settling, Waiting
from producers.guard import RemovalGuards
from producers.known_image import FileStat, KnownImage
from producers.log.known_images import KnownImages
from producers.log.refused_files import RefusalReporter
from producers.log.writer import ChangeWriter
from producers.paths import is_utf8
from producers.rules import Rules
from producers.skipped import SkippedFiles

logger = logging.getLogger(__name__)

BATCH: Final = 2048
BACKLOG: Final = 4 * BATCH
"""Paths that may wait for the examiner; a scan that is further ahead waits."""
BATCHES_IN_FLIGHT: Final = 2
"""Batches that are examined or decided at the same time."""
REMOVAL_QUIET_SECONDS: Final = 0.2
REMOVAL_WAIT_SECONDS: Final = 1.5
"""Removals are published after `REMOVAL_QUIET_SECONDS` without another one, and at the latest after
`REMOVAL_WAIT_SECONDS`, so that removals that belong together are judged together."""


@dataclass
class ChangeCounters:
    """Counts of what this process has done so far."""

    added: int = 0
    removed: int = 0
    unchanged: int = 0
    refused: int = 0
    unreadable: set[str] = field(default_factory=set)


_Batch = list[tuple[Candidate, Waiting | None]]


@dataclass(slots=True)
class _Examined:
    batch: _Batch
    findings: asyncio.Future[list[Finding]]


class ChangePipeline:
    """Takes paths, examines them in threads, and publishes what differs from the known images."""

    def __init__(
        self,
        *,
        state: KnownImages,
        rules: Callable[[], Rules],
        examiner: ParallelExaminer,
        writer: ChangeWriter,
        refusals: RefusalReporter,
        guard: RemovalGuards,
        settling: Settling,
        id_prefix: str,
        removable: Callable[[], Awaitable[bool]],
        mounts: MountPoints,
        skipped: SkippedFiles | None = None,
    ) -> None:
        self._state = state
        self._rules = rules
        self._examiner = examiner
        self._writer = writer
        self._refusals = refusals
        self._guard = guard
        self._settling = settling
        self._id_prefix = id_prefix
        self._removable = removable
        self._mounts = mounts
        self._skipped = skipped or SkippedFiles()
        self._backlog: deque[str] = deque()
        self._removals: dict[str, float] = {}
        self._newest_removal = 0.0
        self._wake = asyncio.Event()
        self._progress = asyncio.Condition()
        self._in_flight: deque[_Examined] = deque()
        self._busy = False
        self.counters = ChangeCounters()

    @property
    def waiting(self) -> int:
        """Number of paths still to be examined or published."""
        return len(self._backlog) + len(self._settling) + len(self._removals)

    @property
    def at_work(self) -> int:
        """Number of paths and batches that are being examined or published now."""
        return len(self._backlog) + len(self._in_flight) + self._busy + self._writer.busy

    @property
    def steps(self) -> object:
        """Changes with each progress of that work."""
        return (self._examiner.examined, self._writer.written)

    def touched(
        self, path: str, *, writing: bool | None = None, seen: FileStat | None = None
    ) -> None:
        """Note a change of this path."""
        self._settling.touch(path, time.monotonic(), writing=writing, seen=seen)
        self._wake.set()

    async def submit(self, paths: Iterable[str]) -> None:
        """Queue these to be examined; waits while the queue is full."""
        for path in paths:
            if len(self._backlog) >= BACKLOG:
                async with self._progress:
                    await self._progress.wait_for(lambda: len(self._backlog) < BACKLOG)
            self._backlog.append(path)
            self._wake.set()

    async def drain(self) -> None:
        """Wait until everything submitted is published (but not paths that are still settling)."""
        async with self._progress:
            await self._progress.wait_for(
                lambda: not (self._backlog or self._in_flight or self._removals or self._busy)
            )
        await self._writer.flush()

    async def process(self, paths: Iterable[str]) -> None:
        """Submit these, and wait until everything is published."""
        await self.submit(paths)
        await self.drain()

    async def finish_batches(self) -> None:
        """Wait until the batches now in flight are decided, so that a scan sees their results."""
        batches = list(self._in_flight)
        async with self._progress:
            await self._progress.wait_for(
                lambda: not any(batch is each for batch in batches for each in self._in_flight)
            )

    async def run(self) -> None:
        """Run until cancelled."""
        try:
            while True:
                self._busy = True
                self._start_examining()
                idle = not self._in_flight
                if self._in_flight:
                    examined = self._in_flight[0]
                    await self._decide(examined.batch, await examined.findings)
                    self._in_flight.popleft()
                # Findings are decided before any removal of the same paths.
                if not self._in_flight:
                    await self._remove()
                self._busy = False
                async with self._progress:
                    self._progress.notify_all()
                if idle:
                    await self._writer.flush()
                    await self._sleep()
        finally:
            for each in self._in_flight:
                each.findings.cancel()

    def _start_examining(self) -> None:
        while len(self._in_flight) < BATCHES_IN_FLIGHT and not (
            self._in_flight and self._removal_is_due()
        ):
            busy = {candidate.path for each in self._in_flight for candidate, _ in each.batch}
            batch = self._take(busy)
            if not batch:
                return
            candidates = [candidate for candidate, _ in batch]
            findings = self._examiner.examine(candidates, self._rules())
            self._in_flight.append(_Examined(batch, asyncio.ensure_future(findings)))

    def _take(self, busy: Container[str]) -> _Batch:
        moment = time.monotonic()
        mounts = self._mounts
        batch: _Batch = []
        for path, waiting in self._settling.take_due(moment, BATCH, busy):
            candidate = Candidate(
                path,
                self._state.get(path),
                hash_always=True,
                seen=waiting.seen,
                quiet=self._settling.quiet_seconds,
                maybe_open=waiting.maybe_open,
                patience_over=moment - waiting.unchanged_since > PATIENCE_SECONDS,
                mount=mounts.of(path),
            )
            batch.append((candidate, waiting))
        taken = {candidate.path for candidate, _ in batch}
        while self._backlog and len(batch) < BATCH and self._backlog[0] not in busy:
            path = self._backlog.popleft()
            if path not in taken:
                taken.add(path)
                known = self._state.get(path)
                batch.append((Candidate(path, known, mount=mounts.of(path)), None))
        return batch

    async def _decide(self, batch: _Batch, findings: Sequence[Finding]) -> None:
        added: list[Message] = []
        moment = time.monotonic()
        self._skipped.record(skip_of(each) for each in findings if not isinstance(each, Unsettled))
        for (candidate, waiting), finding in zip(batch, findings, strict=True):
            path = finding.path
            if not isinstance(finding, Gone | NotAnImage):
                self._removals.pop(path, None)
            if not isinstance(finding, Unreadable):
                self.counters.unreadable.discard(path)
            match finding:
                case Present() if not is_utf8(path):
                    await self._refuse(path, "InvalidName", "the name is not UTF-8")
                case Present():
                    known = KnownImage(finding.sha256, finding.stat, mount=candidate.mount)
                    self._state.put(path, known)
                    if finding.event is None:
                        self.counters.unchanged += 1
                    else:
                        added.append(Message(self._id_prefix + path, finding.event))
                case Gone() | NotAnImage():
                    if self._state.get(path) is not None:
                        self._removals.setdefault(path, moment)
                        self._newest_removal = moment
                case Unsettled():
                    self._settling.again(
                        path,
                        waiting or Waiting(0.0, unchanged_since=moment),
                        finding.stat,
                        moment,
                    )
                case Unreadable():
                    if path not in self.counters.unreadable:
                        logger.warning("cannot read %r: %s", path, finding.reason)
                    self.counters.unreadable.add(path)
                case TooLarge():
                    await self._refuse(path, "TooLarge", finding.reason)
        self.counters.added += len(added)
        await self._writer.write(added)

    async def _refuse(self, path: str, error_class: str, reason: str) -> None:
        self.counters.refused += 1
        await self._refusals.report(self._id_prefix + path, error_class, reason)
        if self._state.get(path) is not None:
            # The image that was published under this path no longer exists.
            self._state.remove(path)
            await self._writer.write([removal(self._id_prefix + path)])

    async def _remove(self) -> None:
        moment = time.monotonic()
        if not self._removal_is_due():
            return
        missing = list(self._removals)
        self._removals.clear()
        # Checked last, so that it notices a root that has disappeared meanwhile. The scan after the
        # root's return finds the removals that are skipped now.
        if not await self._removable():
            return
        left_out, missing = self._rules().split_system_paths(missing)
        await self._publish_removals(left_out)
        missing = self._guard.admitted(missing, self._state, moment)
        self._guard.count([self._state.get(path) for path in missing], moment)
        await self._publish_removals(missing)

    async def _publish_removals(self, paths: Sequence[str]) -> None:
        self.counters.removed += len(paths)
        for start in range(0, len(paths), BATCH):
            part = paths[start : start + BATCH]
            for path in part:
                self._state.remove(path)
            await self._writer.write([removal(self._id_prefix + path) for path in part])

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
