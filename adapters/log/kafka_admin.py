"""The progress of a consumer group, read from outside of the group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupIdNotFound, KafkaError, NoError, for_code
from aiokafka.protocol.admin import DeleteGroupsRequest

from adapters.errors import translated
from schemas.topics import Topic

_DOWN = (KafkaError, OSError, asyncio.TimeoutError)


@dataclass(frozen=True, slots=True)
class Progress:
    """For each partition: the next offset that the group reads, and the end of the log."""

    committed: Mapping[int, int]
    ends: Mapping[int, int]

    @property
    def lag(self) -> int:
        """Number of records to read, over all partitions; an upper bound on compacted topics."""
        return sum(max(0, end - self.committed.get(p, 0)) for p, end in self.ends.items())

    def has_read(self, partition: int, offset: int) -> bool:
        """Whether the group has committed an offset after this record."""
        return offset < self.committed.get(partition, 0)


@asynccontextmanager
async def admin_client(bootstrap_servers: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """A client that is started, and closed at the end. Its errors are aiokafka's."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def progress(bootstrap_servers: str, topic: Topic, group_id: str) -> Progress:
    """The group's progress on the topic; a group that never committed has read nothing.

    Raises:
        Unavailable: the broker does not answer.
    """
    with translated(f"progress of {group_id}", unavailable=_DOWN):
        async with admin_client(bootstrap_servers) as admin:
            consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers)
            try:
                await consumer.start()
                offsets = await admin.list_consumer_group_offsets(group_id)
                described = await admin.describe_topics([topic.name])
                numbers = [part["partition"] for item in described for part in item["partitions"]]
                ends = await consumer.end_offsets([TopicPartition(topic.name, n) for n in numbers])
            finally:
                await consumer.stop()
    return Progress(
        committed={
            partition.partition: meta.offset
            for partition, meta in offsets.items()
            if partition.topic == topic.name and meta.offset >= 0
        },
        ends={partition.partition: end for partition, end in ends.items()},
    )


async def delete_group(bootstrap_servers: str, group_id: str) -> None:
    """Delete a group's offsets, so that a group of the same name reads from the beginning.

    Raises:
        Unavailable: the group still has members, or the broker does not answer.
    """
    with translated(f"delete the group {group_id}", unavailable=_DOWN):
        async with admin_client(bootstrap_servers) as admin:
            coordinator = await admin.find_coordinator(group_id)
            # aiokafka defines the request but has no method that sends it.
            answer = await admin._send_request(DeleteGroupsRequest([group_id]), coordinator)
            for _, code in answer.results:
                error = for_code(code)
                if error not in (NoError, GroupIdNotFound):
                    raise error(group_id)
