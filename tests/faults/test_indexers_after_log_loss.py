"""Indexers notice that the log has lost its end, even after it has grown again."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiokafka import TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.errors import Unavailable
from adapters.log.fake import FakeEventLog
from adapters.log.port import LogLost, LogRecord
from consumers.indexing import app as process
from consumers.indexing.batch import PreparedBatch
from consumers.indexing.indexing_work import IndexingWork, indexing_member
from consumers.indexing.settings import IndexingSettings
from consumers.process.consumer_loop import ConsumerLoop
from schemas.topics import IMAGES
from tests.support.fake_indexing_group import Group


class Handled:
    """An indexer that notes what it was handed."""

    def __init__(self) -> None:
        self.keys: list[bytes | None] = []

    async def prepare(self, records: Sequence[LogRecord]) -> PreparedBatch:
        return PreparedBatch(records)

    async def apply(self, prepared: PreparedBatch) -> None:
        self.keys += [record.key for record in prepared.records]


class Library:
    """One partition, one group, and members that come and go."""

    def __init__(self) -> None:
        self.log = FakeEventLog()
        self.group = Group({}, self.log)
        self.handled = Handled()
        self.began = 0

    async def before_replay(self) -> None:
        self.began += 1

    async def grow(self, end: int, name: str) -> None:
        await Group.fill(self.log, end, name)

    def cut(self, end: int) -> None:
        del self.held[end:]

    @property
    def held(self) -> list[LogRecord]:
        return self.log._partitions(IMAGES)[0]

    @property
    def keys(self) -> list[bytes | None]:
        return [record.key for record in self.held]

    @asynccontextmanager
    async def member(self) -> AsyncIterator[ConsumerLoop[IndexingWork]]:
        """One that has just been given the partition."""
        self.group.positions.clear()
        indexer: Any = self.handled
        app = indexing_member(IndexingSettings(), indexer, "group", self.log, self.before_replay)
        app._consumer = self.group
        app.work.start()
        await app.on_partitions_assigned([TopicPartition(IMAGES.name, 0)])
        try:
            yield app
        finally:
            await app.stop()
            with suppress(asyncio.InvalidStateError):
                app.work.failed.exception()

    async def read(self, app: ConsumerLoop[IndexingWork], most: int = 1000) -> None:
        """Read to the end, but at most `most` records."""
        if app._beginning is not None:
            await asyncio.wait({app._beginning})
        end = min(len(self.held), self.group.offsets.get(0, 0) + most)
        while self.group.positions.get(0, self.group.offsets.get(0, 0)) < end:
            if (message := self.group.fetch(0, min(most, 4))).raw_message:
                await app._handle(message)
        assert await app.work.pipeline.drain(10)

    async def read_once(self) -> None:
        """Read all of it as a member that comes and goes."""
        async with self.member() as app:
            await self.read(app)


@pytest.fixture
async def library() -> Library:
    """It was read to its end, and knows that."""
    made = Library()
    await made.grow(10, "old")
    await made.read_once()
    assert made.handled.keys == made.keys
    assert made.group.offsets == {0: 10}
    assert made.began == 1, "the group knew nothing"
    made.handled.keys.clear()
    made.began = 0
    return made


@pytest.mark.parametrize("end", [10, 12])
async def test_new_records_at_offsets_already_read_are_read(library: Library, end: int) -> None:
    library.cut(7)
    await library.grow(end, "new")
    await library.read_once()
    assert library.handled.keys == library.keys
    assert library.began == 1, "what went with the lost records is looked for"
    assert library.group.offsets == {0: end}


async def test_a_log_that_ends_before_the_committed_offset_is_read_from_the_beginning(
    library: Library,
) -> None:
    library.cut(7)
    await library.read_once()
    assert library.handled.keys == library.keys
    assert library.began == 1
    assert library.group.offsets == {0: 7}


async def test_reading_continues_in_an_unchanged_log(library: Library) -> None:
    await library.grow(13, "new")
    await library.read_once()
    await library.read_once()
    assert library.handled.keys == library.keys[10:]
    assert library.began == 0


async def test_committed_offsets_without_a_mark_are_trusted(library: Library) -> None:
    """As it is committed before anything is read."""
    library.group.marks.clear()
    await library.grow(13, "new")
    await library.read_once()
    assert library.handled.keys == library.keys[10:]
    assert library.began == 0


async def test_a_compacted_last_record_does_not_count_as_loss(library: Library) -> None:
    await library.grow(13, "new")
    rest = library.keys[10:]
    del library.held[9]
    async with library.member() as app:
        assert app._beginning is not None
        await app._beginning
    assert library.group.positions == {0: 10}
    assert library.began == 0
    assert len(rest) == 3


async def test_a_fetched_record_before_the_position_ends_the_work(library: Library) -> None:
    """The client begins again by itself, where the broker reports that there is no such offset."""
    async with library.member() as app:
        await library.grow(12, "more")
        await library.read(app)
        library.handled.keys.clear()
        library.cut(7)
        with pytest.raises(LogLost):
            await app._handle(library.group.fetch(0))
        assert isinstance(app.work.failed.exception(), LogLost)
    assert library.handled.keys == []
    assert library.group.offsets == {0: 12}, "the next member detects it as well"


@pytest.mark.slow
async def test_a_log_that_ends_before_the_position_ends_the_work(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while nothing is fetched, as the pipeline is full."""
    monkeypatch.setattr(process, "CHECK_SECONDS", 0.01)
    async with library.member() as app:
        await library.grow(12, "more")
        await library.read(app)
        check = asyncio.create_task(process._check_log(app))
        library.log.available = False
        await asyncio.sleep(0.1)
        assert not check.done(), "a broker that is away says nothing"
        library.log.available = True
        await asyncio.sleep(0.1)
        assert not check.done()
        library.cut(11)
        with pytest.raises(LogLost):
            await asyncio.wait_for(check, 10)


