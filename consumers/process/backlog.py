"""The lag of a consumer: measured and logged periodically."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from adapters.errors import Unavailable
from adapters.progress import server_is_away

logger = logging.getLogger("consumers")

LAG_SECONDS: Final = 15.0
LAG_DEADLINE_SECONDS: Final = 10.0


class Member(Protocol):
    """The part of `ConsumerLoop` that is used here."""

    async def broker_is_away(self) -> bool:
        """See `ConsumerLoop.broker_is_away`."""
        ...

    async def unread(self) -> int:
        """See `ConsumerLoop.unread`."""
        ...


class Backlog:
    """The number of records that a member has not read yet, as last measured."""

    def __init__(self) -> None:
        self.unread = 0

    async def follow(self, member: Member, done: Callable[[], object]) -> None:
        """Measure every `LAG_SECONDS`, and log the lag with `done()` whenever that has changed.

        Raises:
            RebalanceFailed: the assigned partitions are unknown.
        """
        reported = str(done())
        while True:
            await asyncio.sleep(LAG_SECONDS)
            # Always checked: while the member rejoins, `unread` makes no request that could fail.
            if await member.broker_is_away():
                server_is_away("Kafka", "does not answer")
                continue
            try:
                async with asyncio.timeout(LAG_DEADLINE_SECONDS):
                    self.unread = await member.unread()
            except (Unavailable, TimeoutError) as error:
                # The broker answers another connection, so if this lasts, the consumer is broken.
                self.unread = max(self.unread, 1)
                logger.warning("the lag is unknown: %s", error or "no answer in time")
                continue
            if (now := str(done())) != reported:
                reported = now
                logger.info("lag %d; %s", self.unread, now)
