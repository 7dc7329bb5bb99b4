"""Cancelled work frees its slots; a process without progress ends itself."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters import progress, retry
from adapters.embedder.arrays import Pixels, Vectors
from adapters.embedder.fake import FakeEmbedder
from adapters.embedder.spec import ModelSpec
from adapters.errors import Rejected, Unavailable
from adapters.log.fake import FakeEventLog
from adapters.log.port import LogRecord, Message, Position
from adapters.progress import Activity, Stuck, Watchdog
from consumers.analytics import app as analytics_app
from consumers.analytics.settings import AnalyticsSettings
from consumers.indexing import app as indexing_app
from consumers.indexing.decoding import DecodingResult
from consumers.indexing.pipeline import IndexingPipeline
from consumers.indexing.reading import Superseded
from consumers.process import backlog
from gateway.search.events import SearchEvents
from imaging.decoded_image import DecodedImage
from producers.folder.examination import ParallelExaminer
from producers.settings import WatcherSettings
from producers.sources import Sources
from schemas.events import ImageAdded
from schemas.topics import Topic
from tests.conftest import ROOT
from tests.unit.consumers.test_indexing import Bench, Commits, bench, made_bench, some

__all__ = ["bench"]

QUIET = 0.3


class FakeDecoder:
    """Takes some turns of the event loop for each image, and raises the given errors."""

    def __init__(self, turns: int, failing: Mapping[str, Exception]) -> None:
        self.turns = turns
        self.failing = failing

    async def decode(self, event: ImageAdded) -> DecodingResult:
        for _ in range(self.turns):
            await asyncio.sleep(0)
        if (error := self.failing.get(event.image_id)) is not None:
            raise error
        colour = int(event.sha256[:2], 16)
        image = DecodedImage(
            pixels=np.full((16, 16, 3), colour, np.uint8),
            width=20,
            height=10,
            media_type=event.media_type,
        )
        return DecodingResult(image, 1.0, 1.0)

    def close(self) -> None:
        return None


class SlowEmbedder(FakeEmbedder):
    """Takes some turns of the event loop for each batch."""

    turns = 3

    async def embed_images(self, model_name: str, pixels: Pixels) -> Vectors:
        for _ in range(self.turns):
            await asyncio.sleep(0)
        return await super().embed_images(model_name, pixels)


def with_fakes(bench: Bench, *, turns: int, failing: Mapping[str, Exception]) -> SlowEmbedder:
    """Replace decoder and embedder by ones that yield so often."""
    inference = bench.indexer._preparer._inference
    inference._decoder = FakeDecoder(turns, failing)  # type: ignore[assignment]
    embedder = SlowEmbedder(served=bench.embedder.served)
    embedder.turns = turns
    inference._embedder = embedder
    return embedder


FAILURES: dict[str, Exception] = {
    "p1.png": Rejected("no picture"),
    "p3.png": Superseded("it is gone"),
    "p5.png": PermissionError("not for us"),
}


@pytest.mark.slow
@given(turn=st.integers(0, 250), turns=st.integers(0, 6), fails=st.booleans())
@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_cancelled_preparation_releases_every_decoding_slot(
    small_spec: ModelSpec, tmp_path: Path, turn: int, turns: int, fails: bool
) -> None:
    async def check() -> None:
        async with made_bench(tmp_path, small_spec) as bench:
            with_fakes(bench, turns=turns, failing=FAILURES if fails else {})
            # More than there are slots for, so that some wait.
            records = some(bench, 40)
            work = asyncio.create_task(bench.indexer.prepare(records))
            for _ in range(turn):
                await asyncio.sleep(0)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            assert bench.indexer.slots_taken == 0
            with_fakes(bench, turns=0, failing={})
            await asyncio.wait_for(bench.run(*records), 10)
            assert len(bench.ids) == 40

    asyncio.run(check())


@pytest.mark.slow
async def test_rebalances_during_a_slow_triton_leave_every_slot_free(bench: Bench) -> None:
    pipeline = IndexingPipeline(bench.indexer, Commits(), capacity=1000)
    pipeline.start()
    embedder = with_fakes(bench, turns=10**9, failing={})
    records = some(bench, 40)
    bench.indexer._preparer._inference._decoder.turns = 0  # type: ignore[attr-defined]
    for _ in range(5):
        pipeline.put(records)
        await asyncio.sleep(0.05)
        assert bench.indexer.slots_taken > 0
        await pipeline.drop()
        assert bench.indexer.slots_taken == 0
    embedder.turns = 0
    pipeline.put(records)
    assert await pipeline.drain(10)
    assert len(bench.ids) == 40
    await pipeline.stop()


# Progress


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(backlog, "LAG_SECONDS", 0.02)


def member_of(pipeline: IndexingPipeline) -> Any:
    return SimpleNamespace(work=SimpleNamespace(pipeline=pipeline))


def watched(
    pending: Callable[[], int], achieved: Callable[[], object], **options: Any
) -> tuple[Activity, asyncio.Task[None]]:
    activity = Activity("test", pending=pending, achieved=achieved)
    watchdog = Watchdog([activity], stuck_seconds=QUIET, **options)
    if options:
        watchdog.ready()
    return activity, asyncio.create_task(watchdog.run())


async def lives_on(watching: asyncio.Task[None], seconds: float = QUIET * 5) -> bool:
    done, _ = await asyncio.wait([watching], timeout=seconds)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    return not done


@pytest.mark.slow
async def test_a_batch_in_flight_without_progress_is_stuck(bench: Bench) -> None:
    """A batch whose decoding never ends."""
    with_fakes(bench, turns=10**9, failing={})
    work = indexing_app.IndexingProgress()
    activity = Activity("indexing", pending=work.pending, achieved=work.achieved)
    with activity.here():
        pipeline = IndexingPipeline(bench.indexer, Commits(), capacity=1000)
        pipeline.start()
    work.member, work.indexer = member_of(pipeline), bench.indexer
    pipeline.put(some(bench, 3))
    with pytest.raises(Stuck, match="3 waiting or in flight"):
        await asyncio.wait_for(Watchdog([activity], stuck_seconds=QUIET).run(), 20)
    await pipeline.stop()


@pytest.mark.slow
@pytest.mark.parametrize("server", ["embedder", "index", "log"])
async def test_a_long_outage_does_not_restart_the_process(bench: Bench, server: str) -> None:
    work = indexing_app.IndexingProgress()
    activity = Activity("indexing", pending=work.pending, achieved=work.achieved)
    with activity.here():
        pipeline = IndexingPipeline(bench.indexer, Commits(), capacity=1000)
        pipeline.start()
    work.member, work.indexer = member_of(pipeline), bench.indexer
    getattr(bench, server).available = False
    pipeline.put(some(bench, 3))
    watching = asyncio.create_task(Watchdog([activity], stuck_seconds=QUIET).run())
    await asyncio.sleep(QUIET * 5)
    assert not watching.done()
    assert activity.outage is not None
    getattr(bench, server).available = True
    assert await pipeline.drain(10)
    assert await lives_on(watching)
    assert activity.outage is None
    await pipeline.stop()


@pytest.mark.slow
async def test_a_call_that_never_ends_after_an_outage_is_stuck() -> None:
    activity, watching = watched(lambda: 1, lambda: 0)
    calls = 0

    async def call() -> None:
        nonlocal calls
        calls += 1
        if calls < 5:
            raise Unavailable("it is away")
        await asyncio.Event().wait()

    with activity.here():
        waiting = asyncio.create_task(retry.until_available(call, what="test", maximum=0.02))
    with pytest.raises(Stuck):
        await asyncio.wait_for(watching, 20)
    waiting.cancel()


@pytest.mark.slow
async def test_a_commit_that_fails_while_the_broker_is_well_is_stuck(bench: Bench) -> None:
    """The consumer's connection is broken in a way that only a new one mends."""
    commits = Commits()
    commits.fail = True
    work = indexing_app.IndexingProgress()
    activity = Activity("indexing", pending=work.pending, achieved=work.achieved)

    async def is_away() -> bool:
        return False

    with activity.here():
        pipeline = IndexingPipeline(bench.indexer, commits, capacity=1000, broker_is_away=is_away)
        pipeline.start()
    work.member, work.indexer = member_of(pipeline), bench.indexer
    pipeline.put(some(bench, 3))
    with pytest.raises(Stuck):
        await asyncio.wait_for(Watchdog([activity], stuck_seconds=QUIET).run(), 20)
    await pipeline.stop()


