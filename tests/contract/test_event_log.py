"""What every `EventLog` promises: the fake (in-memory) one and Kafka alike."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from adapters.errors import Rejected
from adapters.log.fake import FakeEventLog
from adapters.log.kafka import KafkaEventLog
from adapters.log.port import EventLog, LogRecord, Message
from adapters.provision import create_topic
from adapters.settings import ServerSettings
from schemas.codec import decode_image_change
from schemas.events import ImageAdded, ImageRemoved
from schemas.topics import IMAGES, Topic

WHEN = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.fixture
def topic() -> Topic:
    """A topic of its own for each test."""
    return replace(IMAGES, name=f"images.{uuid.uuid4().hex}", partitions=4)


@pytest.fixture(params=["memory", "kafka"])
async def log(request: pytest.FixtureRequest, topic: Topic) -> AsyncIterator[EventLog]:
    if request.param == "memory":
        yield FakeEventLog()
        return
    servers = request.getfixturevalue("servers")
    await create_topic(ServerSettings(kafka_bootstrap_servers=servers.kafka), topic)
    async with KafkaEventLog(servers.kafka) as real:
        yield real


def added(image_id: str, size: int = 1) -> Message:
    return Message(
        key=image_id,
        event=ImageAdded(
            image_id=image_id,
            uri=f"file:///{image_id}",
            sha256="0" * 64,
            size_bytes=size,
            media_type="image/png",
            modified_at=WHEN,
            added_at=WHEN,
        ),
    )


async def everything(log: EventLog, topic: Topic) -> list[LogRecord]:
    return [record async for record in log.read_all(topic)]


async def test_a_published_event_is_read_back(log: EventLog, topic: Topic) -> None:
    message = replace(added("été/a b.png"), headers={"traceparent": "00-1-2-03"})
    (position,) = await log.publish(topic, [message])
    (found,) = await everything(log, topic)
    assert found.position == position
    assert decode_image_change(found.key, found.value) == message.event
    assert found.headers == {"traceparent": b"00-1-2-03"}
    assert found.timestamp_ms > 0


async def test_a_message_without_an_event_is_a_tombstone(log: EventLog, topic: Topic) -> None:
    await log.publish(topic, [Message(key="a.png", event=None)])
    (found,) = await everything(log, topic)
    assert isinstance(decode_image_change(found.key, found.value), ImageRemoved)


async def test_one_key_keeps_its_order_and_its_partition(log: EventLog, topic: Topic) -> None:
    sizes = list(range(50))
    positions = await log.publish(topic, [added("same.png", size) for size in sizes])
    assert len({position.partition for position in positions}) == 1
    found = await everything(log, topic)
    events = [decode_image_change(record.key, record.value) for record in found]
    assert [event.size_bytes for event in events if isinstance(event, ImageAdded)] == sizes
    assert [record.position.offset for record in found] == sizes


async def test_records_of_many_keys_are_all_read(log: EventLog, topic: Topic) -> None:
    names = {f"{number}.png" for number in range(3000)}
    positions = await log.publish(topic, [added(name) for name in sorted(names)])
    assert len(set(positions)) == len(names)
    assert len({position.partition for position in positions}) == topic.partitions
    found = await everything(log, topic)
    assert {record.key.decode() for record in found if record.key} == names


async def test_positions_and_partitions_do_not_depend_on_the_batch_size(
    log: EventLog, topic: Topic
) -> None:
    messages = [
        replace(
            added(f"{number}.png") if number % 3 else Message(f"{number}.png", None),
            headers={"number": str(number)},
        )
        for number in range(500)
    ]
    reported = list(await log.publish(topic, messages))
    for message in messages[:20]:
        reported += await log.publish(topic, [message])
    sent = [*messages, *messages[:20]]
    found = {record.position: record for record in await everything(log, topic)}
    assert len(found) == len(sent)
    for message, position in zip(sent, reported, strict=True):
        record = found[position]
        assert (record.key or b"").decode() == message.key
        assert (record.value is None) == (message.event is None)
        assert record.headers["number"].decode() == message.headers["number"]
    for first, again in zip(reported[:20], reported[500:], strict=True):
        assert first.partition == again.partition
        assert first.offset < again.offset


async def test_reading_an_empty_topic_ends_at_once(log: EventLog, topic: Topic) -> None:
    assert await everything(log, topic) == []
    assert await log.publish(topic, []) == []


async def test_a_key_that_is_not_unicode_is_rejected_and_nothing_is_written(
    log: EventLog, topic: Topic
) -> None:
    with pytest.raises(Rejected, match="Unicode"):
        await log.publish(topic, [added("good.png"), Message(key="bad\udcff.png", event=None)])
    assert await everything(log, topic) == []


async def test_the_log_is_ready(log: EventLog) -> None:
    assert await log.is_ready()


async def test_reading_can_begin_at_an_offset(log: EventLog, topic: Topic) -> None:
    await log.publish(topic, [added(f"{number}.png") for number in range(40)])
    every = await everything(log, topic)
    later = [record async for record in log.read_all(topic, 3)]
    assert sorted(r.position.offset for r in later) == sorted(
        r.position.offset for r in every if r.position.offset >= 3
    )
    assert [record async for record in log.read_all(topic, 1000)] == []
    number = every[-1].position.partition
    assert [record async for record in log.read_all(topic, {number: 1})] == [
        r for r in every if r.position.partition == number and r.position.offset >= 1
    ]
    assert [record async for record in log.read_all(topic, {number: 1000})] == []


async def test_reading_can_begin_at_a_time(log: EventLog, topic: Topic) -> None:
    await log.publish(topic, [added(f"{number}.png") for number in range(10)])
    await asyncio.sleep(0.05)
    begin = datetime.now(UTC)
    await asyncio.sleep(0.05)
    await log.publish(topic, [added(f"{number}-late.png") for number in range(10)])
    late = [record.key async for record in log.read_all(topic, begin)]
    assert sorted(key.decode() for key in late if key) == sorted(
        f"{number}-late.png" for number in range(10)
    )
    future = [record async for record in log.read_all(topic, begin + timedelta(days=1))]
    assert future == []


async def test_bounds_are_the_oldest_and_the_next_offset(log: EventLog, topic: Topic) -> None:
    written = await log.publish(topic, [added(f"{number}.png") for number in range(9)])
    bounds = await log.bounds(topic)
    assert set(bounds) == set(range(topic.partitions))
    for number, (start, end) in bounds.items():
        assert start == 0
        assert end == sum(position.partition == number for position in written)
