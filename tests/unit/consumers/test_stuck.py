"""A consumer with work but no progress ends itself; a waiting one does not."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from adapters import progress
from adapters.errors import Unavailable
from adapters.progress import Activity, Stuck, Watchdog
from consumers.analytics import app as analytics
from consumers.indexing import app as main
from consumers.indexing.batch import IndexingCounters
from consumers.process import backlog

QUIET = 0.1


@dataclass
class Group:
    """What the watch looks at: the group's lag, the records in flight and what was done."""

    behind: int = 5
    fails: bool = False
    pipeline: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(in_flight=0, committed=0)
    )
    counters: IndexingCounters = field(default_factory=IndexingCounters)
    filed: int = 0
    due_in: float = 1.0

    @property
    def work(self) -> SimpleNamespace:
        return SimpleNamespace(pipeline=self.pipeline)

    async def unread(self) -> int:
        if self.fails:
            raise Unavailable("the broker is down")
        return self.behind

    async def broker_is_away(self) -> bool:
        return self.fails


async def watched(activity: Activity, report: Coroutine[Any, Any, None]) -> None:
    with activity.here():
        reporting = asyncio.create_task(report)
    try:
        await Watchdog([activity], stuck_seconds=QUIET).run()
    finally:
        reporting.cancel()


def indexing(group: Group) -> asyncio.Task[None]:
    any_group: Any = group
    work = main.IndexingProgress()
    work.member = work.indexer = any_group
    activity = Activity("indexing", pending=work.pending, achieved=work.achieved)
    return asyncio.create_task(
        watched(activity, work.backlog.follow(group, lambda: group.counters))
    )


def filing(group: Group) -> asyncio.Task[None]:
    any_group: Any = group
    work = analytics.FilingProgress(any_group)
    work.joined = True
    activity = Activity("filing", pending=work.pending, achieved=work.achieved)
    return asyncio.create_task(watched(activity, work.backlog.follow(group, lambda: group.filed)))


Watch = Callable[[Group], asyncio.Task[None]]
both = pytest.mark.parametrize("watch", [indexing, filing])


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(backlog, "LAG_SECONDS", 0.02)


async def lives_on(watching: asyncio.Task[None]) -> bool:
    done, _ = await asyncio.wait([watching], timeout=QUIET * 5)
    watching.cancel()
    return not done


@both
async def test_a_backlog_without_progress_ends_the_process(watch: Watch) -> None:
    with pytest.raises(Stuck, match="5 waiting"):
        await asyncio.wait_for(watch(Group()), 60)


@pytest.mark.slow
@both
async def test_a_process_without_a_backlog_is_not_stuck(watch: Watch) -> None:
    assert await lives_on(watch(Group(behind=0)))


@pytest.mark.slow
@both
async def test_a_process_that_makes_progress_is_not_stuck(watch: Watch) -> None:
    group = Group()

    async def work() -> None:
        while True:
            group.counters.received += 1
            group.filed += 1
            await asyncio.sleep(0.01)

    working = asyncio.create_task(work())
    assert await lives_on(watch(group))
    working.cancel()


@pytest.mark.slow
@both
async def test_a_process_whose_broker_is_down_is_not_stuck(watch: Watch) -> None:
    assert await lives_on(watch(Group(fails=True)))


async def test_a_batch_in_flight_counts_as_backlog() -> None:
    """A wait for a server is recognised by its retries."""
    group = Group(behind=0)
    group.pipeline.in_flight = 3
    with pytest.raises(Stuck, match="3 waiting"):
        await asyncio.wait_for(indexing(group), 60)
