"""The lake keeps events that Kafka has lost, and continues with new ones."""

import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.log.fake import FakeEventLog
from adapters.log.port import LogRecord
from analytics.columns import event_of, table_of
from analytics.compaction import compact
from analytics.epochs import epoch_of
from analytics.lake import TOPICS, Lake, LakePartition
from analytics.views import query
from consumers.analytics.alignment import RESTORE_FOLDER
from consumers.analytics.rebuild import rebuild
from consumers.analytics.restore import restore_lost
from consumers.analytics.writer import LakeWriter
from schemas.codec import decode
from schemas.topics import FEEDBACK, SEARCHES, Topic
from tests.support.lake_events import Events, records, table


async def catch_up(log: FakeEventLog, lake: Lake, topic: Topic = SEARCHES) -> int:
    """A writer that begins anew, reads to the end of the log and files all of it."""
    partitions = [(topic, number) for number in range(len(log.topics[topic.name]))]
    writer = LakeWriter(lake, log, flush_records=10**6, flush_seconds=100)
    starts = await writer.assigned(partitions)
    assert all(start >= 0 for start in starts.values()), "a consumer cannot go there"
    for partition, start in starts.items():
        rest = [r for r in log.topics[topic.name][partition[1]] if r.position.offset >= start]
        writer.add({partition: rest})
    await writer.flush()
    assert writer.ends() == {
        partition: len(log.topics[topic.name][partition[1]]) for partition in partitions
    }
    return writer.filed


def ids(lake: Lake, topic: Topic = SEARCHES) -> Counter[str]:
    return Counter(table(lake, topic)["event_id"].to_pylist())


async def reported(log: FakeEventLog, topic: Topic = SEARCHES) -> list[str]:
    return [str(decode(topic.event, r.value).event_id) async for r in log.read_all(topic)]


async def grow(log: FakeEventLog, seed: int, count: int) -> None:
    if count:
        await log.publish(SEARCHES, Events(seed).messages("searches", count))


def cut(log: FakeEventLog, lost: int) -> None:
    """Each partition loses its last records, up to `lost` of them."""
    for partition in log.topics[SEARCHES.name]:
        del partition[max(0, len(partition) - lost) :]


@pytest.mark.slow
@settings(max_examples=40)
@given(
    st.integers(0, 40),
    st.lists(
        st.tuples(
            st.sampled_from(["cut", "anew", "grow", "file", "rebuild", "compact", "restore"]),
            st.integers(0, 30),
        ),
        max_size=8,
    ),
)
async def test_every_event_is_stored_once_after_any_losses(
    first: int, steps: list[tuple[str, int]]
) -> None:
    """The lake holds all that was ever filed and all that the log holds now, each once."""
    with tempfile.TemporaryDirectory() as folder:
        log, lake = FakeEventLog(), Lake(folder)
        log._partitions(SEARCHES)
        for topic in TOPICS:
            log._partitions(topic)
        seed = 1
        await grow(log, seed, first)
        await catch_up(log, lake)
        expected = set(await reported(log))
        for step, amount in [*steps, ("file", 0)]:
            if step == "cut":
                cut(log, amount)
            elif step == "anew":
                for partition in log.topics[SEARCHES.name]:
                    partition.clear()
            elif step == "grow":
                seed += 1
                await grow(log, seed, amount)
            elif step == "rebuild":
                await rebuild(log, lake, batch_records=7)
            elif step == "compact":
                compact(lake.current(), "searches", min_files=2, grace_seconds=0)
            elif step == "restore":
                await restore_lost(log, lake)
            else:
                await catch_up(log, lake)
            if step in ("file", "rebuild"):
                expected |= set(await reported(log))
                assert ids(lake) == Counter(expected), (step, steps)
        assert query(lake, "SELECT count(*) AS n FROM all_searches") == [{"n": len(expected)}]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.mark.slow
async def test_a_log_that_regrew_past_the_lakes_end_is_not_skipped(lake: Lake) -> None:
    log = FakeEventLog()
    await grow(log, 1, 60)
    await catch_up(log, lake)
    before = set(ids(lake))
    cut(log, 5)
    await grow(log, 2, 300)
    assert all(len(p) > 20 for p in log.topics["searches"]), "all are longer than before"
    await catch_up(log, lake)
    assert ids(lake) == Counter(before | set(await reported(log)))


@pytest.mark.slow
async def test_the_consumer_continues_in_the_new_epoch(lake: Lake) -> None:
    log = FakeEventLog()
    await grow(log, 1, 60)
    await catch_up(log, lake)
    cut(log, 5)
    await catch_up(log, lake)
    epochs = [epoch_of(lake.current(), LakePartition("searches", n)) for n in range(6)]
    await grow(log, 3, 40)
    assert await catch_up(log, lake) == 40
    assert [epoch_of(lake.current(), LakePartition("searches", n)) for n in range(6)] == epochs


@pytest.mark.slow
async def test_a_rebuild_keeps_what_only_the_lake_has(lake: Lake) -> None:
    log = FakeEventLog()
    for topic in TOPICS:
        log._partitions(topic)
    await grow(log, 1, 60)
    await catch_up(log, lake)
    before = ids(lake)
    cut(log, 5)
    report = await rebuild(log, lake)
    assert ids(lake) == before
    assert report.carried["searches"] >= 20


