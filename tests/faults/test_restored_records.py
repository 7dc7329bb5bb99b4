"""Events are restored to the log while it loses more of them, or while some are forgotten."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from adapters.log.fake import FakeEventLog
from adapters.log.port import Message, Position
from analytics.lake import TOPICS, ForgetRequest, Lake, LakePartition, PartitionEnd
from consumers.analytics.alignment import RESTORE_FOLDER, align
from consumers.analytics.restore import restore_lost
from consumers.analytics.writer import LakeWriter
from schemas.codec import decode
from schemas.topics import SEARCHES, Topic
from tests.support.lake_events import Events, records

PARTITION = LakePartition("searches", 0)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Ten searches, of which the log has none."""
    made = Lake(str(tmp_path / "lake"))
    made.current().append(
        SEARCHES, PARTITION, PartitionEnd(), records(Events(1).messages("searches", 10))
    )
    return made


@pytest.fixture
def log() -> FakeEventLog:
    made = FakeEventLog()
    for topic in TOPICS:
        made._partitions(topic)
    return made


PARTITIONS = [(SEARCHES, number) for number in range(SEARCHES.partitions)]


async def file_all(log: FakeEventLog, lake: Lake) -> None:
    writer = LakeWriter(lake, log, flush_records=10**6, flush_seconds=100)
    for (topic, number), start in (await writer.assigned(PARTITIONS)).items():
        records_left = log.topics[topic.name][number][start:]
        writer.add({(topic, number): records_left})
    await writer.flush()


async def reported(log: FakeEventLog) -> list[str]:
    return [str(decode(SEARCHES.event, r.value).event_id) async for r in log.read_all(SEARCHES)]


async def test_events_lost_during_a_restoration_are_restored_next(
    lake: Lake, log: FakeEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await align(log, lake.current(), PARTITIONS)
    publish = log.publish

    async def publishing(topic: Topic, messages: Sequence[Message]) -> Sequence[Position]:
        done = await publish(topic, messages)
        await file_all(log, lake)
        for partition in log.topics[SEARCHES.name]:
            partition.clear()
        await align(log, lake.current(), PARTITIONS)
        return done

    monkeypatch.setattr(log, "publish", publishing)
    await restore_lost(log, lake)
    monkeypatch.undo()
    await restore_lost(log, lake)
    assert len(set(await reported(log))) == 10
    # The markers stay until what was restored is filed.
    await file_all(log, lake)
    await restore_lost(log, lake)
    assert lake.storage.names(RESTORE_FOLDER) == []


async def test_forgotten_events_are_not_restored(lake: Lake, log: FakeEventLog) -> None:
    await align(log, lake.current(), PARTITIONS)
    row = lake.storage.read_table(lake.current().snapshot("searches")[0].path).to_pylist()[3]
    # Remembered, but not yet taken out of the files.
    lake.add_forget_request(ForgetRequest(frozenset({row["search_id"]})))
    await restore_lost(log, lake)
    found = await reported(log)
    assert len(found) == 9
    assert row["event_id"] not in found
