"""A consumer whose rebalance fails ends, and loses no record."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from adapters.log.fake import FakeEventLog
from adapters.log.port import Partition
from adapters.log.rebalance import RebalanceFailed
from analytics.lake import Lake
from analytics.views import query
from consumers.analytics.filing_work import analytics_member
from consumers.analytics.settings import AnalyticsSettings
from consumers.analytics.writer import LakeWriter
from consumers.indexing.indexing_work import IndexingWork, indexing_member
from consumers.indexing.settings import IndexingSettings
from consumers.process.consumer_loop import ConsumerLoop
from schemas.topics import IMAGES, SEARCHES
from tests.support.fake_consumer import Consumer, fetched, poll
from tests.support.lake_events import Events, records

ERRORS = [OSError("disk"), ValueError("bug"), asyncio.CancelledError()]


class Handled(Exception):
    """The indexer was handed records."""


@pytest.fixture
async def app() -> AsyncIterator[ConsumerLoop[IndexingWork]]:
    class Indexer:
        async def prepare(self, _: Sequence[Any]) -> Any:
            raise Handled

    made = indexing_member(IndexingSettings(), Indexer(), "group", FakeEventLog())  # type: ignore[arg-type]
    made._consumer = SimpleNamespace(assignment=set)
    yield made
    if made.work.failed.done():
        made.work.failed.exception()


def batch() -> Any:
    record = SimpleNamespace(
        topic=IMAGES.name, partition=0, offset=0, key=b"k", value=b"v", timestamp=0, headers=()
    )
    return SimpleNamespace(raw_message=(record,))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("step", ["revoked", "assigned"])
async def test_indexing_ends_when_a_rebalance_fails_or_is_cancelled(
    app: ConsumerLoop[IndexingWork],
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    error: BaseException,
) -> None:
    async def fails(_: object) -> None:
        raise error

    partition = TopicPartition(IMAGES.name, 0)
    await app.on_partitions_assigned([partition])
    monkeypatch.setattr(app, step, fails)
    with pytest.raises(type(error)):
        await getattr(app, f"on_partitions_{step}")([partition])
    # An ordinary error: a cancellation would end the process with status 0.
    assert isinstance(app.work.failed.exception(), RebalanceFailed)
    # FastStream goes on reading.
    with pytest.raises(RebalanceFailed):
        await app._handle(batch())
    assert app.work.pipeline.in_flight == 0
    with pytest.raises(RebalanceFailed):
        await app.work.commit({0: 1})
    with pytest.raises(RebalanceFailed):
        await app.unread()


async def test_leaving_the_group_is_not_a_failure(
    app: ConsumerLoop[IndexingWork], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cancelled(_: object) -> None:
        raise asyncio.CancelledError

    app._consumer = SimpleNamespace(assignment=set, pause=lambda *_: None)
    await app.stop()
    monkeypatch.setattr(app, "revoked", cancelled)
    with pytest.raises(asyncio.CancelledError):
        await app.on_partitions_revoked([])
    assert not app.work.failed.done()


@pytest.mark.slow
async def test_a_disk_failure_during_assignment_loses_no_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends, is started again, and files everything."""
    written = records(Events(3).messages("searches", 40))
    log = FakeEventLog()
    log._partitions(SEARCHES)[0].extend(written)
    held = fetched(SEARCHES.name, written)
    lake, failures = Lake(str(tmp_path)), [OSError("input/output error")]
    aligned = LakeWriter._align

    async def failing(writer: LakeWriter, partitions: Sequence[Partition]) -> Any:
        if failures:
            raise failures.pop()
        return await aligned(writer, partitions)

    monkeypatch.setattr(LakeWriter, "_align", failing)

    async def run() -> None:
        """As long as the process lives, or until all is filed."""
        writer = LakeWriter(lake, log, flush_records=7, flush_seconds=0.01)
        member = analytics_member(AnalyticsSettings(flush_records=7), writer, log)
        partition = TopicPartition(SEARCHES.name, 0)
        member._consumer = Consumer(partition, held)
        await member.on_partitions_assigned([partition])
        member.work.start()
        async with asyncio.timeout(20):
            while not member.work.failed.done() and writer.filed < len(held):
                await asyncio.sleep(0.01)
                with suppress(RebalanceFailed):
                    await poll(member)
        await member.stop()
        if member.work.failed.done():
            member.work.failed.result()

    with pytest.raises(RebalanceFailed, match="input/output error"):
        await run()
    await run()
    assert query(lake, "SELECT count(*) AS n FROM searches") == [{"n": len(held)}]
