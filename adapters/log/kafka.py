"""`EventLog` on Kafka through aiokafka."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Final, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import RecordMetadata

from adapters.errors import AdapterError, Rejected, Unavailable
from adapters.log.kafka_errors import REFUSED, kafka_errors
from adapters.log.kafka_producer import abandon, settled
from adapters.log.port import NO_HEADERS, LogRecord, Message, Position, timestamp_ms
from schemas.codec import InvalidEvent, encode, encode_key
from schemas.topics import Topic

PUBLISH_TIMEOUT_SECONDS: Final = 30.0
"""A broker restarts within this time; after it the caller retries with back-off."""
FETCH_TIMEOUT_MS: Final = 1000
READY_TIMEOUT_SECONDS: Final = 3.0

BULK: Final = 64
"""Number of messages from which batches are built here rather than by the producer."""

_Record = tuple[bytes, bytes | None, list[tuple[str, bytes]]]


class KafkaEventLog:
    """Publishes with acks=all and idempotence; reads without a consumer group.

    The producer connects at the first use, so a broker that is down at start is no error.
    """

    def __init__(self, bootstrap_servers: str, *, timeout: float = PUBLISH_TIMEOUT_SECONDS) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._timeout = timeout
        self._producer: AIOKafkaProducer | None = None
        self._has_discarded = False
        self._starting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def publish(self, topic: Topic, messages: Sequence[Message]) -> Sequence[Position]:
        """See `EventLog.publish`."""
        prepared = [_prepared(message) for message in messages]
        with kafka_errors(f"publish to {topic.name}"):
            try:
                async with asyncio.timeout(self._timeout):
                    producer = await self._connected()
                    try:
                        written = await _publish(producer, topic.name, prepared)
                    except REFUSED:
                        raise
                    except BaseException:
                        # An idempotent producer that gave up on a batch must not be used any more.
                        await self._discard(producer)
                        raise
            except TimeoutError as error:
                raise Unavailable(f"publish to {topic.name}: no answer in time") from error
        return written

    async def _connected(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._bootstrap_servers,
                    acks="all",
                    enable_idempotence=True,
                    linger_ms=2,
                    max_batch_size=256 * 1024,
                    max_request_size=8 * 1024 * 1024,
                    request_timeout_ms=15_000,
                )
                try:
                    await producer.start()
                    if self._has_discarded:
                        await settled(producer)
                except BaseException:
                    await abandon(producer)
                    raise
                self._producer, self._has_discarded = producer, False
            return self._producer

    async def _discard(self, producer: AIOKafkaProducer) -> None:
        if self._producer is producer:
            self._producer = None
        self._has_discarded = True
        await abandon(producer)

    async def read_all(
        self, topic: Topic, start: int | datetime | Mapping[int, int] | None = None
    ) -> AsyncIterator[LogRecord]:
        """See `EventLog.read_all`."""
        with kafka_errors(f"read {topic.name}"):
            # Without a group, a consumer reads every partition and commits nothing.
            consumer = AIOKafkaConsumer(
                *(() if isinstance(start, Mapping) else (topic.name,)),
                bootstrap_servers=self._bootstrap_servers,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_max_bytes=16 * 1024 * 1024,
                max_partition_fetch_bytes=4 * 1024 * 1024,
            )
            try:
                await consumer.start()
                if isinstance(start, Mapping):
                    consumer.assign([TopicPartition(topic.name, number) for number in start])
                partitions = sorted(consumer.assignment())
                if not partitions:
                    raise Unavailable(f"the topic {topic.name} does not exist yet")
                ends = await consumer.end_offsets(partitions)
                await _begin(consumer, start, ends)
                unread = [p for p in partitions if await consumer.position(p) < ends[p]]
                idle_seconds = 0.0
                while unread:
                    polled = time.monotonic()
                    fetched = await consumer.getmany(
                        *unread, timeout_ms=FETCH_TIMEOUT_MS, max_records=2000
                    )
                    # The client polls an unreachable broker for ever, without an error.
                    idle_seconds = 0.0 if fetched else idle_seconds + time.monotonic() - polled
                    if idle_seconds > self._timeout:
                        raise Unavailable(f"read {topic.name}: no records for {self._timeout} s")
                    for partition, records in fetched.items():
                        number, end = partition.partition, ends[partition]
                        for record in records:
                            if record.offset < end:
                                yield LogRecord(
                                    Position(number, record.offset),
                                    record.key,
                                    record.value,
                                    timestamp_ms(record.timestamp),
                                    _headers(record.headers),
                                )
                    # The position also advances over gaps that compaction has left.
                    unread = [p for p in unread if await consumer.position(p) < ends[p]]
            finally:
                await consumer.stop()

    async def bounds(self, topic: Topic) -> Mapping[int, tuple[int, int]]:
        """See `EventLog.bounds`."""
        with kafka_errors(f"bounds of {topic.name}"):
            consumer = AIOKafkaConsumer(
                topic.name, bootstrap_servers=self._bootstrap_servers, enable_auto_commit=False
            )
            try:
                await consumer.start()
                partitions = sorted(consumer.assignment())
                if not partitions:
                    raise Unavailable(f"the topic {topic.name} does not exist yet")
                starts = await consumer.beginning_offsets(partitions)
                ends = await consumer.end_offsets(partitions)
            finally:
                await consumer.stop()
        return {p.partition: (starts[p], ends[p]) for p in partitions}

    async def is_ready(self) -> bool:
        """See `EventLog.is_ready`."""
        try:
            with kafka_errors("read the metadata"):
                async with asyncio.timeout(READY_TIMEOUT_SECONDS):
                    producer = await self._connected()
                    await producer.client.fetch_all_metadata()
        except AdapterError:
            return False
        return True

    async def close(self) -> None:
        """Flush and disconnect."""
        async with self._starting:
            producer, self._producer = self._producer, None
        if producer is not None:
            with kafka_errors("close the Kafka producer"):
                try:
                    async with asyncio.timeout(self._timeout):
                        await producer.stop()
                except BaseException:
                    await abandon(producer)
                    raise


def _headers(found: Sequence[tuple[str, bytes | None]]) -> Mapping[str, bytes]:
    """Name -> value; a header without a value, which Kafka permits, becomes empty."""
    return {name: value or b"" for name, value in found} if found else NO_HEADERS


async def _begin(
    consumer: AIOKafkaConsumer,
    start: int | datetime | Mapping[int, int] | None,
    ends: Mapping[TopicPartition, int],
) -> None:
    """Seek to the start; an offset that was deleted becomes the oldest one that exists."""
    if isinstance(start, datetime):
        milliseconds = math.floor(start.timestamp() * 1000)
        found = await consumer.offsets_for_times(dict.fromkeys(ends, milliseconds))
        for partition, end in ends.items():
            first = found.get(partition)
            consumer.seek(partition, end if first is None else first.offset)
    elif start is not None:
        oldest = await consumer.beginning_offsets(list(ends))
        for partition, end in ends.items():
            wanted = start[partition.partition] if isinstance(start, Mapping) else start
            consumer.seek(partition, min(max(wanted, oldest[partition]), end))


async def _publish(
    producer: AIOKafkaProducer, topic: str, prepared: Sequence[_Record]
) -> list[Position]:
    if len(prepared) >= BULK:
        return await _publish_in_bulk(producer, topic, prepared)
    pending = [
        await producer.send(topic, value=value, key=key, headers=headers)
        for key, value, headers in prepared
    ]
    written = await asyncio.gather(*pending)
    return [Position(metadata.partition, _offset(metadata)) for metadata in written]


async def _publish_in_bulk(
    producer: AIOKafkaProducer, topic: str, prepared: Sequence[_Record]
) -> list[Position]:
    """Send whole batches for each partition: a third of the work that a future per record takes."""
    # Imports NumPy, which a process that never publishes in bulk need not load.
    from adapters.log.partitions import partitions_of

    partitions = sorted(await producer.partitions_for(topic))
    key_partitions = partitions_of([key for key, _, _ in prepared], len(partitions))
    batches: list[_Batch] = []
    newest: dict[int, _Batch] = {}
    locations: list[tuple[_Batch, int]] = []
    for (key, value, headers), index in zip(prepared, key_partitions, strict=True):
        partition = partitions[index]
        batch = newest.get(partition)
        if batch is None or not batch.append(key, value, headers):
            batch = newest[partition] = _Batch(partition, producer.create_batch())
            batches.append(batch)
            if not batch.append(key, value, headers):
                raise MessageSizeTooLargeError(f"a record of {len(value or b'')} bytes")
        locations.append((batch, batch.count - 1))
    pending = [
        await producer.send_batch(batch.builder, topic, partition=batch.partition)
        for batch in batches
    ]
    written = await asyncio.gather(*pending)
    firsts = {
        id(batch): _offset(metadata) for batch, metadata in zip(batches, written, strict=True)
    }
    return [Position(batch.partition, firsts[id(batch)] + within) for batch, within in locations]


def _offset(metadata: RecordMetadata) -> int:
    """Where the record was written.

    Raises:
        Unavailable: it was written, but the client had sent it twice, and the broker no longer
            knows where. It then answers -1, from which the client would count the others.
    """
    if metadata.offset < 0 or (metadata.log_start_offset or 0) < 0:
        raise Unavailable(f"{metadata.topic}: the broker did not return the offsets of the records")
    return int(metadata.offset)


@dataclass(slots=True)
class _Batch:
    partition: int
    builder: BatchBuilder
    count: int = 0

    def append(self, key: bytes, value: bytes | None, headers: list[tuple[str, bytes]]) -> bool:
        """Add a record; False if the batch is full."""
        added = self.builder.append(key=key, value=value, timestamp=None, headers=headers)
        self.count += added is not None
        return added is not None


def _prepared(message: Message) -> _Record:
    try:
        key = encode_key(message.key)
    except InvalidEvent as error:
        raise Rejected(str(error)) from error
    value = None if message.event is None else encode(message.event)
    return key, value, [(name, text.encode()) for name, text in message.headers.items()]
