"""What happens when a group's partitions are given out anew, so that no error of it is lost.

aiokafka logs whatever a rebalance callback raises and goes on, as if the callback had done its
work; a consumer then reads from places that nobody chose, and throws away what it reads. So an
error is kept here, for the next call to raise.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka import ConsumerRebalanceListener, TopicPartition

logger = logging.getLogger(__name__)


class RebalanceFailed(Exception):
    """A rebalance callback failed: the member must leave its group and join anew."""


class Rebalances(ConsumerRebalanceListener):  # type: ignore[misc]
    """Base of every listener of ours. A subclass says what is to be done, in `revoked` and
    `assigned`, and calls `check` before it uses what the consumer gives."""

    def __init__(self) -> None:
        self._failure: RebalanceFailed | None = None
        self.rebalancing = True
        """Whether our partitions are not known, as the group is forming anew."""

    @abstractmethod
    async def revoked(self, partitions: list[TopicPartition]) -> None:
        """Before these partitions are given away."""

    @abstractmethod
    async def assigned(self, partitions: list[TopicPartition]) -> None:
        """Once it is known which partitions are this member's."""

    def failed(self, error: RebalanceFailed) -> None:
        """A callback has raised, or was cancelled; called once, for those who are not asked."""

    def check(self) -> None:
        """Return if no callback has failed.

        Raises:
            RebalanceFailed: one has.
        """
        if self._failure is not None:
            raise RebalanceFailed(str(self._failure)) from self._failure.__cause__

    async def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:
        """Called by aiokafka."""
        self.rebalancing = True
        with self._kept():
            await self.revoked(revoked)

    async def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        """Called by aiokafka."""
        with self._kept():
            await self.assigned(assigned)
        self.rebalancing = False

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            # Cancelled work is unfinished as well.
            self._keep_failure(error)
            raise

    def _keep_failure(self, error: BaseException) -> None:
        """Let every later `check` raise this error, unless there was one before it."""
        if self._failure is None:
            self._failure = RebalanceFailed(f"{type(error).__name__}: {error}")
            self._failure.__cause__ = error
            self.failed(self._failure)
