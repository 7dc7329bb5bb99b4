"""A consumer that has work and gets nothing of it done ends itself; one that waits does not."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from adapters.errors import Unavailable
from adapters.settings import AnalyticsSettings, IndexingSettings
from consumers import app as main
from consumers.analytics import app as analytics

QUIET = 0.1


@dataclass
class Group:
    """What the watch looks at: the group's lag, the work under way and what was done."""

    behind: int = 5
    fails: bool = False
    lane: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(under_way=False))
    counters: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(received=0))
    filed: int = 0

    async def lag(self) -> int:
        if self.fails:
            raise Unavailable("the broker is down")
        return self.behind


def indexing(group: Group) -> asyncio.Task[None]:
    settings = IndexingSettings(stuck_seconds=QUIET)
    any_group: Any = group
    return asyncio.create_task(main._watch(settings, any_group, any_group))


def filing(group: Group) -> asyncio.Task[None]:
    settings = AnalyticsSettings(stuck_seconds=QUIET)
    any_group: Any = group
    return asyncio.create_task(analytics._watch(settings, any_group, any_group))


Watch = Callable[[Group], asyncio.Task[None]]
both = pytest.mark.parametrize("watch", [indexing, filing])


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (main, analytics):
        monkeypatch.setattr(module, "BEAT_SECONDS", 0.01)
        monkeypatch.setattr(module, "LAG_SECONDS", 0.02)


async def lives_on(watching: asyncio.Task[None]) -> bool:
    done, _ = await asyncio.wait([watching], timeout=QUIET * 5)
    watching.cancel()
    return not done


@both
async def test_work_that_nobody_reads_ends_the_process(watch: Watch) -> None:
    with pytest.raises((main.Stuck, analytics.Stuck), match="5 records wait"):
        await asyncio.wait_for(watch(Group()), 60)


@both
async def test_nothing_to_do_is_no_reason(watch: Watch) -> None:
    assert await lives_on(watch(Group(behind=0)))


@both
async def test_progress_is_no_reason(watch: Watch) -> None:
    group = Group()

    async def work() -> None:
        while True:
            group.counters.received += 1
            group.filed += 1
            await asyncio.sleep(0.01)

    working = asyncio.create_task(work())
    assert await lives_on(watch(group))
    working.cancel()


@both
async def test_a_broker_that_is_down_is_no_reason(watch: Watch) -> None:
    assert await lives_on(watch(Group(fails=True)))


async def test_a_batch_under_way_is_no_reason() -> None:
    """It may be waiting for a server; that is what retries are for."""
    group = Group()
    group.lane.under_way = True
    assert await lives_on(indexing(group))
