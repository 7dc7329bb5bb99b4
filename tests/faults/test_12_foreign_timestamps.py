"""A record's timestamp is whatever its producer said; no reader stops at it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from adapters.log.fake import FakeEventLog
from adapters.log.kafka_group import KafkaGroupReader
from adapters.log.port import LATEST_MS, timestamp_ms
from adapters.log.positions import log_record
from analytics.dashboard import dashboard
from analytics.lake import Lake
from analytics.views import Filters, query
from consumers.analytics.writer import LakeWriter
from schemas.topics import SEARCHES
from tests.support.lake_events import Events, records

STRANGE = [-1, -2, -(10**18), LATEST_MS, LATEST_MS + 1, 10**17, 2**63 - 1]


class Consumer:
    def __init__(self, held: Sequence[Any]) -> None:
        self.held = list(held)

    async def getmany(self, **_: Any) -> Mapping[TopicPartition, list[Any]]:
        found, self.held = self.held, []
        return {TopicPartition(SEARCHES.name, 0): found}

    def seek(self, *_: Any) -> None:
        return None

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition(SEARCHES.name, 0)}


@pytest.mark.parametrize("strange", STRANGE)
async def test_the_lake_takes_events_with_any_timestamp_and_answers(
    tmp_path: Path, strange: int
) -> None:
    written = records(Events(1).messages("searches", 5))
    log = FakeEventLog()
    log._partitions(SEARCHES)[0].extend(written)
    held = [
        SimpleNamespace(
            partition=0,
            offset=record.position.offset,
            key=record.key,
            value=record.value,
            timestamp=strange if record.position.offset == 2 else record.timestamp_ms,
        )
        for record in written
    ]
    lake = Lake(str(tmp_path))
    writer = LakeWriter(lake, log, flush_records=1, flush_seconds=0.01)
    reader = KafkaGroupReader("127.0.0.1:9", [SEARCHES], "g", writer)
    reader._consumer = Consumer(held)
    await reader.on_partitions_assigned([TopicPartition(SEARCHES.name, 0)])
    writer.add(await reader.read(timeout=0.1, max_records=10))
    await writer.flush()
    assert dashboard(lake, Filters())["totals"]["searches"] == 5
    found = query(lake, "SELECT logged_at FROM searches ORDER BY 1")
    assert all(isinstance(row["logged_at"], datetime) for row in found)
    assert len(found) == 5


@pytest.mark.parametrize("strange", STRANGE)
def test_it_is_made_readable_where_records_are_read(strange: int) -> None:
    record = SimpleNamespace(
        partition=0, offset=0, key=b"k", value=b"v", timestamp=strange, headers=()
    )
    assert -1 <= log_record(record).timestamp_ms <= LATEST_MS
    assert timestamp_ms(1_700_000_000_000) == 1_700_000_000_000
