"""The one place that decides and publishes: what was found at a path against what is known of it.

Everything passes through a single sequence of batches, so that of two things that happened to one
picture the later is always published last.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from urllib.parse import quote

from adapters.event_log import Message
from producers.dead_letters import DeadLetters
from producers.examination import Examination
from producers.guard import RemovalGuard
from producers.hashing import (
    Candidate,
    Finding,
    Gone,
    Present,
    TooLarge,
    Unreadable,
    Unsettled,
)
from producers.rules import Rules, media_type
from producers.settling import PATIENCE_SECONDS, Settling, Waiting
from producers.state import State
from producers.tree import FileStat, Known, is_utf8, to_datetime
from producers.writer import Writer
from schemas.events import ImageAdded, now

logger = logging.getLogger(__name__)

BATCH: Final = 2048
BACKLOG: Final = 4 * BATCH
"""Paths a scan may be ahead of the examination; beyond it the scan waits."""
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


def addition(image_id: str, uri: str, found: Present, moment: datetime) -> Message:
    """The event of a picture that is new or has changed."""
    return Message(
        key=image_id,
        event=ImageAdded(
            occurred_at=moment,
            image_id=image_id,
            uri=uri,
            sha256=found.sha256.hex(),
            size_bytes=found.stat.size,
            media_type=media_type(image_id) or "application/octet-stream",
            modified_at=to_datetime(found.stat.modified_us),
            added_at=moment,
        ),
    )


def removal(image_id: str) -> Message:
    """The tombstone of a picture that is gone."""
    return Message(key=image_id, event=None)


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
        guard: RemovalGuard,
        settling: Settling,
        id_prefix: str,
        uri_prefix: str,
        removable: Callable[[], Awaitable[bool]],
    ) -> None:
        self._state = state
        self._rules = rules
        self._examination = examination
        self._writer = writer
        self._dead_letters = dead_letters
        self._guard = guard
        self._settling = settling
        self._id_prefix = id_prefix
        self._uri_prefix = uri_prefix
        self._removable = removable
        self._backlog: deque[str] = deque()
        self._removals: dict[str, float] = {}
        self._newest_removal = 0.0
        self._wake = asyncio.Event()
        self._progress = asyncio.Condition()
        self._busy = False
        self.counters = Counters()

    @property
    def waiting(self) -> int:
        """Paths that are still to be looked at or published."""
        return len(self._backlog) + len(self._settling) + len(self._removals)

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
                lambda: not self._backlog and not self._removals and not self._busy
            )
        await self._writer.flushed()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            batch = self._take()
            if batch:
                self._busy = True
                candidates = [candidate for candidate, _ in batch]
                findings = await self._examination.examine(candidates, self._rules())
                await self._decide(batch, findings)
            await self._remove()
            self._busy = False
            async with self._progress:
                self._progress.notify_all()
            if not batch:
                await self._writer.flushed()
                await self._sleep()

    def _take(self) -> list[tuple[Candidate, Waiting | None]]:
        moment = time.monotonic()
        batch: list[tuple[Candidate, Waiting | None]] = []
        for image_id, waiting in self._settling.take_due(moment, BATCH):
            candidate = Candidate(
                image_id,
                self._state.get(image_id),
                hash_always=True,
                seen=waiting.seen,
                quiet=self._settling.quiet_seconds,
                maybe_open=waiting.maybe_open,
                patience_over=moment - waiting.unchanged_since > PATIENCE_SECONDS,
            )
            batch.append((candidate, waiting))
        while self._backlog and len(batch) < BATCH:
            image_id = self._backlog.popleft()
            batch.append((Candidate(image_id, self._state.get(image_id)), None))
        return batch

    async def _decide(
        self, batch: Sequence[tuple[Candidate, Waiting | None]], findings: Sequence[Finding]
    ) -> None:
        added: list[Message] = []
        moment, published_at = time.monotonic(), now()
        for (candidate, waiting), finding in zip(batch, findings, strict=True):
            image_id = finding.image_id
            if not isinstance(finding, Gone):
                self._removals.pop(image_id, None)
            if not isinstance(finding, Unreadable):
                self.counters.unreadable.discard(image_id)
            match finding:
                case Present() if not is_utf8(image_id):
                    await self._refuse(image_id, "InvalidName", "the name is not UTF-8")
                case Present():
                    if message := self._addition(finding, candidate.known, published_at):
                        added.append(message)
                case Gone():
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

    def _addition(self, found: Present, known: Known | None, moment: datetime) -> Message | None:
        image_id = found.image_id
        self._state.put(image_id, Known(found.sha256, found.stat))
        if known is not None and known.sha256 == found.sha256 and known.uri_is_current:
            self.counters.unchanged += 1
            return None
        return addition(
            self._id_prefix + image_id, self._uri_prefix + quote(image_id), found, moment
        )

    async def _refuse(self, image_id: str, error_class: str, reason: str) -> None:
        self.counters.refused += 1
        await self._dead_letters.report(self._id_prefix + image_id, error_class, reason)
        if self._state.get(image_id) is not None:
            # What was published under this id before is there no more.
            self._state.remove(image_id)
            await self._writer.write([removal(self._id_prefix + image_id)])

    async def _remove(self) -> None:
        moment = time.monotonic()
        if not self._removals or moment < self._removal_time():
            return
        missing = list(self._removals)
        self._removals.clear()
        # Asked last, so that a root that vanished meanwhile is noticed. What is not removed now is
        # found again by the scan that follows the root's return.
        if not await self._removable() or not self._guard.admits(missing, self._state, moment):
            return
        self.counters.removed += len(missing)
        for start in range(0, len(missing), BATCH):
            part = missing[start : start + BATCH]
            contents = [known.sha256 for i in part if (known := self._state.get(i)) is not None]
            self._guard.count(contents, moment)
            for image_id in part:
                self._state.remove(image_id)
            await self._writer.write([removal(self._id_prefix + image_id) for image_id in part])

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
