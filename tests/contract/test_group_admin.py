"""What every `GroupAdmin` promises: the fake (in-memory) one and Kafka alike."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from adapters.errors import Unavailable
from adapters.log.fake import FakeEventLog, FakeGroupAdmin
from adapters.log.kafka import KafkaEventLog
from adapters.log.kafka_admin import KafkaGroupAdmin
from adapters.log.port import EventLog, GroupAdmin, Message
from adapters.provision import create_topic
from adapters.retry import until_available
from adapters.settings import ServerSettings
from schemas.topics import IMAGES, Topic

LEAVING_SECONDS = 30.0
"""A broker counts members for a moment after they have left."""


class Members(Protocol):
    """What the members of groups do."""

    async def commit(self, group: str, topic: Topic, offsets: Mapping[int, int]) -> None:
        """Commit the next offset of each of these partitions."""
        ...

    def joined(self, group: str, topic: Topic) -> AbstractAsyncContextManager[None]:
        """Within the block, the group has a member."""
        ...


@dataclass
class FakeMembers:
    groups: FakeGroupAdmin

    async def commit(self, group: str, topic: Topic, offsets: Mapping[int, int]) -> None:
        held = self.groups.committed.setdefault(group, {})
        held.update({(topic, number): offset for number, offset in offsets.items()})

    @asynccontextmanager
    async def joined(self, group: str, topic: Topic) -> AsyncIterator[None]:
        self.groups.active.add(group)
        try:
            yield
        finally:
            self.groups.active.discard(group)


@dataclass
class KafkaMembers:
    bootstrap_servers: str

    def _consumer(self, group: str, *topics: str) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            *topics,
            bootstrap_servers=self.bootstrap_servers,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )

    async def commit(self, group: str, topic: Topic, offsets: Mapping[int, int]) -> None:
        consumer = self._consumer(group)
        try:
            await consumer.start()
            partitions = {TopicPartition(topic.name, number): o for number, o in offsets.items()}
            # Without a subscription it does not become a member.
            consumer.assign(list(partitions))
            await consumer.commit(partitions)
        finally:
            await consumer.stop()

    @asynccontextmanager
    async def joined(self, group: str, topic: Topic) -> AsyncIterator[None]:
        consumer = self._consumer(group, topic.name)
        try:
            await consumer.start()
            async with asyncio.timeout(LEAVING_SECONDS):
                while not consumer.assignment():
                    await consumer.getmany(timeout_ms=100)
            yield
        finally:
            await consumer.stop()


@dataclass
class Bench:
    log: EventLog
    groups: GroupAdmin
    members: Members
    topic: Topic
    group: str

    async def publish(self, count: int) -> None:
        await self.log.publish(self.topic, [Message(f"{n}.png", None) for n in range(count)])

    async def ends(self) -> dict[int, int]:
        return {number: end for number, (_, end) in (await self.log.bounds(self.topic)).items()}


@pytest.fixture(params=["memory", "kafka"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """A topic and a group of its own for each test."""
    topic = replace(IMAGES, name=f"images.{uuid.uuid4().hex}", partitions=4)
    group = f"group-{uuid.uuid4().hex}"
    if request.param == "memory":
        log = FakeEventLog()
        groups = FakeGroupAdmin(log=log)
        yield Bench(log, groups, FakeMembers(groups), topic, group)
        return
    servers = request.getfixturevalue("servers")
    await create_topic(ServerSettings(kafka_bootstrap_servers=servers.kafka), topic)
    kafka = KafkaGroupAdmin(servers.kafka)
    # A broker creates its topic of offsets at the first request for a group.
    await until_available(
        lambda: kafka.progress(topic, group), what="groups", give_up_after=LEAVING_SECONDS
    )
    async with KafkaEventLog(servers.kafka) as real:
        yield Bench(real, kafka, KafkaMembers(servers.kafka), topic, group)


async def deleted(bench: Bench) -> None:
    await until_available(
        lambda: bench.groups.delete(bench.group),
        what="delete the group",
        give_up_after=LEAVING_SECONDS,
    )


async def test_a_group_that_never_committed_has_read_nothing(bench: Bench) -> None:
    await bench.publish(20)
    progress = await bench.groups.progress(bench.topic, bench.group)
    assert progress.committed == {}
    assert progress.ends == await bench.ends()
    assert progress.lag == 20
    assert not progress.has_read(0, 0)


async def test_an_empty_topic_has_no_lag(bench: Bench) -> None:
    progress = await bench.groups.progress(bench.topic, bench.group)
    assert progress.ends == dict.fromkeys(range(bench.topic.partitions), 0)
    assert progress.lag == 0


async def test_the_lag_is_what_was_published_after_the_commit(bench: Bench) -> None:
    await bench.publish(20)
    ends = await bench.ends()
    await bench.members.commit(bench.group, bench.topic, ends)
    assert (await bench.groups.progress(bench.topic, bench.group)).lag == 0
    await bench.publish(5)
    progress = await bench.groups.progress(bench.topic, bench.group)
    assert progress.committed == ends
    assert progress.lag == 5


async def test_only_what_is_below_the_committed_offset_is_read(bench: Bench) -> None:
    await bench.publish(20)
    await bench.members.commit(bench.group, bench.topic, {1: 2})
    progress = await bench.groups.progress(bench.topic, bench.group)
    assert progress.committed == {1: 2}
    assert progress.has_read(1, 1)
    assert not progress.has_read(1, 2)
    assert not progress.has_read(0, 0)


async def test_groups_do_not_see_each_others_offsets(bench: Bench) -> None:
    await bench.publish(20)
    await bench.members.commit(f"{bench.group}-other", bench.topic, await bench.ends())
    assert (await bench.groups.progress(bench.topic, bench.group)).committed == {}


async def test_a_deleted_group_starts_from_the_beginning(bench: Bench) -> None:
    await bench.publish(20)
    await bench.members.commit(bench.group, bench.topic, await bench.ends())
    await deleted(bench)
    progress = await bench.groups.progress(bench.topic, bench.group)
    assert progress.committed == {}
    assert progress.lag == 20


async def test_deleting_a_group_that_does_not_exist_is_no_error(bench: Bench) -> None:
    await deleted(bench)
    await deleted(bench)


async def test_a_group_with_members_is_not_deleted(bench: Bench) -> None:
    await bench.publish(20)
    await bench.members.commit(bench.group, bench.topic, {0: 1})
    async with bench.members.joined(bench.group, bench.topic):
        with pytest.raises(Unavailable, match=bench.group):
            await bench.groups.delete(bench.group)
        assert (await bench.groups.progress(bench.topic, bench.group)).committed == {0: 1}
    await deleted(bench)
    assert (await bench.groups.progress(bench.topic, bench.group)).committed == {}
