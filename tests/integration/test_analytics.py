"""The analytics group as real processes on real Kafka, killed at random while events flow."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pytest

from adapters.log.kafka import KafkaEventLog
from analytics.compaction import compact
from analytics.lake import TOPICS, Lake
from consumers.analytics.rebuild import rebuild
from schemas.codec import decode
from schemas.topics import Topic
from tests.conftest import ROOT, Servers
from tests.support.lake_events import Events, all_tables

SEED = int(os.environ.get("CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
COUNTS = {"searches": 15_000, "feedback": 8_000, "images.indexed": 8_000, "images.dlq": 500}
COUNTS["models"] = 5


@dataclass
class Members:
    """Processes `python -m consumers analytics` of one group on one lake."""

    servers: Servers
    folder: Path
    settings: dict[str, str]
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    started: int = 0
    ready: dict[int, Path] = field(default_factory=dict)

    def start(self) -> None:
        self.started += 1
        ready = self.folder / f"ready-{self.started}"
        with (self.folder / "analytics.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "consumers", "analytics"],
                cwd=ROOT,
                env={**os.environ, **self.settings, "READY_FILE": str(ready)},
                stdout=log,
                stderr=log,
            )
        self.running.append(process)
        self.ready[process.pid] = ready

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        self.running.remove(process)

    def stop(self) -> list[int]:
        """SIGTERM to all, once they are up and so can end in order; their exit statuses."""
        deadline = time.monotonic() + 60
        for process in self.running:
            while not self.ready[process.pid].exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
        return [process.wait(60) for process in self.running]

    def printed(self) -> str:
        return (self.folder / "analytics.log").read_text()[-4000:]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def members(servers: Servers, tmp_path: Path, lake: Lake) -> Iterator[Members]:
    found = Members(
        servers,
        tmp_path,
        {
            "KAFKA_BOOTSTRAP_SERVERS": servers.kafka,
            "LAKE_URL": lake.url,
            "ANALYTICS_GROUP": f"analytics-{uuid4().hex[:8]}",
            "FLUSH_SECONDS": "0.3",
            "FLUSH_RECORDS": "1500",
            "COMPACT_SECONDS": "1",
            "COMPACT_FILES": "3",
            "COMPACT_GRACE_SECONDS": "2",
        },
    )
    yield found
    for process in list(found.running):
        found.kill(process)


@pytest.fixture
async def log(servers: Servers) -> AsyncIterator[KafkaEventLog]:
    async with KafkaEventLog(servers.kafka) as found:
        yield found


async def publish_everything(log: KafkaEventLog, seconds: float) -> None:
    """All events, spread over about this time."""
    events, parts = Events(SEED), 40
    for _ in range(parts):
        for topic in TOPICS:
            count = max(1, COUNTS[topic.name] // parts)
            await log.publish(topic, events.messages(topic.name, count))
        await asyncio.sleep(seconds / parts)


def partitions_and_offsets(lake: Lake) -> dict[str, list[tuple[int, int]]]:
    return {
        name: list(zip(rows["partition"].to_pylist(), rows["offset"].to_pylist(), strict=True))
        for name, rows in all_tables(lake).items()
    }


async def in_log(log: KafkaEventLog, topic: Topic) -> dict[tuple[int, int], str]:
    """(partition, offset) -> the event's id."""
    return {
        (record.position.partition, record.position.offset): str(
            decode(topic.event, record.value).event_id
        )
        async for record in log.read_all(topic)
    }


async def caught_up(log: KafkaEventLog, lake: Lake, members: Members, seconds: float) -> None:
    wanted = {topic.name: len(await in_log(log, topic)) for topic in TOPICS}
    deadline = time.monotonic() + seconds
    while True:
        found = {
            name: rows.num_rows
            for name, rows in (await asyncio.to_thread(all_tables, lake)).items()
        }
        if all(found[name] >= count for name, count in wanted.items()):
            return
        assert time.monotonic() < deadline, f"{found} of {wanted}\n{members.printed()}"
        await asyncio.sleep(0.5)


def assert_equal(one: dict[str, pa.Table], other: dict[str, pa.Table]) -> None:
    for name, rows in one.items():
        assert other[name].equals(rows), name


@pytest.mark.timeout(600)
async def test_killed_at_random_the_lake_holds_each_event_exactly_once(
    log: KafkaEventLog, lake: Lake, members: Members
) -> None:
    print(f"CHAOS_SEED={SEED}")
    rng = random.Random(SEED)
    for _ in range(3):
        members.start()
    publishing = asyncio.create_task(publish_everything(log, 30))
    kills = 0
    while not publishing.done():
        await asyncio.sleep(rng.uniform(0.5, 4))
        if members.running and rng.random() < 0.8:
            members.kill(rng.choice(members.running))
            kills += 1
        while len(members.running) < 3 and rng.random() < 0.8:
            members.start()
    await publishing
    assert kills >= 5
    members.start()
    await caught_up(log, lake, members, 120)
    assert set(members.stop()) == {0}, members.printed()

    live = all_tables(lake)
    for topic in TOPICS:
        wanted = await in_log(log, topic)
        rows = live[topic.name]
        found = list(zip(rows["partition"].to_pylist(), rows["offset"].to_pylist(), strict=True))
        assert found == sorted(wanted), f"{topic.name}: each exactly once"
        assert rows["event_id"].to_pylist() == [wanted[position] for position in found]
        assert set(rows["invalid"].to_pylist()) <= {None}

    for topic in TOPICS:
        compact(lake.current(), topic.name, min_files=2, grace_seconds=0)
        compact(lake.current(), topic.name, min_files=2, grace_seconds=0)
    assert_equal(live, all_tables(lake))
    await rebuild(log, lake)
    assert_equal(live, all_tables(lake))


@pytest.mark.timeout(300)
async def test_a_frozen_member_that_wakes_up_files_nothing_twice(
    log: KafkaEventLog, lake: Lake, members: Members
) -> None:
    members.start()
    events = Events(SEED)
    (searches, *_) = TOPICS
    await log.publish(searches, events.messages("searches", 300))
    await caught_up(log, lake, members, 60)
    publishing = asyncio.create_task(publish_searches(log, events))
    await asyncio.sleep(1)
    frozen = members.running[0]
    frozen.send_signal(signal.SIGSTOP)
    members.start()
    # The broker gives a silent member's partitions away after its session's 10 s. A lock that it
    # was stopped with would hold the other one up: that is why it is let go on afterwards.
    await asyncio.sleep(14)
    frozen.send_signal(signal.SIGCONT)
    await publishing
    await caught_up(log, lake, members, 90)
    members.stop()
    assert partitions_and_offsets(lake)["searches"] == sorted(await in_log(log, searches))


async def publish_searches(log: KafkaEventLog, events: Events) -> None:
    for _ in range(60):
        await log.publish(TOPICS[0], events.messages("searches", 30))
        await asyncio.sleep(0.3)


@pytest.mark.timeout(300)
async def test_a_rebuild_while_members_write_loses_nothing(
    log: KafkaEventLog, lake: Lake, members: Members
) -> None:
    members.start()
    members.start()
    events = Events(SEED + 1)
    await log.publish(TOPICS[0], events.messages("searches", 500))
    await caught_up(log, lake, members, 60)
    publishing = asyncio.create_task(publish_searches(log, events))
    before = lake.current().name
    for _ in range(3):
        await asyncio.sleep(3)
        await rebuild(log, lake)
    await publishing
    await caught_up(log, lake, members, 60)
    members.stop()
    assert lake.current().name != before
    assert partitions_and_offsets(lake)["searches"] == sorted(await in_log(log, TOPICS[0]))