@pytest.mark.slow
async def test_the_mark_of_a_retried_commit_is_kept(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, failures = library.group.commit, [Unavailable("away"), Unavailable("away")]

    async def failing(offsets: dict[TopicPartition, Any]) -> None:
        if failures:
            raise failures.pop()
        await commit(offsets)

    monkeypatch.setattr(library.group, "commit", failing)
    before = library.group.marks[0]
    await library.grow(12, "new")
    await library.read_once()
    assert failures == []
    assert library.group.marks[0] not in ("", before)


async def test_records_fetched_before_the_start_was_chosen_are_read_again(
    library: Library,
) -> None:
    """Neither is anything of it lost, nor does it come before what is before it."""
    library.cut(7)
    await library.grow(14, "new")
    async with library.member() as app:
        library.log.available = False
        handling = asyncio.create_task(app._handle(library.group.fetch(0)))
        await asyncio.sleep(0.05)
        assert not handling.done(), "no more is fetched meanwhile"
        library.log.available = True
        await asyncio.wait_for(handling, 10)
        assert app.work.pipeline.in_flight == 0
        await library.read(app)
    assert library.handled.keys == library.keys


@pytest.mark.slow
@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.sampled_from(["read", "cut", "grow"]), st.integers(1, 12)),
        min_size=2,
        max_size=10,
    )
)
async def test_every_record_of_the_log_is_read_after_any_losses(
    steps: list[tuple[str, int]],
) -> None:
    library = Library()
    for number, (step, amount) in enumerate(steps):
        if step == "cut":
            library.cut(max(0, len(library.held) - amount))
        elif step == "grow":
            await library.grow(len(library.held) + amount, f"{number}-")
        else:
            async with library.member() as app:
                await library.read(app, amount)
    await library.read_once()
    assert set(library.keys) <= set(library.handled.keys)
    assert library.group.offsets[0] == len(library.held)
