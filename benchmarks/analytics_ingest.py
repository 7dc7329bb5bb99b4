"""Search events written to the lake per second, against a bare loop; and dashboard queries.

    python -m benchmarks.analytics_ingest --events 1000000

starts a broker of its own and appends a section to `benchmarks/results/analytics_ingest.md`.

The bare loop is one process: aiokafka's `getmany`, `json.loads`, `pyarrow.Table.from_pylist` with
the same columns, and `pyarrow.parquet.write_table` with the same compression and rows per file. It
validates nothing, has no group, stores no offsets, and would lose or duplicate events when killed.
Ours is the process `python -m consumers analytics` as it runs in the stack; its time is from its
start to its last file. Both read the same topics of the same broker. The ratio is also given in
processor time, which is more reliable on a machine that runs other work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from aiokafka import AIOKafkaConsumer

from adapters.log.kafka import KafkaEventLog
from analytics.columns import RECORD_FIELDS, schema_of
from analytics.dashboard import dashboard
from analytics.lake import Lake
from analytics.views import EventFilters, query
from schemas.topics import SEARCHES
from tests.support.lake_events import Events
from tests.support.watcher_processes import running_broker

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "analytics_ingest.md"
TITLE = """# Events written to the lake, and queries on it

End to end, against a bare loop that consumes with aiokafka and writes the same Parquet files.

"""
FLUSH_RECORDS = 50_000
EVENT_SCHEMA = pa.schema(list(schema_of(SEARCHES))[len(RECORD_FIELDS) :])


async def publish(bootstrap: str, count: int) -> int:
    """Publish to `searches` until it has this many events, with at most 10 results each."""
    async with KafkaEventLog(bootstrap) as log:
        there = sum(end - start for start, end in (await log.bounds(SEARCHES)).values())
        events = Events(there + 1)
        while there < count:
            messages = events.messages("searches", min(5_000, count - there))
            await log.publish(SEARCHES, messages)
            there += len(messages)
            events.searches.clear()
    return there


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall-clock and processor time, in seconds."""

    wall: float
    processor: float


async def measure_bare(bootstrap: str, total: int, folder: Path) -> Timing:
    """The bare loop."""
    consumer = AIOKafkaConsumer(
        SEARCHES.name,
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        fetch_max_bytes=32 * 1024 * 1024,
        max_partition_fetch_bytes=8 * 1024 * 1024,
    )
    started, processor = time.perf_counter(), time.process_time()
    await consumer.start()
    waiting: list[dict[str, object]] = []
    read = files = 0
    try:
        while read < total:
            for records in (await consumer.getmany(timeout_ms=500, max_records=10_000)).values():
                waiting += [_row(record) for record in records]
                read += len(records)
            if len(waiting) >= FLUSH_RECORDS or read >= total:
                table = pa.Table.from_pylist(waiting, schema=_BARE_SCHEMA)
                pq.write_table(table, folder / f"{files}.parquet", compression="zstd")
                files += 1
                waiting.clear()
    finally:
        await consumer.stop()
    return Timing(time.perf_counter() - started, time.process_time() - processor)


_TEXT_TIME = EVENT_SCHEMA.set(
    EVENT_SCHEMA.get_field_index("occurred_at"), pa.field("occurred_at", pa.string())
)
_BARE_SCHEMA = pa.schema([*RECORD_FIELDS[:3], *_TEXT_TIME])
"""The same columns; the time stays text, so the bare loop need not parse it."""


def _row(record: object) -> dict[str, object]:
    row: dict[str, object] = json.loads(record.value)  # type: ignore[attr-defined]
    row["filters"] = json.dumps(row["filters"])
    row["partition"] = record.partition  # type: ignore[attr-defined]
    row["offset"] = record.offset  # type: ignore[attr-defined]
    row["logged_at"] = record.timestamp  # type: ignore[attr-defined]
    return row


def measure_ours(bootstrap: str, total: int, folder: Path) -> Timing:
    """Our consumer, from its start to the last event written."""
    lake = Lake(str(folder / "lake"))
    environment = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
        "LAKE_URL": lake.url,
        "ANALYTICS_GROUP": f"benchmark-{uuid4().hex[:8]}",
        "FLUSH_RECORDS": str(FLUSH_RECORDS),
    }
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "consumers", "analytics"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            time.sleep(0.2)
            if process.poll() is not None:
                raise SystemExit(f"the consumer ended with {process.returncode}")
            used = lake.existing()
            files = [] if used is None else used.snapshot(SEARCHES.name)
            if sum(file.last - file.first + 1 for file in files) >= total:
                spent = psutil.Process(process.pid).cpu_times()
                return Timing(time.perf_counter() - started, spent.user + spent.system)
    finally:
        process.terminate()
        process.wait(60)


def query_times(folder: Path) -> dict[str, float]:
    """Query -> seconds, the best of five, for the whole page and for single charts."""
    lake = Lake(str(folder / "lake"))
    queries = {
        "searches over time": lambda: query(lake, "FROM searches_over_time"),
        "latency percentiles": lambda: query(lake, "FROM latency_by_stage"),
        "weak queries": lambda: query(lake, "FROM weak_queries LIMIT 15"),
        "the whole page, 17 queries": lambda: dashboard(lake, EventFilters()),
    }
    found: dict[str, float] = {}
    for name, run in queries.items():
        times = []
        for _ in range(5):
            started = time.perf_counter()
            run()
            times.append(time.perf_counter() - started)
        found[name] = min(times)
    return found


async def measure(bootstrap: str, count: int, rounds: int, say: Callable[[str], None]) -> None:
    """Run, and pass the results to `say` line by line, as Markdown."""
    total = await publish(bootstrap, count)
    say(
        f"## {total:,} search events, {datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}\n"
    )
    say(f"`python -m benchmarks.analytics_ingest --events {count} --rounds {rounds}`\n")
    say("| round | bare loop, events/s | ours, events/s | ours / bare | by processor time |")
    say("|---|---|---|---|---|")
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            theirs = await measure_bare(bootstrap, total, folder)
            own = await asyncio.to_thread(measure_ours, bootstrap, total, folder)
            say(
                f"| {number + 1} | {total / theirs.wall:.0f} | {total / own.wall:.0f} "
                f"| {theirs.wall / own.wall:.2f} | {theirs.processor / own.processor:.2f} |"
            )
            if number == rounds - 1:
                say("\n| dashboard query, best of five | seconds |\n|---|---|")
                for name, seconds in query_times(folder).items():
                    say(f"| {name} | {seconds:.3f} |")
    say("")


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)  # or the starting broker fills the log
    new = not RESULTS.exists()
    with (
        tempfile.TemporaryDirectory() as state,
        running_broker(Path(state)) as broker,
        RESULTS.open("a", encoding="utf-8") as file,
    ):
        if new:
            file.write(TITLE)

        def say(line: str) -> None:
            print(line, flush=True)
            file.write(f"{line}\n")

        asyncio.run(measure(broker.address, arguments.events, arguments.rounds, say))


if __name__ == "__main__":
    main()
