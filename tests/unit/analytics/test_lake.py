"""The lake: rows, files, exactly-once, compaction, forgetting, rebuild."""

import json
import random
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from adapters.errors import Unavailable
from adapters.helper_processes import HelperPool
from adapters.log.fake import FakeEventLog
from adapters.log.port import LogRecord, Position
from analytics.columns import schema_of, table_of
from analytics.compaction import (
    CompactionJob,
    CompactionResult,
    compact,
    expire,
    forget,
)
from analytics.lake import TOPICS, ForgetRequest, Lake, LakePartition, PartitionEnd, WriteConflict
from consumers.analytics.rebuild import rebuild
from consumers.analytics.replay import replay
from consumers.analytics.writer import LakeWriter
from schemas.codec import decode
from schemas.events import SearchPerformed
from schemas.topics import MODELS, SEARCHES, Topic
from tests.support.lake_events import BEGIN, Events, all_tables, records, table

PARTITION = LakePartition("searches", 0)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def searches(count: int, first: int = 0, *, step_ms: int = 1000) -> list[LogRecord]:
    return records(Events(first).messages("searches", count), first=first, step_ms=step_ms)


def offsets(lake: Lake) -> list[int]:
    found: list[int] = table(lake, SEARCHES)["offset"].to_pylist()
    return found


class TestColumns:
    @pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
    def test_every_field_of_every_event_is_kept(self, topic: Topic) -> None:
        made = records(Events(1).messages(topic.name, 50))
        rows = table_of(topic, made)
        assert rows.schema == schema_of(topic)
        for record, row in zip(made, rows.to_pylist(), strict=True):
            event = decode(topic.event, record.value).model_dump()
            assert row["invalid"] is None
            assert row["offset"] == record.position.offset
            for name, value in event.items():
                found = row[name]
                if name == "filters":
                    assert json.loads(found) == value
                elif isinstance(value, tuple | list):
                    assert found == list(value)
                elif isinstance(value, dict | int | float | bytes) or value is None:
                    assert found == value, name
                else:
                    assert found == value or found == str(value), name

    def test_invalid_records_are_stored_unchanged(self) -> None:
        made = [
            LogRecord(Position(3, 7), b"\xff", b"nonsense", 0),
            LogRecord(Position(3, 8), None, None, 5),
        ]
        first, second = table_of(SEARCHES, made).to_pylist()
        assert first["raw"] == b"nonsense"
        assert "SearchPerformed" in first["invalid"]
        assert second["raw"] is None
        assert "null" in second["invalid"]
        assert second["search_id"] is None