@pytest.mark.slow
async def test_the_heartbeat_ends_with_the_progress(tmp_path: Path) -> None:
    file = tmp_path / "ready"
    _, watching = watched(lambda: 1, lambda: 0, ready_file=file)
    with pytest.raises(Stuck):
        await asyncio.wait_for(watching, 20)
    before = file.stat().st_mtime_ns
    await asyncio.sleep(0.1)
    assert file.stat().st_mtime_ns == before


@pytest.mark.slow
async def test_time_while_the_process_was_stopped_does_not_count() -> None:
    activity, watching = watched(lambda: 1, time.monotonic_ns)
    await asyncio.sleep(0.02)
    time.sleep(QUIET * 2)  # noqa: ASYNC251  # as if the process had been stopped
    assert await lives_on(watching)
    assert activity.quiet == 0


HANGS = """
import asyncio, sys, threading
from adapters import progress
from adapters.progress import Activity, Watchdog
progress.END_SECONDS = 0.5
progress.BEAT_SECONDS = 0.05

async def main():
    activity = Activity("test", pending=lambda: 1, achieved=lambda: 0)
    watching = asyncio.ensure_future(
        Watchdog([activity], stuck_seconds=0.3, end_process=True).run())
    await asyncio.sleep(0.1)
    if sys.argv[1] == "loop":
        threading.Event().wait()
    await asyncio.gather(watching, asyncio.to_thread(threading.Event().wait))

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["loop", "thread"])
def test_a_stuck_process_ends_even_if_its_loop_or_a_thread_never_returns(
    tmp_path: Path, what: str
) -> None:
    script = tmp_path / "hangs.py"
    script.write_text(HANGS)
    done = subprocess.run(
        [sys.executable, str(script), what],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "Thread" in done.stderr


# The other processes


class Reader:
    """A member of the analytics group that has read all but this."""

    def __init__(self, behind: int) -> None:
        self.behind = behind

    async def unread(self) -> int:
        return self.behind

    async def broker_is_away(self) -> bool:
        return False


@pytest.mark.slow
async def test_an_analytics_consumer_that_stores_nothing_ends() -> None:
    writer: Any = SimpleNamespace(filed=0, due_in=1.0)
    work = analytics_app.FilingProgress(writer)
    work.joined = True
    activity = Activity("filing", pending=work.pending, achieved=work.achieved)
    reporting = asyncio.create_task(work.backlog.follow(Reader(5), lambda: writer.filed))
    with pytest.raises(Stuck, match="5 waiting"):
        await asyncio.wait_for(Watchdog([activity], stuck_seconds=QUIET).run(), 20)
    reporting.cancel()


@pytest.mark.slow
async def test_an_analytics_consumer_whose_storage_never_answers_ends() -> None:
    """Nothing is left to read, but what was read is overdue."""
    writer: Any = SimpleNamespace(filed=0, due_in=0.0)
    work = analytics_app.FilingProgress(writer)
    work.joined = True
    activity = Activity("filing", pending=work.pending, achieved=work.achieved)
    with pytest.raises(Stuck):
        await asyncio.wait_for(Watchdog([activity], stuck_seconds=QUIET).run(), 20)
    assert AnalyticsSettings().stuck_seconds > 0


class HangingLog(FakeEventLog):
    """Accepts no record, and never answers."""

    async def publish(self, topic: Topic, messages: Sequence[Message]) -> Sequence[Position]:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


class DeafLog(FakeEventLog):
    """Never comes to an end of reading."""

    async def read_all(self, topic: Topic, start: Any = None) -> AsyncIterator[LogRecord]:
        await asyncio.Event().wait()
        yield LogRecord(Position(0, 0), None, None, 0)


async def stuck_watcher(folder: Path, log: FakeEventLog) -> None:
    (folder / "a.png").write_bytes(b"x")
    sources = Sources(
        WatcherSettings(images_dir=folder, stuck_seconds=QUIET * 3, quiet_seconds=0.01), log
    )
    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(sources.run(), 30)
    assert caught.value.subgroup(Stuck) is not None


@pytest.mark.slow
async def test_a_watcher_whose_publication_never_ends_ends(tmp_path: Path) -> None:
    await stuck_watcher(tmp_path, HangingLog())


@pytest.mark.slow
async def test_a_watcher_that_never_finishes_reading_the_log_ends(tmp_path: Path) -> None:
    await stuck_watcher(tmp_path, DeafLog())


@pytest.mark.slow
async def test_a_watcher_whose_examination_of_a_file_never_ends_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(ParallelExaminer, "examine", hang)
    await stuck_watcher(tmp_path, FakeEventLog())


@pytest.mark.slow
async def test_a_watcher_waits_for_its_broker(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    log = FakeEventLog()
    sources = Sources(
        WatcherSettings(images_dir=tmp_path, stuck_seconds=QUIET * 3, quiet_seconds=0.01), log
    )
    running = asyncio.create_task(sources.run())
    await asyncio.sleep(0.1)
    log.available = False
    (tmp_path / "b.png").write_bytes(b"y")
    await asyncio.sleep(1.0)
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.slow
async def test_search_events_that_are_never_published_are_detected() -> None:
    events = SearchEvents(HangingLog(), capacity=10)
    events.start()
    events.add(SimpleNamespace(search_id="1"))  # type: ignore[arg-type]
    with pytest.raises(Stuck, match="search events"):
        await asyncio.wait_for(Watchdog([events.activity], stuck_seconds=QUIET).run(), 20)
    assert events._task is not None
    events._task.cancel()
