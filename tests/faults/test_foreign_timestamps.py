"""Records with any timestamp are read, also impossible ones."""

from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition

from adapters.log.fake import FakeEventLog
from adapters.log.next_offsets import log_record
from adapters.log.port import LATEST_MS, timestamp_ms
from analytics.dashboard import dashboard
from analytics.lake import Lake
from analytics.views import EventFilters, query
from consumers.analytics.filing_work import analytics_member
from consumers.analytics.settings import AnalyticsSettings
from consumers.analytics.writer import LakeWriter
from schemas.topics import SEARCHES
from tests.support.fake_consumer import Consumer, fetched, poll
from tests.support.lake_events import Events, records

STRANGE = [-1, -2, -(10**18), LATEST_MS, LATEST_MS + 1, 10**17, 2**63 - 1]


@pytest.mark.slow
@pytest.mark.parametrize("strange", STRANGE)
async def test_the_lake_takes_events_with_any_timestamp_and_answers(
    tmp_path: Path, strange: int
) -> None:
    written = records(Events(1).messages("searches", 5))
    log = FakeEventLog()
    log._partitions(SEARCHES)[0].extend(written)
    held = fetched(SEARCHES.name, written)
    held[2].timestamp = strange
    lake = Lake(str(tmp_path))
    writer = LakeWriter(lake, log, flush_records=1, flush_seconds=0.01)
    member = analytics_member(AnalyticsSettings(flush_records=1), writer, log)
    partition = TopicPartition(SEARCHES.name, 0)
    member._consumer = Consumer(partition, held)
    await member.on_partitions_assigned([partition])
    await poll(member)
    await poll(member)
    await member.work.give_up(0)
    assert dashboard(lake, EventFilters())["totals"]["searches"] == 5
    found = query(lake, "SELECT logged_at FROM searches ORDER BY 1")
    assert all(isinstance(row["logged_at"], datetime) for row in found)
    assert len(found) == 5


@pytest.mark.parametrize("strange", STRANGE)
def test_strange_timestamps_are_clamped_when_records_are_read(strange: int) -> None:
    record = SimpleNamespace(
        partition=0, offset=0, key=b"k", value=b"v", timestamp=strange, headers=()
    )
    assert -1 <= log_record(record).timestamp_ms <= LATEST_MS
    assert timestamp_ms(1_700_000_000_000) == 1_700_000_000_000