class TestAppend:
    def test_files_are_named_by_their_offsets(self, lake: Lake) -> None:
        generation = lake.current()
        end = generation.append(SEARCHES, PARTITION, PartitionEnd(), searches(10))
        end = generation.append(SEARCHES, PARTITION, end, searches(5, 10))
        assert end == PartitionEnd(15, date(2026, 1, 5))
        names = sorted(Path(file.path).name for file in generation.files("searches"))
        assert names == ["searches-0-0-9.parquet", "searches-0-10-14.parquet"]
        assert offsets(lake) == list(range(15))
        assert generation.end(PARTITION) == end

    def test_a_second_writer_gets_a_conflict_and_writes_nothing(self, lake: Lake) -> None:
        generation = lake.current()
        generation.append(SEARCHES, PARTITION, PartitionEnd(), searches(10))
        with pytest.raises(WriteConflict) as moved:
            generation.append(SEARCHES, PARTITION, PartitionEnd(), searches(7))
        assert moved.value.end.offset == 10
        assert offsets(lake) == list(range(10))

    def test_a_flush_over_midnight_is_cut_by_date(self, lake: Lake) -> None:
        generation = lake.current()
        generation.append(SEARCHES, PARTITION, PartitionEnd(), searches(30, step_ms=3_600_000))
        found = {
            (file.date.isoformat(), file.first, file.last) for file in generation.files("searches")
        }
        assert found == {("2026-01-05", 0, 17), ("2026-01-06", 18, 29)}

    def test_a_crash_between_two_days_loses_nothing_and_doubles_nothing(
        self, lake: Lake, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        generation = lake.current()
        made = searches(60, step_ms=3_600_000)
        write, written = lake.storage.write_pieces, 0

        def dying(path: str, schema: pa.Schema, pieces: Iterable[pa.Table]) -> int:
            nonlocal written
            if written == 2:
                raise RuntimeError("killed")
            written += 1
            return write(path, schema, pieces)

        monkeypatch.setattr(lake.storage, "write_pieces", dying)
        with pytest.raises(RuntimeError, match="killed"):
            generation.append(SEARCHES, PARTITION, PartitionEnd(), made)
        monkeypatch.undo()
        end = generation.end(PARTITION)
        assert 0 < end.offset < 60
        generation.append(SEARCHES, PARTITION, end, made[end.offset :])
        assert offsets(lake) == list(range(60))

    def test_dates_never_go_back(self, lake: Lake) -> None:
        generation = lake.current()
        made = searches(4, step_ms=86_400_000)
        late = LogRecord(Position(0, 4), made[0].key, made[0].value, made[0].timestamp_ms)
        end = generation.append(SEARCHES, PARTITION, PartitionEnd(), [*made, late])
        assert end.date == date(2026, 1, 8)
        assert generation.end(PARTITION) == PartitionEnd(5, date(2026, 1, 8))

    def test_a_gap_of_the_log_is_covered(self, lake: Lake) -> None:
        generation = lake.current()
        generation.append(SEARCHES, PARTITION, PartitionEnd(), searches(3, 100))
        (file,) = generation.files("searches")
        assert (file.first, file.last) == (0, 102)
        assert offsets(lake) == [100, 101, 102]

    @pytest.mark.parametrize("url", ["memory://lake-of-tests", "local"])
    def test_the_lake_works_on_any_file_system(self, url: str, tmp_path: Path) -> None:
        lake = Lake(tmp_path.as_uri() if url == "local" else url)
        end = lake.current().append(SEARCHES, PARTITION, PartitionEnd(), searches(10))
        lake.current().append(SEARCHES, PARTITION, end, searches(10, 10))
        assert offsets(lake) == list(range(20))
        assert compact(lake.current(), "searches", min_files=2).written == 1
        assert offsets(lake) == list(range(20))


class TestCompaction:
    @pytest.mark.slow
    def test_compaction_keeps_rows_and_merges_files(self, lake: Lake) -> None:
        generation = lake.current()
        end = PartitionEnd()
        for first in range(0, 200, 5):
            end = generation.append(SEARCHES, PARTITION, end, searches(5, first, step_ms=1_800_000))
        before = table(lake, SEARCHES)
        compact(generation, "searches", min_files=2, grace_seconds=1000)
        assert table(lake, SEARCHES).equals(before)
        assert len(generation.files("searches")) > 40, "the old ones stay for readers"
        compact(generation, "searches", min_files=2, grace_seconds=0)
        days = {file.date for file in generation.files("searches")}
        assert len(generation.files("searches")) == len(days)
        assert table(lake, SEARCHES).equals(before)
        assert generation.end(PARTITION) == end

    @pytest.mark.slow
    async def test_a_job_is_due_while_it_has_something_to_do(self, lake: Lake) -> None:
        def job(grace: float) -> CompactionJob:
            return CompactionJob(lake.storage.root, "searches", 0, 4, grace)

        generation = lake.current()
        end = PartitionEnd()
        for first in range(0, 15, 5):
            end = generation.append(SEARCHES, PARTITION, end, searches(5, first))
        assert not job(0).is_due()
        end = generation.append(SEARCHES, PARTITION, end, searches(5, 15))
        assert job(1000).is_due()
        helpers = HelperPool(1)
        try:
            assert await helpers.run(CompactionJob.run, job(1000)) == CompactionResult(
                merged=4, written=1
            )
            assert not job(1000).is_due()
            assert job(0).is_due()
            assert await helpers.run(CompactionJob.run, job(0)) == CompactionResult(removed=4)
        finally:
            helpers.close()
        assert not job(0).is_due()
        assert offsets(lake) == list(range(20))

    @pytest.mark.slow
    def test_a_reader_with_an_old_list_still_finds_its_files(self, lake: Lake) -> None:
        generation = lake.current()
        end = PartitionEnd()
        for first in range(0, 20, 5):
            end = generation.append(SEARCHES, PARTITION, end, searches(5, first))
        listed = generation.snapshot("searches")
        compact(generation, "searches", min_files=2)
        compact(generation, "searches", min_files=2)
        assert sum(lake.storage.read_table(file.path).num_rows for file in listed) == 20

    @pytest.mark.slow
    def test_a_compaction_can_be_interrupted_anywhere(
        self, lake: Lake, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        generation = lake.current()
        end = PartitionEnd()
        for first in range(0, 50, 5):
            end = generation.append(SEARCHES, PARTITION, end, searches(5, first))
        before = table(lake, SEARCHES)
        compact(generation, "searches", min_files=2)
        remove, removed = lake.storage.remove, 0

        def dying(path: str, *, recursive: bool = False) -> None:
            nonlocal removed
            if removed == 3:
                raise RuntimeError("killed")
            removed += 1
            remove(path, recursive=recursive)

        monkeypatch.setattr(lake.storage, "remove", dying)
        with pytest.raises(RuntimeError, match="killed"):
            compact(generation, "searches", grace_seconds=0)
        monkeypatch.undo()
        assert table(lake, SEARCHES).equals(before)


class TestForget:
    def fill(self, lake: Lake) -> list[SearchPerformed]:
        events = Events(5)
        made = events.messages("searches", 40)
        lake.current().append(SEARCHES, PARTITION, PartitionEnd(), records(made))
        feedback = events.messages("feedback", 60)
        topic = next(topic for topic in TOPICS if topic.name == "feedback")
        lake.current().append(
            topic, LakePartition("feedback", 0), PartitionEnd(), records(feedback)
        )
        return [m.event for m in made if isinstance(m.event, SearchPerformed)]

    def test_a_forgotten_search_and_its_ratings_are_deleted(self, lake: Lake) -> None:
        search = str(self.fill(lake)[3].search_id)
        assert forget(lake, ForgetRequest(frozenset([search]))) > 0
        assert search not in table(lake, "searches")["search_id"].to_pylist()
        assert search not in table(lake, "feedback")["search_id"].to_pylist()
        assert lake.current().end(PARTITION).offset == 40

    def test_a_forgotten_client_and_its_ratings_stay_deleted(self, lake: Lake) -> None:
        made = self.fill(lake)
        gone = {str(event.search_id) for event in made if event.client == "c1"}
        forget(lake, ForgetRequest(clients=frozenset(["c1"])))
        assert "c1" not in table(lake, "searches")["client"].to_pylist()
        assert not gone & set(table(lake, "feedback")["search_id"].to_pylist())
        assert table(lake, "searches").num_rows == 40 - len(gone)
        end = lake.current().end(PARTITION)
        lake.current().append(SEARCHES, PARTITION, end, searches(40, 40))
        assert "c1" not in table(lake, "searches")["client"].to_pylist()


class TestExpire:
    @pytest.mark.slow
    def test_only_older_events_are_deleted_and_the_partition_continues(self, lake: Lake) -> None:
        made, generation = Events(8).messages("searches", 60), lake.current()
        rows = records(made, step_ms=6 * 3_600_000)  # 15 days
        end = generation.append(SEARCHES, PARTITION, PartitionEnd(), rows[:40])
        end = generation.append(SEARCHES, PARTITION, end, rows[40:])
        assert expire(lake, 5, now=BEGIN + timedelta(days=15)) > 5
        kept = table(lake, SEARCHES)["offset"].to_pylist()
        oldest = (BEGIN + timedelta(days=10)).date()
        assert kept == [
            row.position.offset
            for row in rows
            if datetime.fromtimestamp(row.timestamp_ms / 1000, UTC).date() >= oldest
        ]
        assert expire(lake, 5, now=BEGIN + timedelta(days=15)) == 0
        assert expire(lake, 5, now=BEGIN + timedelta(days=99)) > 0
        assert table(lake, SEARCHES).num_rows == 0
        assert generation.end(PARTITION) == end, "the last file says so, without its rows"
        generation.append(SEARCHES, PARTITION, end, searches(60, 2))

    def test_forgetting_keeps_other_topics(self, lake: Lake) -> None:
        rows = records(Events(8).messages("models", 3))
        (topic,) = [topic for topic in TOPICS if topic.name == "models"]
        lake.current().append(topic, LakePartition("models", 0), PartitionEnd(), rows)
        assert expire(lake, 1) == 0
        assert table(lake, "models").num_rows == 3


async def filled_log(seed: int, count: int = 60) -> FakeEventLog:
    log, events = FakeEventLog(), Events(seed)
    for topic in TOPICS:
        await log.publish(topic, events.messages(topic.name, 6 if topic is MODELS else count))
    return log


async def follow(log: FakeEventLog, lake: Lake, rng: random.Random) -> None:
    """Bring the lake up to the log with a writer that is replaced at random moments."""
    everything = {
        (topic, number): part
        for topic in TOPICS
        for number, part in enumerate(log.topics[topic.name])
    }
    while True:
        writer = LakeWriter(lake, log, flush_records=10**6, flush_seconds=100)
        starts = await writer.assigned(list(everything))
        rest = {partition: part[starts[partition] :] for partition, part in everything.items()}
        if not any(rest.values()):
            return
        for partition, part in rest.items():
            writer.add({partition: part[: rng.randint(0, 12)]})
            if rng.random() < 0.3:
                await writer.flush()
        if rng.random() < 0.5:
            await writer.flush()


class TestWriter:
    @pytest.mark.slow
    async def test_killed_writers_lose_and_repeat_nothing(self, lake: Lake) -> None:
        log = await filled_log(3)
        await follow(log, lake, random.Random(3))
        for topic in TOPICS:
            wanted = [
                (record.position.partition, record.position.offset, record.key.decode())
                async for record in log.read_all(topic)
                if record.key
            ]
            rows = table(lake, topic)
            found = zip(
                rows["partition"].to_pylist(),
                rows["offset"].to_pylist(),
                rows["key"].to_pylist(),
                strict=True,
            )
            assert list(found) == sorted(wanted)

    async def test_two_writers_of_one_partition_store_each_event_once(self, lake: Lake) -> None:
        log = await filled_log(4)
        part = log.topics["searches"][0]
        partition = (SEARCHES, 0)
        one, two = (LakeWriter(lake, log, flush_records=9, flush_seconds=1) for _ in range(2))
        await one.assigned([partition])
        await two.assigned([partition])
        one.add({partition: part[:5]})
        two.add({partition: part[:8]})
        assert await one.flush() == {}
        assert await two.flush() == {partition: 5}
        two.add({partition: part[5:8]})
        assert await two.flush() == {}
        assert offsets(lake) == list(range(8))

    async def test_a_storage_that_is_down_is_waited_for(
        self, lake: Lake, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log = await filled_log(4)
        writer = LakeWriter(lake, log, flush_records=9, flush_seconds=1)
        await writer.assigned([(SEARCHES, 0)])
        writer.add({(SEARCHES, 0): log.topics["searches"][0]})
        write = lake.storage.write_pieces

        def down(path: str, schema: pa.Schema, pieces: Iterable[pa.Table]) -> int:
            raise Unavailable("no space left")

        monkeypatch.setattr(lake.storage, "write_pieces", down)
        with pytest.raises(Unavailable):
            await writer.flush()
        monkeypatch.setattr(lake.storage, "write_pieces", write)
        await writer.flush()
        assert offsets(lake) == list(range(len(log.topics["searches"][0])))


class TestRebuild:
    @pytest.mark.slow
    async def test_a_rebuilt_lake_equals_the_live_lake(self, lake: Lake) -> None:
        log = await filled_log(7)
        await follow(log, lake, random.Random(7))
        before, old = all_tables(lake), lake.current()
        report = await rebuild(log, lake, batch_records=9)
        assert lake.current().name != old.name
        after = all_tables(lake)
        for name, rows in before.items():
            assert after[name].equals(rows), name
        assert report.carried == dict.fromkeys(before, 0)
        assert sum(report.read.values()) == 60 * 4 + 6

    @pytest.mark.slow
    async def test_events_that_the_log_lost_are_copied(self, lake: Lake) -> None:
        log = await filled_log(8)
        await follow(log, lake, random.Random(8))
        before = all_tables(lake)
        indexed = log.topics["images.indexed"]
        for part in indexed:
            del part[: len(part) // 2]
        indexed[2].clear()
        del log.topics["models"][0][1:4]
        shrunk = {n: (p[0].position.offset, p[-1].position.offset + 1) if p else (0, 10**3)
                  for n, p in enumerate(indexed)}  # fmt: skip
        original = log.bounds

        async def bounds(topic: Topic) -> dict[int, tuple[int, int]]:
            found = dict(await original(topic))
            if topic.name == "images.indexed":
                return shrunk
            return {0: (0, 6)} if topic is MODELS else found

        log.bounds = bounds  # type: ignore[method-assign]
        report = await rebuild(log, lake, batch_records=4)
        after = all_tables(lake)
        for name, rows in before.items():
            assert after[name].equals(rows), name
        assert report.carried["models"] == 3
        assert report.carried["images.indexed"] > 20

    @pytest.mark.slow
    async def test_a_writer_continues_in_the_rebuilt_lake(self, lake: Lake) -> None:
        log = await filled_log(9)
        part = log.topics["searches"][1]
        partition = (SEARCHES, 1)
        writer = LakeWriter(lake, log, flush_records=9, flush_seconds=1)
        await writer.assigned([partition])
        writer.add({partition: part[:4]})
        await writer.flush()
        more = Events(99).messages("searches", 40)
        await rebuild(log, lake)
        end = len(part)
        await log.publish(SEARCHES, more)
        writer.add({partition: part[4:6]})
        assert await writer.flush() == {partition: end}
        writer.add({partition: part[end:]})
        assert await writer.flush() == {}
        rows = table(lake, SEARCHES)
        found = rows.filter(pa.compute.equal(rows["partition"], 1))["offset"].to_pylist()
        assert found == list(range(len(part)))

    @pytest.mark.slow
    async def test_forgotten_events_stay_deleted_after_a_rebuild(self, lake: Lake) -> None:
        log = await filled_log(10)
        await follow(log, lake, random.Random(10))
        search = table(lake, "searches")["search_id"][0].as_py()
        forget(lake, ForgetRequest(frozenset([search])))
        before = all_tables(lake)
        await rebuild(log, lake)
        assert all(all_tables(lake)[name].equals(rows) for name, rows in before.items())

    @pytest.mark.slow
    async def test_a_rebuild_that_fails_leaves_the_lake_as_it_was(self, lake: Lake) -> None:
        log = await filled_log(11)
        await follow(log, lake, random.Random(11))
        before = lake.current().name
        log.available = False
        with pytest.raises(Unavailable):
            await rebuild(log, lake)
        assert lake.current().name == before
        assert [name for name in lake.storage.names("") if name.startswith("g-")] == [before]


class TestReplay:
    async def test_lines_are_the_events(self) -> None:
        log = await filled_log(12)
        lines = [json.loads(line) async for line in replay(log, SEARCHES)]
        assert len(lines) == 60
        assert {line["key"] for line in lines} == {line["event"]["search_id"] for line in lines}

    async def test_a_replay_has_a_first_and_a_last_offset(self) -> None:
        log = await filled_log(12)
        lines = [json.loads(line) async for line in replay(log, SEARCHES, 2, 5)]
        assert {line["offset"] for line in lines} == {2, 3, 4}
        assert [line async for line in replay(log, SEARCHES, None, BEGIN)] == []

    async def test_a_replay_encodes_values_that_are_not_json(self) -> None:
        log = await filled_log(12, 1)
        part = log.topics["models"][0]
        part.append(LogRecord(Position(0, len(part)), b"k", b"\xff", 0))
        part.append(LogRecord(Position(0, len(part)), b"k", None, 0))
        *_, bad, gone = [json.loads(line) async for line in replay(log, MODELS)]
        assert bad["value_base64"] == "/w=="
        assert gone["event"] is None
