"""How much of its log a member has still to read: asked now and then, and logged."""

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
    """What is asked of a `ConsumerLoop`."""

    async def broker_is_away(self) -> bool:
        """See `ConsumerLoop.broker_is_away`."""
        ...

    async def unread(self) -> int:
        """See `ConsumerLoop.unread`."""
        ...


class Backlog:
    """How many records of its partitions a member has not read, as last asked."""

    def __init__(self) -> None:
        self.unread = 0

    async def follow(self, member: Member, done: Callable[[], object]) -> None:
        """Ask every `LAG_SECONDS`, and log it with `done` whenever that has changed.

        Raises:
            RebalanceFailed: nobody knows what the member reads.
        """
        reported = str(done())
        while True:
            await asyncio.sleep(LAG_SECONDS)
            # Asked even if the answer is known: a member that rejoins asks the broker nothing.
            if await member.broker_is_away():
                server_is_away("Kafka", "does not answer")
                continue
            try:
                async with asyncio.timeout(LAG_DEADLINE_SECONDS):
                    self.unread = await member.unread()
            except (Unavailable, TimeoutError) as error:
                # The broker answers others, so this is the consumer's own trouble, if it lasts.
                self.unread = max(self.unread, 1)
                logger.warning("the lag is not known: %s", error or "no answer in time")
                continue
            if (now := str(done())) != reported:
                reported = now
                logger.info("lag %d; %s", self.unread, now)
