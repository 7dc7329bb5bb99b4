"""Handle images whose published content cannot be read.

newer record in the log             superseded: the newer record decides
root, mount, bucket or disk absent  retry without limit, as for an unavailable server
otherwise                           retry a few times, then dead-letter as `Vanished`

A read that fails or times out counts as unreadable too: the disk may be gone or hang. If the
image's root and mount answer, only the file itself is bad (a bad sector, for instance).

Such a dead letter is settled by the image's next record, or can be retried once the file is back.
If most of the recent images have vanished, the cause is probably a missing disk: then the consumer
waits until the files, or events of their removal, arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from adapters.errors import Unavailable
from adapters.log.dead_letter_reader import VANISHED
from adapters.log.port import EventLog
from consumers.indexing.batch import AbsentImage, ImageToIndex, PreparedBatch
from consumers.indexing.failures import FailureShare, Poison, RetryPolicy
from consumers.indexing.newer_records import NewerRecords
from consumers.indexing.roots import Roots
from consumers.indexing.settings import IndexingSettings

FIRST_RETRY_SECONDS: Final = 1.0
"""Pause before the second attempt; it doubles for each further one. By then a watcher that saw the
file change or disappear has published that."""

ROOT_CHECK_SECONDS: Final = 30.0
"""Time limit for checking a root or mount; on a hanging network file system the check blocks."""

Infer = Callable[[Sequence[ImageToIndex], PreparedBatch], Awaitable[list[AbsentImage]]]


class AbsentImages:
    """Decides, batch by batch, what becomes of absent images."""

    def __init__(self, settings: IndexingSettings, log: EventLog) -> None:
        self._attempts = settings.max_attempts
        self._retry = RetryPolicy(settings.retry_initial, settings.retry_maximum)
        self._roots = Roots(settings)
        # A dedicated thread: a check of a hanging file system blocks it for good.
        self._checks = ThreadPoolExecutor(1)
        self._newer = NewerRecords(log)
        self._recent = FailureShare(settings.poison_share, settings.poison_window)

    def close(self) -> None:
        """Cancel pending checks of roots and mounts."""
        self._checks.shutdown(wait=False, cancel_futures=True)

    def found(self, count: int) -> None:
        """Note that `count` images were read."""
        self._recent.note(good=count, bad=0)

    async def settle(
        self, absent: Sequence[AbsentImage], prepared: PreparedBatch, infer: Infer
    ) -> None:
        """Retry the absent images with `infer`, and add the outcome of each to `prepared`."""
        left = list(absent)
        attempts = 1
        read_first = False

        async def decide() -> None:
            nonlocal left, attempts, read_first
            while True:
                if read_first:
                    before = len(left)
                    left = await infer([each.wanted for each in left], prepared)
                    self.found(before - len(left))
                    # If some files have come back, the others may follow: start counting again.
                    attempts = attempts + 1 if len(left) == before else 1
                read_first = True
                left = await self._without_superseded(left, prepared)
                if not left:
                    return
                if (reason := await self._missing_root(left)) is not None:
                    attempts = 0
                    raise Unavailable(reason)
                if attempts >= self._attempts:
                    self._check_share(left)
                    return
                pause = FIRST_RETRY_SECONDS * 2 ** (attempts - 1)
                await asyncio.sleep(min(pause, self._retry.maximum))

        if left:
            await self._retry.until_available(decide, "read missing pictures")
        self._recent.note(good=0, bad=len(left))
        prepared.poison += [
            Poison(each.wanted.record, each.wanted.event.image_id, VANISHED, each.reason, attempts)
            for each in left
        ]

    async def _without_superseded(
        self, absent: Sequence[AbsentImage], prepared: PreparedBatch
    ) -> list[AbsentImage]:
        superseded = await self._newer.find_superseded([each.wanted.record for each in absent])
        prepared.superseded += len(superseded)
        return [each for each in absent if each.wanted.record.position not in superseded]

    async def _missing_root(self, absent: Sequence[AbsentImage]) -> str | None:
        """The reason why a root, mount or bucket of these images is unavailable; None if all are
        there."""
        reason = next((each.reason for each in absent if each.storage_is_away), None)
        if reason is not None:
            return reason
        events = [each.wanted.event for each in absent]
        check = asyncio.get_running_loop().run_in_executor(
            self._checks, self._roots.find_missing, events
        )
        try:
            return await asyncio.wait_for(check, ROOT_CHECK_SECONDS)
        except TimeoutError:
            return f"{absent[0].reason}, and its storage does not respond"

    def _check_share(self, absent: Sequence[AbsentImage]) -> None:
        if self._recent.is_too_high(len(absent)):
            raise Unavailable(
                f"{absent[0].reason}, like most of the recent pictures: is part of a disk missing?"
            )
