"""Whoever reads a group ends when a rebalance fails, in whatever way, and loses no record."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from adapters.log.fake import FakeEventLog
from adapters.log.kafka_group import KafkaGroupReader
from adapters.log.rebalance import RebalanceFailed
from analytics.lake import Lake
from analytics.views import query
from consumers.analytics.app import _file
from consumers.analytics.writer import LakeWriter
from consumers.indexing.settings import IndexingSettings
from consumers.indexing.subscriber import IndexingApp
from schemas.topics import IMAGES, SEARCHES, Topic
from tests.support.lake_events import Events, records

ERRORS = [OSError("disk"), ValueError("bug"), asyncio.CancelledError()]


class Handled(Exception):
    """The indexer was handed records."""


@pytest.fixture
async def app() -> AsyncIterator[IndexingApp]:
    class Indexer:
        async def prepare(self, _: Sequence[Any]) -> Any:
            raise Handled

    made = IndexingApp(IndexingSettings(), Indexer(), "group", FakeEventLog())  # type: ignore[arg-type]
    made._consumer = SimpleNamespace(assignment=set)
    yield made
    if made.lane.failed.done():
        made.lane.failed.exception()


def batch() -> Any:
    record = SimpleNamespace(
        topic=IMAGES.name, partition=0, offset=0, key=b"k", value=b"v", timestamp=0, headers=()
    )
    return SimpleNamespace(raw_message=(record,))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("step", ["revoked", "assigned"])
async def test_indexing_ends_when_a_rebalance_fails_or_is_cancelled(
    app: IndexingApp, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    async def fails(_: object) -> None:
        raise error

    place = TopicPartition(IMAGES.name, 0)
    await app.on_partitions_assigned([place])
    monkeypatch.setattr(app, step, fails)
    with pytest.raises(type(error)):
        await getattr(app, f"on_partitions_{step}")([place])
    # An ordinary error: one that says "cancelled" would end the process as if all were well.
    assert isinstance(app.lane.failed.exception(), RebalanceFailed)
    # FastStream goes on reading.
    with pytest.raises(RebalanceFailed):
        await app._handle(batch())
    assert app.lane.under_way == 0
    with pytest.raises(RebalanceFailed):
        await app._commit({0: 1})
    with pytest.raises(RebalanceFailed):
        await app.lag()


async def test_leaving_the_group_is_no_failure(
    app: IndexingApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cancelled(_: object) -> None:
        raise asyncio.CancelledError

    app._consumer = SimpleNamespace(assignment=set, pause=lambda *_: None)
    await app.stop()
    monkeypatch.setattr(app, "revoked", cancelled)
    with pytest.raises(asyncio.CancelledError):
        await app.on_partitions_revoked([])
    assert not app.lane.failed.done()


class Broker:
    """One partition, read as aiokafka does: errors of the callbacks are swallowed by the client."""

    def __init__(self, held: Sequence[Any]) -> None:
        self.held = held
        self.position = 0

    async def rebalance(self, reader: KafkaGroupReader) -> None:
        place = TopicPartition(SEARCHES.name, 0)
        for callback in (reader.on_partitions_revoked, reader.on_partitions_assigned):
            with suppress(Exception):
                await callback([place])

    async def getmany(self, **_: Any) -> dict[TopicPartition, list[Any]]:
        found = self.held[self.position : self.position + 5]
        self.position += len(found)
        await asyncio.sleep(0)
        return {TopicPartition(SEARCHES.name, 0): list(found)}

    def seek(self, _: TopicPartition, offset: int) -> None:
        self.position = offset

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition(SEARCHES.name, 0)}

    async def commit(self, _: Mapping[TopicPartition, int]) -> None:
        return None


async def test_a_disk_that_fails_while_partitions_are_given_out_costs_no_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends, is started again, and files everything."""
    written = records(Events(3).messages("searches", 40))
    log = FakeEventLog()
    log._partitions(SEARCHES)[0].extend(written)
    held = [
        SimpleNamespace(
            partition=0,
            offset=record.position.offset,
            key=record.key,
            value=record.value,
            timestamp=record.timestamp_ms,
        )
        for record in written
    ]
    lake, failures = Lake(str(tmp_path)), [OSError("input/output error")]
    aligned = LakeWriter._aligned

    async def failing(writer: LakeWriter, places: Sequence[tuple[Topic, int]]) -> Any:
        if failures:
            raise failures.pop()
        return await aligned(writer, places)

    monkeypatch.setattr(LakeWriter, "_aligned", failing)

    async def run() -> None:
        """As long as the process lives, or until all is filed."""
        writer = LakeWriter(lake, log, flush_records=7, flush_seconds=0.01)
        reader = KafkaGroupReader("127.0.0.1:9", [SEARCHES], "g", writer)
        consumer = Broker(held)
        reader._consumer = consumer
        await consumer.rebalance(reader)
        stop = asyncio.Event()
        filing = asyncio.create_task(_file(reader, writer, stop))
        async with asyncio.timeout(20):
            while not filing.done() and writer.filed < len(held):
                await asyncio.sleep(0.01)
        stop.set()
        await filing

    with pytest.raises(RebalanceFailed, match="input/output error"):
        await run()
    await run()
    assert query(lake, "SELECT count(*) AS n FROM searches") == [{"n": len(held)}]
