"""`GroupAdmin` on Kafka, and the client that administers topics and groups."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupIdNotFound, NoError, for_code
from aiokafka.protocol.admin import DeleteGroupsRequest

from adapters.log.kafka_errors import kafka_errors
from adapters.log.port import GroupProgress
from schemas.topics import Topic


@asynccontextmanager
async def admin_client(bootstrap_servers: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """A client that is started, and closed at the end. Its errors are aiokafka's."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


class KafkaGroupAdmin:
    """See `adapters.log.port.GroupAdmin`. Connects anew for each call."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers

    async def progress(self, topic: Topic, group: str) -> GroupProgress:
        """See `GroupAdmin.progress`."""
        with kafka_errors(f"progress of {group}"):
            async with admin_client(self._bootstrap_servers) as admin:
                consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap_servers)
                try:
                    await consumer.start()
                    offsets = await admin.list_consumer_group_offsets(group)
                    described = await admin.describe_topics([topic.name])
                    partitions = [
                        TopicPartition(topic.name, part["partition"])
                        for item in described
                        for part in item["partitions"]
                    ]
                    ends = await consumer.end_offsets(partitions)
                finally:
                    await consumer.stop()
        return GroupProgress(
            committed={
                partition.partition: meta.offset
                for partition, meta in offsets.items()
                if partition.topic == topic.name and meta.offset >= 0
            },
            ends={partition.partition: end for partition, end in ends.items()},
        )

    async def delete(self, group: str) -> None:
        """See `GroupAdmin.delete`."""
        with kafka_errors(f"delete the group {group}"):
            async with admin_client(self._bootstrap_servers) as admin:
                coordinator = await admin.find_coordinator(group)
                # aiokafka defines the request but has no method that sends it.
                answer = await admin._send_request(DeleteGroupsRequest([group]), coordinator)
                for _, code in answer.results:
                    error = for_code(code)
                    if error not in (NoError, GroupIdNotFound):
                        raise error(group)
