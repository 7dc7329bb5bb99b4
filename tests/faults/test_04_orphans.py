"""Pictures that went while the log lost everything are not found any more."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pytest
from aiokafka import TopicPartition

from adapters.errors import Unavailable
from adapters.memory import MemoryIndex
from adapters.model_spec import ModelSpec
from adapters.ports import Collection, ImageRecord
from adapters.settings import IndexingSettings
from adapters.sources import Source
from consumers.apps import IndexingApp
from consumers.orphans import Orphans
from schemas.topics import IMAGES
from tests.unit.test_consumers_indexing import Bench, bench

__all__ = ["bench"]

NOW = datetime(2026, 1, 5, tzinfo=UTC)


class Held:
    """A collection that holds some pictures, of which some files are there."""

    def __init__(self, root: Path, *sources: Source) -> None:
        self.root, self.index = root, MemoryIndex()
        self.settings = IndexingSettings(images_dir=root, images_sources=sources)
        self.collection: Collection

    async def hold(self, spec: ModelSpec, *names: str) -> None:
        self.collection = await self.index.ensure_collection(spec)
        vector = [1.0] + [0.0] * (spec.dimension - 1)
        records = [
            ImageRecord(n, f"file:///{n}", "a" * 64, "image/png", 9, 3, 3, NOW, NOW, vector)
            for n in names
        ]
        await self.index.upsert(self.collection, records)

    def there(self, *names: str) -> None:
        for name in names:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).touch()

    async def left(self) -> set[str]:
        await Orphans(self.index, self.collection, self.settings).remove()
        return {image_id async for image_id, _ in self.index.stored(self.collection)}


async def test_what_is_gone_is_removed_and_nothing_else(
    tmp_path: Path, small_spec: ModelSpec
) -> None:
    held = Held(tmp_path)
    names = [*(f"{n}.png" for n in range(2500)), "sub/a b%.png", "sub/ü.png", "old/sub/x.png"]
    await held.hold(small_spec, *names)
    gone = {"7.png", "1700.png", "sub/a b%.png", "old/sub/x.png"}
    held.there(*(name for name in names if name not in gone))
    assert await held.left() == set(names) - gone


@pytest.mark.parametrize("root", ["missing", "empty"])
async def test_a_missing_or_empty_root_says_nothing(
    tmp_path: Path, small_spec: ModelSpec, root: str
) -> None:
    held = Held(tmp_path / "root")
    await held.hold(small_spec, "a.png")
    if root == "empty":
        held.root.mkdir()
    assert await held.left() == {"a.png"}


async def test_an_empty_folder_may_be_a_mount_point(tmp_path: Path, small_spec: ModelSpec) -> None:
    held = Held(tmp_path)
    await held.hold(small_spec, "disk/sub/a.png", "b.png", "c.png")
    held.there("b.png", "c.png")
    (tmp_path / "disk").mkdir()
    assert await held.left() == {"disk/sub/a.png", "b.png", "c.png"}


async def test_where_most_is_gone_it_is_left_to_people(
    tmp_path: Path, small_spec: ModelSpec, caplog: pytest.LogCaptureFixture
) -> None:
    held = Held(tmp_path)
    await held.hold(small_spec, "a.png", "b.png", "c.png")
    held.there("a.png")
    assert await held.left() == {"a.png", "b.png", "c.png"}
    assert "too many to be true" in caplog.text


async def test_a_folder_that_cannot_be_read_says_nothing(
    tmp_path: Path, small_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(tmp_path)
    await held.hold(small_spec, "a.png", "b.png", "c.png")
    held.there("b.png", "c.png")

    def lstat(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("consumers.orphans.os.lstat", lstat)
    assert len(await held.left()) == 3


async def test_each_source_is_asked_for_its_own(tmp_path: Path, small_spec: ModelSpec) -> None:
    system = fsspec.filesystem("memory")
    for name in ("here 1.png", "here 2.png"):
        system.pipe(f"/orphans/pictures/{name}", b"x")
    held = Held(
        tmp_path / "main",
        Source("cloud", "memory://orphans/pictures"),
        Source("nas", (tmp_path / "nas").as_uri()),
    )
    names = ["a.png", "cloud/here 1.png", "cloud/here 2.png", "cloud/gone.png", "nas/x.png"]
    await held.hold(small_spec, *names)
    held.there("a.png")
    assert await held.left() == set(names) - {"cloud/gone.png"}, "the disk of nas is not there"


class Group:
    """Stands for aiokafka's consumer."""

    def __init__(self, committed: Mapping[int, int]) -> None:
        self.offsets = dict(committed)

    async def committed(self, partition: TopicPartition) -> int | None:
        return self.offsets.get(partition.partition)

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        self.offsets |= {place.partition: offset for place, offset in offsets.items()}


async def app_of(bench: Bench, group: Group, ended: asyncio.Event, began: list[int]) -> IndexingApp:
    async def begins_anew() -> None:
        began.append(1)
        await ended.wait()

    app = IndexingApp(bench.settings, bench.indexer, "group", bench.log, begins_anew)
    app._consumer = group
    await app.on_partitions_assigned([TopicPartition(IMAGES.name, n) for n in range(2)])
    return app


async def test_nothing_is_committed_before_a_new_log_was_made_up_for(bench: Bench) -> None:
    """So a crash meanwhile is followed by the same."""
    group, ended, began = Group({0: 5}), asyncio.Event(), list[int]()
    app = await app_of(bench, group, ended, began)
    committing = asyncio.create_task(app._commit({1: 3}))
    await asyncio.sleep(0.05)
    assert began == [1]
    assert group.offsets == {0: 5}
    ended.set()
    await asyncio.wait_for(committing, 5)
    assert group.offsets == {0: 5, 1: 3}


async def test_a_group_that_knows_all_its_partitions_goes_on(bench: Bench) -> None:
    group, began = Group({0: 5, 1: 0}), list[int]()
    app = await app_of(bench, group, asyncio.Event(), began)
    await asyncio.wait_for(app._commit({1: 3}), 5)
    assert group.offsets == {0: 5, 1: 3}
    assert began == []


async def test_an_error_meanwhile_ends_the_work(bench: Bench) -> None:
    async def fails() -> None:
        raise Unavailable("for good")

    app = IndexingApp(bench.settings, bench.indexer, "group", bench.log, fails)
    app._consumer = Group({})
    await app.on_partitions_assigned([TopicPartition(IMAGES.name, 0)])
    with pytest.raises(Unavailable):
        await asyncio.wait_for(app.lane.failed, 5)
