"""Publishes batches in order, and retries until the broker has stored them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from adapters.errors import Rejected
from adapters.log.port import EventLog, Message
from adapters.retry import until_available
from schemas.topics import IMAGES

logger = logging.getLogger(__name__)

OnRejected = Callable[[str, str], Awaitable[None]]
"""Called with the key and the reason for each message that can never be written."""


class ChangeWriter:
    """Writes to `images`. While the broker is down, the batch stays in memory and is retried.

    At most two batches are in memory: one in flight, and one whose `write` waits for it.
    """

    def __init__(self, log: EventLog, on_rejected: OnRejected) -> None:
        self._log = log
        self._on_rejected = on_rejected
        self._in_flight: asyncio.Task[None] | None = None
        self.written = 0
        """Number of durable batches."""

    @property
    def busy(self) -> bool:
        """Whether a batch is in flight."""
        return self._in_flight is not None and not self._in_flight.done()

    async def write(self, messages: Sequence[Message]) -> None:
        """Hand over a batch. Returns when the previous batch is durable."""
        if not messages:
            return
        await self.flush()
        self._in_flight = asyncio.create_task(self._publish(messages))

    async def flush(self) -> None:
        """Wait until everything that was handed over is durable."""
        if self._in_flight is not None:
            # Shielded: if one of several waiting tasks is cancelled, the batch must not be lost.
            await asyncio.shield(self._in_flight)
            self._in_flight = None

    async def close(self) -> None:
        """Cancel the batch in flight. The next start finds that it is missing in the log."""
        if self._in_flight is not None:
            self._in_flight.cancel()
            await asyncio.gather(self._in_flight, return_exceptions=True)
            self._in_flight = None

    async def _publish(self, messages: Sequence[Message]) -> None:
        try:
            await until_available(
                lambda: self._log.publish(IMAGES, messages), what=f"publish {len(messages)} changes"
            )
            self.written += 1
        except Rejected as error:
            if len(messages) == 1:
                await self._on_rejected(messages[0].key, str(error))
                return
            for message in messages:
                await self._publish([message])
