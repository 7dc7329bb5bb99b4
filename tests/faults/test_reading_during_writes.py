"""While a file is written, the analytics group reads on within bounds, and loses no event."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition

from adapters.errors import Unavailable
from adapters.log.fake import FakeEventLog
from analytics.lake import TOPICS, Lake
from consumers.analytics.filing_work import FilingWork, analytics_member
from consumers.analytics.rebuild import rebuild
from consumers.analytics.settings import AnalyticsSettings
from consumers.analytics.writer import LakeWriter
from consumers.process.consumer_loop import ConsumerLoop
from schemas.topics import SEARCHES
from tests.support.fake_consumer import Consumer, fetched, poll
from tests.support.lake_events import Events, records, table

PARTITION = TopicPartition(SEARCHES.name, 0)
COUNT = 60


class Library:
    """A log with one partition of searches, and a lake."""

    def __init__(self, folder: Path) -> None:
        self.log = FakeEventLog()
        for topic in TOPICS:
            self.log._partitions(topic)
        self.log._partitions(SEARCHES)[0].extend(records(Events(3).messages("searches", COUNT)))
        self.lake = Lake(str(folder))
        self.held = fetched(SEARCHES.name, self.log._partitions(SEARCHES)[0])

    def offsets(self) -> list[int]:
        return list(table(self.lake, SEARCHES)["offset"].to_pylist())

    @asynccontextmanager
    async def member(self, flush_records: int) -> AsyncIterator[ConsumerLoop[FilingWork]]:
        writer = LakeWriter(self.lake, self.log, flush_records=flush_records, flush_seconds=0.02)
        made = analytics_member(AnalyticsSettings(flush_records=flush_records), writer, self.log)
        made._consumer = Consumer(PARTITION, self.held)
        made.work.start()
        await made.on_partitions_assigned([PARTITION])
        try:
            yield made
        finally:
            await made.stop()
            if made.work.failed.done():
                made.work.failed.result()

    async def read_all(self, made: ConsumerLoop[FilingWork]) -> None:
        async with asyncio.timeout(30):
            while made._consumer.committed.get(0) != (COUNT, ""):
                await asyncio.sleep(0.002)
                if not made.work.failed.done():
                    await poll(made, max_records=2)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path)


async def test_records_read_during_a_write_are_stored_once(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, read_meanwhile = LakeWriter._append, list[int]()

    def slow(writer: LakeWriter, buffer: Any) -> Any:
        found = append(writer, buffer)
        deadline = time.monotonic() + 5
        while made._consumer.position < COUNT and time.monotonic() < deadline:
            if made.work._arrived:
                break
            time.sleep(0.001)
        read_meanwhile.append(sum(map(len, made.work._arrived.values())))
        return found

    monkeypatch.setattr(LakeWriter, "_append", slow)
    async with library.member(1000) as made:
        await library.read_all(made)
    assert library.offsets() == list(range(COUNT))
    assert max(read_meanwhile) > 0


async def test_a_storage_outage_pauses_reading_and_ends_nothing(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, away = LakeWriter._append, True

    def failing(writer: LakeWriter, buffer: Any) -> Any:
        if away:
            raise Unavailable("the bucket does not answer")
        return append(writer, buffer)

    monkeypatch.setattr(LakeWriter, "_append", failing)
    async with library.member(20) as made:
        async with asyncio.timeout(10):
            while not made._consumer.paused:
                await asyncio.sleep(0.002)
                await poll(made, max_records=7)
        assert made._consumer.position <= 20 + 7
        assert made._consumer.committed.get(0, (0, ""))[0] == 0
        away = False
        await library.read_all(made)
    assert library.offsets() == list(range(COUNT))


@pytest.mark.slow
async def test_a_lake_rebuilt_during_reading_has_each_event_once(library: Library) -> None:
    async with library.member(10) as made:
        reading = asyncio.create_task(library.read_all(made))
        while made._consumer.position < 20:
            await asyncio.sleep(0.002)
        await rebuild(library.log, library.lake, batch_records=9)
        await reading
    assert library.offsets() == list(range(COUNT))


async def test_a_rebalance_during_reading_loses_and_repeats_nothing(library: Library) -> None:
    async with library.member(10) as made:
        reading = asyncio.create_task(library.read_all(made))
        for _ in range(4):
            await asyncio.sleep(0.02)
            await made.on_partitions_revoked([PARTITION])
            await made.on_partitions_assigned([PARTITION])
        await reading
    assert library.offsets() == list(range(COUNT))
