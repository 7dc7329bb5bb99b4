"""Forgetting and rebuilding while other processes use the lake, also without locks."""

import asyncio
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import fsspec
import pyarrow as pa
import pytest

from adapters.errors import Unavailable
from adapters.log.fake import FakeEventLog
from analytics.compaction import Sweep, compact, forget
from analytics.lake import ABANDONED, TOPICS, ForgetRequest, Lake, LakePartition, PartitionEnd
from consumers.analytics.rebuild import rebuild
from schemas.topics import SEARCHES
from tests.support.lake_events import Events, records, table


@pytest.fixture
def store() -> Iterator[Lake]:
    """A lake on an object store, which has no locks."""
    name = f"lake-{uuid4().hex}"
    yield Lake(f"memory://{name}")
    fsspec.filesystem("memory").rm(f"/{name}", recursive=True)


def fill(lake: Lake, files: int = 6) -> list[str]:
    made = records(Events(1).messages("searches", files * 5))
    end = PartitionEnd()
    for number in range(files):
        part = made[number * 5 : number * 5 + 5]
        end = lake.current().append(SEARCHES, LakePartition("searches", 0), end, part)
    found: list[str] = table(lake, SEARCHES)["search_id"].to_pylist()
    return found


def held(lake: Lake) -> set[str]:
    return set(table(lake, SEARCHES)["search_id"].to_pylist())


@pytest.mark.parametrize("moment", range(8))
def test_a_compaction_does_not_undo_forgetting(
    store: Lake, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Somebody forgets while a compaction reads and writes, at each of its steps."""
    names = fill(store)
    other = Lake(store.url)
    count = 0

    def at(step: str) -> None:
        nonlocal count
        if count == moment:
            count += 1
            forget(other, ForgetRequest(frozenset({names[7]})))
        else:
            count += 1

    read, write = store.storage.read_pieces, store.storage.write_pieces

    def reading(path: str) -> Iterator[pa.Table]:
        at("read")
        yield from read(path)

    def writing(path: str, schema: pa.Schema, pieces: Iterable[pa.Table]) -> int:
        at("write")
        rows = write(path, schema, pieces)
        at("written")
        return rows

    monkeypatch.setattr(store.storage, "read_pieces", reading)
    monkeypatch.setattr(store.storage, "write_pieces", writing)
    compact(store.current(), "searches", min_files=2, grace_seconds=0)
    monkeypatch.undo()
    assert count > moment
    assert held(other) == set(names) - {names[7]}


def test_files_left_by_a_killed_compaction_are_deleted(
    store: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = fill(store)
    other = Lake(store.url)
    write = store.storage.write_pieces

    def killed(path: str, schema: pa.Schema, pieces: Iterable[pa.Table]) -> None:
        forget(other, ForgetRequest(frozenset({names[3]})))
        write(path, schema, pieces)
        raise KeyboardInterrupt

    monkeypatch.setattr(store.storage, "write_pieces", killed)
    with pytest.raises(KeyboardInterrupt):
        compact(store.current(), "searches", min_files=2, grace_seconds=0)
    monkeypatch.undo()
    sweep = Sweep(other)
    sweep.run()
    assert held(other) == set(names) - {names[3]}
    assert sweep.run() == 0


@pytest.fixture
async def log() -> FakeEventLog:
    made = FakeEventLog()
    for topic in TOPICS:
        made._partitions(topic)
    await made.publish(SEARCHES, Events(1).messages("searches", 40))
    return made


def lakes(tmp_path: Path) -> list[str]:
    return [str(tmp_path / "lake"), f"memory://lake-{uuid4().hex}"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [0, 1], ids=["a folder", "an object store"])
async def test_concurrent_rebuilds_leave_a_complete_lake(
    tmp_path: Path, log: FakeEventLog, kind: int
) -> None:
    url = lakes(tmp_path)[kind]
    Lake(url).current()
    done = await asyncio.gather(
        *(rebuild(log, Lake(url)) for _ in range(3)), return_exceptions=True
    )
    assert any(not isinstance(each, BaseException) for each in done)
    assert all(isinstance(each, Unavailable) for each in done if isinstance(each, BaseException))
    lake = Lake(url)
    used = lake.existing()
    assert used is not None
    assert used.name in lake.storage.names("")
    assert len(held(lake)) == 40
    generations = [name for name in lake.storage.names("") if name.startswith("g-")]
    # Without locks two may switch at once. The loser's generation goes when it counts as abandoned.
    assert generations == [used.name] if lake.storage.is_local else used.name in generations
    lake.remove_replaced(used, now=datetime.now(UTC) + 2 * ABANDONED)
    assert [name for name in lake.storage.names("") if name.startswith("g-")] == [used.name]


@pytest.mark.slow
async def test_a_rebuild_in_progress_is_not_deleted(tmp_path: Path, log: FakeEventLog) -> None:
    lake = Lake(str(tmp_path / "lake"))
    live = lake.current()
    being_made = lake.new_generation()
    await rebuild(log, lake)
    assert being_made.name in lake.storage.names("")
    assert live.name not in lake.storage.names("")
    with pytest.raises(Unavailable):
        lake.switch_to(being_made, instead_of=live)


def test_an_old_unfinished_rebuild_is_deleted(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    used = lake.current()
    lake.storage.write("g-20200101T000000-abcdef/topic=searches/x", b"")
    lake.remove_replaced(used)
    assert [name for name in lake.storage.names("") if name.startswith("g-")] == [used.name]
