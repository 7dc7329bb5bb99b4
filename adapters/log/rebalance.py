"""The listener for rebalances of a consumer group, which reports errors in its callbacks.

aiokafka logs an error in a rebalance callback and continues as if the callback had succeeded. The
consumer would then read from offsets that were never chosen, and drop the records. So the error is
stored here, and the next call of `check` raises it.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka import ConsumerRebalanceListener, TopicPartition

logger = logging.getLogger(__name__)


class RebalanceFailed(Exception):
    """A rebalance callback failed: the member must leave its group and rejoin."""


class Rebalances(ConsumerRebalanceListener):  # type: ignore[misc]
    """Base of every rebalance listener. A subclass implements `revoked` and `assigned`, and calls
    `check` before it uses what the consumer returns."""

    def __init__(self) -> None:
        self._failure: RebalanceFailed | None = None
        self.rebalancing = True
        """Whether a rebalance is in progress, so that this member's partitions are not known."""

    @abstractmethod
    async def revoked(self, partitions: list[TopicPartition]) -> None:
        """Called before these partitions are revoked."""

    @abstractmethod
    async def assigned(self, partitions: list[TopicPartition]) -> None:
        """Called with this member's partitions once they are assigned."""

    def failed(self, error: RebalanceFailed) -> None:
        """Called once, when a callback has raised or was cancelled; does nothing here."""

    def check(self) -> None:
        """Return if no callback has failed.

        Raises:
            RebalanceFailed: a callback has raised or was cancelled.
        """
        if self._failure is not None:
            raise RebalanceFailed(str(self._failure)) from self._failure.__cause__

    async def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:
        """Called by aiokafka."""
        self.rebalancing = True
        with self._recording_failure():
            await self.revoked(revoked)

    async def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        """Called by aiokafka."""
        with self._recording_failure():
            await self.assigned(assigned)
        self.rebalancing = False

    @contextmanager
    def _recording_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            # A cancelled callback has not finished its work, either.
            self._keep_failure(error)
            raise

    def _keep_failure(self, error: BaseException) -> None:
        """Let every later `check` raise this error, unless an earlier one is stored."""
        if self._failure is None:
            self._failure = RebalanceFailed(f"{type(error).__name__}: {error}")
            self._failure.__cause__ = error
            self.failed(self._failure)