async def test_added_partitions_are_not_taken_for_a_loss(lake: Lake) -> None:
    log = FakeEventLog()
    await grow(log, 1, 30)
    await catch_up(log, lake)
    log.topics["searches"].append([])
    await catch_up(log, lake)
    assert ids(lake) == Counter(await reported(log))
    assert lake.storage.names(RESTORE_FOLDER) == []


@pytest.mark.slow
async def test_an_unchanged_log_begins_no_new_epoch(lake: Lake) -> None:
    log = FakeEventLog()
    for seed in range(4):
        await grow(log, seed, 20)
        await catch_up(log, lake)
    assert lake.storage.names(f"{lake.current().name}/_epochs") == []
    assert lake.storage.names(RESTORE_FOLDER) == []


@pytest.mark.slow
@pytest.mark.parametrize("topic", [SEARCHES, FEEDBACK], ids=lambda topic: topic.name)
async def test_events_that_the_log_lost_are_restored_with_their_ids(
    lake: Lake, topic: Topic
) -> None:
    log = FakeEventLog()
    await log.publish(topic, Events(1).messages(topic.name, 80))
    await catch_up(log, lake, topic)
    before = {r.value async for r in log.read_all(topic)}
    rows = ids(lake, topic)
    log.topics.clear()
    log._partitions(topic)
    await log.publish(topic, Events(2).messages(topic.name, 5))
    await catch_up(log, lake, topic)
    assert (await restore_lost(log, lake))[topic.name] == 80
    again = {r.value async for r in log.read_all(topic)}
    assert before <= again
    assert len(again) == 85
    await catch_up(log, lake, topic)
    new = ids(lake, topic)
    assert all(count == 1 for count in new.values())
    assert set(rows) < set(new)
    assert len(new) == 85
    # Once all of it is filed there is nothing left to be done.
    assert set((await restore_lost(log, lake)).values()) <= {0}
    assert await restore_lost(log, lake) == {}


@pytest.mark.slow
async def test_an_interrupted_restoration_is_continued(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapters.errors import Unavailable
    from consumers.analytics import restore

    monkeypatch.setattr(restore, "BATCH_EVENTS", 10)
    log = FakeEventLog()
    await grow(log, 1, 80)
    await catch_up(log, lake)
    log.topics.clear()
    log._partitions(SEARCHES)
    await catch_up(log, lake)
    publish, count = log.publish, 0

    async def failing(*arguments: object) -> object:
        nonlocal count
        count += 1
        if count == 4:
            raise Unavailable("the broker is gone")
        return await publish(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(log, "publish", failing)
    with pytest.raises(Unavailable):
        await restore_lost(log, lake)
    await restore_lost(log, lake)
    found = await reported(log)
    assert len(found) == len(set(found)) == 80


@pytest.mark.slow
async def test_restored_events_may_be_lost_again_before_they_are_stored(lake: Lake) -> None:
    log = FakeEventLog()
    await grow(log, 1, 60)
    await catch_up(log, lake)
    log.topics.clear()
    log._partitions(SEARCHES)
    await catch_up(log, lake)
    await restore_lost(log, lake)
    log.topics.clear()
    log._partitions(SEARCHES)
    await restore_lost(log, lake)
    assert len(set(await reported(log))) == 60


@pytest.mark.slow
async def test_a_restored_log_that_is_recreated_and_regrows_is_not_skipped(lake: Lake) -> None:
    """The restored events are filed as files without rows: their rows are there already."""
    log = FakeEventLog()
    await grow(log, 1, 60)
    await catch_up(log, lake)
    log.topics.clear()
    log._partitions(SEARCHES)
    await catch_up(log, lake)
    await restore_lost(log, lake)
    await catch_up(log, lake)
    for partition in log.topics[SEARCHES.name]:
        partition.clear()
    await grow(log, 2, 200)
    await catch_up(log, lake)
    assert set(await reported(log)) <= set(ids(lake))
    assert len(ids(lake)) == 260


@pytest.mark.slow
async def test_a_lost_lake_is_refilled_from_the_log(tmp_path: Path, lake: Lake) -> None:
    import shutil

    log = FakeEventLog()
    await grow(log, 1, 60)
    writer = LakeWriter(lake, log, flush_records=10**6, flush_seconds=100)
    partitions = [(SEARCHES, number) for number in range(6)]
    await writer.assigned(partitions)
    for partition in partitions:
        writer.add({partition: log.topics["searches"][partition[1]]})
    await writer.flush()
    shutil.rmtree(tmp_path / "lake")
    await grow(log, 2, 6)
    for (topic, number), start in (await writer.flush()).items():
        writer.add({(topic, number): log.topics["searches"][number][start:]})
    await writer.flush()
    assert ids(lake) == Counter(await reported(log))


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_an_event_is_restored_from_its_row(topic: Topic) -> None:
    made: list[LogRecord] = records(Events(5).messages(topic.name, 40))
    rows = table_of(topic, made).to_pylist()
    for record, row in zip(made, rows, strict=True):
        assert event_of(topic, row) == decode(topic.event, record.value)
