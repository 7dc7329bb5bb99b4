"""Publishing search events to Kafka in the background."""

from __future__ import annotations

import asyncio
import logging

from adapters.errors import Rejected
from adapters.log.port import EventLog, Message
from adapters.progress import Activity
from adapters.retry import until_available
from schemas.events import SearchPerformed
from schemas.topics import SEARCHES

logger = logging.getLogger(__name__)
BATCH = 500
FLUSH_SECONDS = 10.0
LINGER_SECONDS = 0.1
"""How long an event waits for others to share its request."""


class SearchEvents:
    """A bounded buffer of events, and the task that publishes them.

    If Kafka is down for so long that the buffer is full, further events are dropped and counted:
    answering searches has priority.
    """

    def __init__(self, log: EventLog, *, capacity: int) -> None:
        self._log = log
        self._queue: asyncio.Queue[SearchPerformed] = asyncio.Queue(capacity)
        self._task: asyncio.Task[None] | None = None
        self._in_flight = 0
        self._done = 0
        self.dropped = 0
        self.activity = Activity(
            "search events",
            pending=lambda: self._queue.qsize() + self._in_flight,
            achieved=lambda: self._done,
        )

    def start(self) -> None:
        """Begin publishing."""
        with self.activity.here():
            self._task = asyncio.create_task(self._publish_all(), name="search events")

    def add(self, event: SearchPerformed) -> None:
        """Add an event to the buffer; never blocks."""
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self.dropped += 1
            # At the 1st, 2nd, 4th, 8th …: an outage must not flood the log too.
            if self.dropped & (self.dropped - 1) == 0:
                logger.error("Kafka is down: %d search events dropped so far", self.dropped)

    async def _publish_all(self) -> None:
        while True:
            events = [await self._queue.get()]
            # No request waits for these, and one message costs nearly as much as hundreds.
            await asyncio.sleep(LINGER_SECONDS)
            while len(events) < BATCH and not self._queue.empty():
                events.append(self._queue.get_nowait())
            self._in_flight = len(events)
            messages = [Message(key=str(event.search_id), event=event) for event in events]
            try:
                await until_available(
                    lambda batch=messages: self._log.publish(SEARCHES, batch),  # type: ignore[misc]
                    what="publish searches",
                )
            except Rejected:
                self.dropped += len(events)
                logger.exception("search events that Kafka rejected were dropped")
            finally:
                self._in_flight = 0
                self._done += len(events)
                for _ in events:
                    self._queue.task_done()

    async def stop(self) -> None:
        """Publish the events in the buffer, for at most `FLUSH_SECONDS`, and stop."""
        if self._task is None:
            return
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._queue.join()
        except TimeoutError:
            logger.error("%d search events could not be flushed", self._queue.qsize())
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
