"""Each number of the analytics page against a plain recomputation from the topics on real Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from adapters.log.kafka import KafkaEventLog
from analytics.dashboard import dashboard
from analytics.lake import TOPICS, Lake
from analytics.views import EventFilters
from consumers.analytics.rebuild import rebuild
from tests.support.analytics_numbers import Facts, compare_dashboard
from tests.support.lake_events import BEGIN, Events
from tests.support.watcher_processes import running_broker

COUNTS = {"searches": 1200, "feedback": 900, "images.indexed": 500, "images.dlq": 40, "models": 8}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a broker whose topics hold this file's events alone."""
    with running_broker(tmp_path_factory.mktemp("broker")) as running:
        yield running.address


@pytest.mark.timeout(300)
async def test_each_number_of_the_dashboard_matches_the_topics(broker: str, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    events = Events(uuid4().int % 10**9)
    async with KafkaEventLog(broker) as log:
        for topic in TOPICS:
            await log.publish(topic, events.messages(topic.name, COUNTS[topic.name]))
        await rebuild(log, lake)
        values = {
            topic.name: [record.value or b"" async for record in log.read_all(topic)]
            for topic in TOPICS
        }
    facts = Facts(values)
    middle = {"since": BEGIN + timedelta(days=9), "until": BEGIN + timedelta(days=25)}
    for filters in (
        EventFilters(),
        EventFilters(model="lite"),
        EventFilters(**middle, model="clip"),
    ):
        assert compare_dashboard(dashboard(lake, filters), facts, filters) > 300
