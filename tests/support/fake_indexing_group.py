"""The part of aiokafka's consumer that indexers use, on a log in memory."""

from collections.abc import Mapping, Sequence
from itertools import count
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata
from aiokafka.util import commit_structure_validate

from adapters.index.facts import FACTS_VERSION
from adapters.log.fake import FakeEventLog
from adapters.log.port import Message
from schemas.topics import IMAGES
from tests.support.fake_consumer import fetched


class Group:
    """A consumer, and the offsets that its group has committed."""

    def __init__(self, committed: Mapping[int, int], log: FakeEventLog | None = None) -> None:
        self.offsets = dict(committed)
        self.marks: dict[int, str] = {}
        self.positions: dict[int, int] = {}
        self._log = log or FakeEventLog()
        self._coordinator = self

    async def fetch_committed_offsets(
        self, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        return {
            each: OffsetAndMetadata(
                self.offsets[each.partition], self.marks.get(each.partition, f"{FACTS_VERSION}:")
            )
            for each in partitions
            if each.partition in self.offsets
        }

    async def committed(self, each: TopicPartition) -> int | None:
        return self.offsets.get(each.partition)

    async def commit(self, offsets: dict[TopicPartition, Any]) -> None:
        for each, (offset, mark) in commit_structure_validate(offsets).items():
            self.offsets[each.partition] = offset
            self.marks[each.partition] = mark

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        bounds = await self._log.bounds(IMAGES)
        return {each: bounds[each.partition][1] for each in partitions}

    def seek(self, each: TopicPartition, offset: int) -> None:
        self.positions[each.partition] = offset

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition(IMAGES.name, number) for number in self.positions}

    def pause(self, *_: TopicPartition) -> None:
        """Does nothing: only the test fetches."""

    def fetch(self, number: int, most: int = 1000) -> Any:
        """The next batch as FastStream's message; from the oldest record if the offset is gone."""
        held = self._log._partitions(IMAGES)[number]
        start = self.positions.get(number, self.offsets.get(number, 0))
        if start > len(held):
            start = 0
        found = held[start : start + most]
        self.positions[number] = start + len(found)
        return SimpleNamespace(raw_message=tuple(fetched(IMAGES.name, found)))

    @staticmethod
    async def fill(log: FakeEventLog, end: int, name: str = "old", partition: int = 0) -> None:
        """Append records until the partition ends at `end`."""
        number = count()
        while len(log._partitions(IMAGES)[partition]) < end:
            await log.publish(IMAGES, [Message(f"{name}{next(number)}.png", None)])
