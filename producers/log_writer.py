"""Publishes in order, for as long as it takes, one batch ahead of whoever feeds it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from adapters.errors import Rejected
from adapters.log.port import EventLog, Message
from adapters.retry import until_available
from schemas.topics import IMAGES

logger = logging.getLogger(__name__)

Refused = Callable[[str, str], Awaitable[None]]
"""Told the key and the reason of a message that can never be written."""


class Writer:
    """Writes to `images`. A broker that is down holds up the batch, which is kept and retried.

    At most two batches are in memory: the one on its way and the one that waits to be handed over.
    """

    def __init__(self, log: EventLog, refused: Refused) -> None:
        self._log = log
        self._refused = refused
        self._flight: asyncio.Task[None] | None = None
        self.written = 0
        """Batches that are durable."""

    @property
    def busy(self) -> bool:
        """Whether a batch is on its way."""
        return self._flight is not None and not self._flight.done()

    async def write(self, messages: Sequence[Message]) -> None:
        """Hand over a batch; returns when the batch before it is durable."""
        if not messages:
            return
        await self.flushed()
        self._flight = asyncio.create_task(self._publish(messages))

    async def flushed(self) -> None:
        """Wait until all that was handed over is durable."""
        if self._flight is not None:
            # Shielded: one of several that wait being cancelled must not lose the batch.
            await asyncio.shield(self._flight)
            self._flight = None

    async def close(self) -> None:
        """Give up on what is still on its way; the next start finds it missing in the log."""
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.gather(self._flight, return_exceptions=True)
            self._flight = None

    async def _publish(self, messages: Sequence[Message]) -> None:
        try:
            await until_available(
                lambda: self._log.publish(IMAGES, messages), what=f"publish {len(messages)} changes"
            )
            self.written += 1
        except Rejected as error:
            if len(messages) == 1:
                await self._refused(messages[0].key, str(error))
                return
            for message in messages:
                await self._publish([message])
