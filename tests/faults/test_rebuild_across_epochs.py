"""A rebuilt lake ends at its last row, which may lie before the present epoch."""

from collections import Counter
from pathlib import Path

import pytest

from adapters.log.fake import FakeEventLog
from adapters.log.port import LogRecord
from analytics.compaction import forget
from analytics.epochs import epoch_of
from analytics.lake import TOPICS, ForgetRequest, Lake, LakePartition
from consumers.analytics.rebuild import rebuild
from consumers.analytics.restore import restore_lost
from schemas.topics import SEARCHES
from tests.faults.test_lake_after_log_loss import catch_up, grow, ids, reported
from tests.support.lake_events import table


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
async def log(lake: Lake) -> FakeEventLog:
    """A log of 60 searches, all filed."""
    made = FakeEventLog()
    for topic in TOPICS:
        made._partitions(topic)
    await grow(made, 1, 60)
    await catch_up(made, lake)
    return made


def lose(log: FakeEventLog) -> None:
    log.topics[SEARCHES.name] = [[] for _ in range(SEARCHES.partitions)]


def forget_the_newest_of_each_partition(lake: Lake) -> None:
    rows = table(lake, SEARCHES).to_pylist()
    newest = {row["partition"]: row["search_id"] for row in rows}
    assert len(newest) == SEARCHES.partitions
    assert forget(lake, ForgetRequest(frozenset(newest.values()))) == len(newest)


def assert_rows_end_before_the_epochs(lake: Lake) -> None:
    generation = lake.current()
    for number in range(SEARCHES.partitions):
        partition = LakePartition(SEARCHES.name, number)
        assert generation.end(partition).offset < epoch_of(generation, partition).start


@pytest.mark.slow
async def test_a_rebuild_after_forgetting_and_a_loss_continues_from_the_log(
    lake: Lake, log: FakeEventLog
) -> None:
    forget_the_newest_of_each_partition(lake)
    lose(log)
    await catch_up(log, lake)
    before = ids(lake)
    await rebuild(log, lake)
    assert_rows_end_before_the_epochs(lake)
    assert await catch_up(log, lake) == 0
    await grow(log, 2, 30)
    assert await catch_up(log, lake) == 30
    assert ids(lake) == Counter({*before, *await reported(log)})


@pytest.mark.slow
async def test_a_rebuild_after_two_losses_continues_from_the_log(
    lake: Lake, log: FakeEventLog
) -> None:
    before = ids(lake)
    lose(log)
    await catch_up(log, lake)
    await restore_lost(log, lake)
    await catch_up(log, lake)
    lose(log)
    await catch_up(log, lake)
    await rebuild(log, lake)
    assert_rows_end_before_the_epochs(lake)
    assert await catch_up(log, lake) == 0
    await restore_lost(log, lake)
    assert set(await reported(log)) == set(before)
    await grow(log, 2, 30)
    await catch_up(log, lake)
    assert ids(lake) == Counter({*before, *await reported(log)})
    assert len(ids(lake)) == 90


@pytest.mark.slow
async def test_a_restoration_into_an_empty_log_ends_after_a_rebuild(
    lake: Lake, log: FakeEventLog
) -> None:
    forget_the_newest_of_each_partition(lake)
    lose(log)
    await catch_up(log, lake)
    await rebuild(log, lake)
    await restore_lost(log, lake)
    await catch_up(log, lake)
    await restore_lost(log, lake)
    assert await restore_lost(log, lake) == {}


@pytest.mark.slow
async def test_a_second_rebuild_and_a_further_loss_keep_every_row_once(
    lake: Lake, log: FakeEventLog
) -> None:
    forget_the_newest_of_each_partition(lake)
    lose(log)
    await catch_up(log, lake)
    expected = set(ids(lake))
    for seed in (2, 3):
        await rebuild(log, lake)
        await grow(log, seed, 30)
        await rebuild(log, lake)
        expected |= set(await reported(log))
        assert ids(lake) == Counter(expected)
        assert await catch_up(log, lake) == 0
        lose(log)
        await catch_up(log, lake)
    assert ids(lake) == Counter(expected)


class Trimmed(FakeEventLog):
    """A log whose retention has removed the first records of each partition."""

    first = 0

    async def bounds(self, topic: object) -> dict[int, tuple[int, int]]:
        found = await super().bounds(topic)  # type: ignore[arg-type]
        return {number: (min(self.first, end), end) for number, (_, end) in found.items()}


@pytest.mark.slow
async def test_a_log_that_begins_before_the_epochs_is_a_new_log(lake: Lake) -> None:
    """Its first records would be filed at places that are taken."""
    log = Trimmed()
    for topic in TOPICS:
        log._partitions(topic)
    await grow(log, 1, 60)
    await catch_up(log, lake)
    before = ids(lake)
    kept: list[list[LogRecord]] = log.topics[SEARCHES.name]
    log.first = min(len(partition) for partition in kept) - 1
    for partition in kept:
        del partition[log.first :]
    await catch_up(log, lake)
    lose(log)
    log.first = 0
    await grow(log, 2, 200)
    await rebuild(log, lake)
    assert ids(lake) == Counter({*before, *await reported(log)})
