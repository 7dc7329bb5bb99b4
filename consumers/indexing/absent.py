"""What becomes of pictures whose published content is not to be had.

newer record in the log            superseded: that record says what is true now
root, mount, bucket or disk away   waited for, as for a server: nothing is known of the picture
otherwise                          looked for a few times, then a dead letter of class `Vanished`

What cannot be read, because its disk fails or takes too long, is not to be had either: the disk
may be gone, or hang. Where its place answers, it is that file: a bad sector.

A dead letter of this class is settled by the picture's next record, or tried again when the file
is back. Should most of the last pictures have vanished, then something else has: that is waited
for, too, until the files or their removals come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from adapters.errors import Unavailable
from adapters.log.dead_letter_reader import VANISHED
from adapters.log.port import EventLog
from consumers.indexing.batch import Absent, Prepared, Wanted
from consumers.indexing.failures import BadShare, Poison, RetryPolicy
from consumers.indexing.newer_records import NewerRecords
from consumers.indexing.roots import Roots
from consumers.indexing.settings import IndexingSettings

LOOK_AGAIN_SECONDS: Final = 1.0
"""Before the second look, twice as much before the third. A watcher that saw the file go, or
change, has published that by then."""

PLACE_SECONDS: Final = 30.0
"""So long a place may take to say whether it is there; one whose server hangs never says."""

Infer = Callable[[Sequence[Wanted], Prepared], Awaitable[list[Absent]]]


class AbsentPictures:
    """Decides what absent pictures are, batch by batch."""

    def __init__(self, settings: IndexingSettings, log: EventLog) -> None:
        self._attempts = settings.max_attempts
        self._retry = RetryPolicy(settings.retry_initial, settings.retry_maximum)
        self._roots = Roots(settings)
        # Of its own and only one, as a place that hangs keeps the thread that asks it.
        self._asking = ThreadPoolExecutor(1)
        self._newer = NewerRecords(log)
        self._recent = BadShare(settings.poison_share, settings.poison_window)

    def close(self) -> None:
        """Ask no place any more."""
        self._asking.shutdown(wait=False, cancel_futures=True)

    def found(self, count: int) -> None:
        """So many pictures were where they should be."""
        self._recent.note(good=count, bad=0)

    async def settle(self, absent: Sequence[Absent], prepared: Prepared, infer: Infer) -> None:
        """Add to `prepared` what becomes of these; `infer` tries to read them again."""
        left = list(absent)
        looks = 1
        look_first = False

        async def decide() -> None:
            nonlocal left, looks, look_first
            while True:
                if look_first:
                    before = len(left)
                    left = await infer([each.wanted for each in left], prepared)
                    self.found(before - len(left))
                    # Where some have come back, the others may be about to.
                    looks = looks + 1 if len(left) == before else 1
                look_first = True
                left = await self._not_overtaken(left, prepared)
                if not left:
                    return
                if (reason := await self._what_is_away(left)) is not None:
                    looks = 0
                    raise Unavailable(reason)
                if looks >= self._attempts:
                    self._doubt(left)
                    return
                again = LOOK_AGAIN_SECONDS * 2 ** (looks - 1)
                await asyncio.sleep(min(again, self._retry.maximum))

        if left:
            await self._retry.until_available(decide, "pictures that are not there")
        self._recent.note(good=0, bad=len(left))
        prepared.poison += [
            Poison(each.wanted.record, each.wanted.event.image_id, VANISHED, each.reason, looks)
            for each in left
        ]

    async def _not_overtaken(self, absent: Sequence[Absent], prepared: Prepared) -> list[Absent]:
        overtaken = await self._newer.overtaken([each.wanted.record for each in absent])
        prepared.superseded += len(overtaken)
        return [each for each in absent if each.wanted.record.position not in overtaken]

    async def _what_is_away(self, absent: Sequence[Absent]) -> str | None:
        said = next((each.reason for each in absent if each.storage_is_away), None)
        if said is not None:
            return said
        events = [each.wanted.event for each in absent]
        asked = asyncio.get_running_loop().run_in_executor(
            self._asking, self._roots.missing, events
        )
        try:
            return await asyncio.wait_for(asked, PLACE_SECONDS)
        except TimeoutError:
            return f"{absent[0].reason}, and its place does not answer"

    def _doubt(self, absent: Sequence[Absent]) -> None:
        if self._recent.is_too_high(len(absent)):
            raise Unavailable(
                f"{absent[0].reason}, as are most of the last pictures: is part of a disk missing?"
            )
