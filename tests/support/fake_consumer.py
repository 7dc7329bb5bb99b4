"""A consumer loop without a broker: stands in for FastStream and aiokafka."""

import asyncio
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition

from adapters.log.port import LogRecord
from consumers.process.consumer_loop import ConsumerLoop


class Consumer:
    """aiokafka's consumer, with one partition that holds these records."""

    def __init__(self, partition: TopicPartition, held: Sequence[Any]) -> None:
        self.partition = partition
        self.held = held
        self.position = 0
        self.paused = False
        self.committed: dict[int, tuple[int, str]] = {}

    def subscribe(self, **_: Any) -> None:
        return None

    async def start(self) -> None:
        return None

    async def stop(self) -> None:
        return None

    async def getmany(self, **options: Any) -> dict[TopicPartition, list[Any]]:
        """Return the next records and advance."""
        await asyncio.sleep(0)
        if self.paused:
            return {}
        found = self.held[self.position : self.position + options.get("max_records", 5)]
        self.position += len(found)
        return {self.partition: list(found)} if found else {}

    def seek(self, _: TopicPartition, offset: int) -> None:
        self.position = offset

    def assignment(self) -> set[TopicPartition]:
        return {self.partition}

    def pause(self, *partitions: TopicPartition) -> None:
        self.paused = bool(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        self.paused = self.paused and not partitions

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, len(self.held))

    async def commit(self, offsets: Mapping[TopicPartition, tuple[int, str]]) -> None:
        self.committed |= {each.partition: printed for each, printed in offsets.items()}


def fetched(topic: str, records: Sequence[LogRecord]) -> list[Any]:
    """These records as aiokafka returns them."""
    return [
        SimpleNamespace(
            topic=topic,
            partition=record.position.partition,
            offset=record.position.offset,
            key=record.key,
            value=record.value,
            timestamp=record.timestamp_ms,
            headers=(),
        )
        for record in records
    ]


async def poll(loop: ConsumerLoop[Any], **options: Any) -> None:
    """Run FastStream's loop once."""
    found = await loop._consumer.getmany(**options)
    if batch := tuple(record for records in found.values() for record in records):
        message: Any = SimpleNamespace(raw_message=batch)
        await loop._handle(message)
