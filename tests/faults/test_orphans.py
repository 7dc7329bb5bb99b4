"""Images that disappeared while the log was lost are removed from the index."""

import asyncio
import shutil
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pytest
from aiokafka import TopicPartition

from adapters.embedder.spec import ModelSpec
from adapters.errors import Unavailable
from adapters.index.fake import FakeImageIndex
from adapters.index.port import Collection, ImageRecord
from adapters.log.fake import FakeEventLog
from adapters.log.port import Message
from consumers.indexing.indexing_work import IndexingWork, indexing_member
from consumers.indexing.orphans import Orphans
from consumers.indexing.settings import IndexingSettings
from consumers.process.consumer_loop import ConsumerLoop
from imaging.sources.source import Source
from schemas.events import ImageAdded
from schemas.topics import IMAGES
from tests.support.fake_indexing_group import Group
from tests.unit.consumers.test_indexing import Bench, bench

__all__ = ["bench"]

NOW = datetime(2026, 1, 5, tzinfo=UTC)


def event(name: str) -> ImageAdded:
    return ImageAdded(
        image_id=name,
        uri=f"file:///{name}",
        sha256="a" * 64,
        size_bytes=9,
        media_type="image/png",
        modified_at=NOW,
        added_at=NOW,
    )


class Held:
    """A collection that holds some pictures, of which some files are there."""

    def __init__(self, root: Path, *sources: Source) -> None:
        self.root, self.index, self.log = root, FakeImageIndex(), FakeEventLog()
        self.settings = IndexingSettings(images_dir=root, images_sources=sources)
        self.collection: Collection

    async def hold(self, spec: ModelSpec, *names: str) -> None:
        self.collection = await self.index.ensure_collection(spec)
        vector = [1.0] + [0.0] * (spec.dimension - 1)
        records = [
            ImageRecord(
                image_id=n,
                uri=f"file:///{n}",
                sha256="a" * 64,
                media_type="image/png",
                size_bytes=9,
                width=3,
                height=3,
                modified_at=NOW,
                added_at=NOW,
                vector=vector,
            )
            for n in names
        ]
        await self.index.upsert(self.collection, records)

    async def publish(self, *names: str) -> None:
        """Publish these images to the log."""
        await self.log.publish(IMAGES, [Message(name, event(name)) for name in names])

    def there(self, *names: str) -> None:
        for name in names:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).touch()

    async def left(self) -> set[str]:
        await Orphans(self.index, self.collection, self.settings, self.log).remove()
        return {image_id async for image_id, _ in self.index.stored(self.collection)}


@pytest.mark.slow
async def test_only_orphans_are_removed(tmp_path: Path, small_spec: ModelSpec) -> None:
    held = Held(tmp_path)
    names = [*(f"{n}.png" for n in range(2500)), "sub/a b%.png", "sub/ü.png", "old/sub/x.png"]
    await held.hold(small_spec, *names)
    gone = {"7.png", "1700.png", "sub/a b%.png", "old/sub/x.png"}
    held.there(*(name for name in names if name not in gone))
    assert await held.left() == set(names) - gone


@pytest.mark.parametrize("root", ["missing", "empty"])
async def test_a_missing_or_empty_root_removes_nothing(
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


async def test_nothing_is_removed_when_most_files_are_missing(
    tmp_path: Path, small_spec: ModelSpec, caplog: pytest.LogCaptureFixture
) -> None:
    held = Held(tmp_path)
    await held.hold(small_spec, "a.png", "b.png", "c.png")
    held.there("a.png")
    assert await held.left() == {"a.png", "b.png", "c.png"}
    assert "which is implausible" in caplog.text


async def test_an_unreadable_folder_removes_nothing(
    tmp_path: Path, small_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(tmp_path)
    await held.hold(small_spec, "a.png", "b.png", "c.png")
    held.there("b.png", "c.png")

    def lstat(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("consumers.indexing.orphans.os.lstat", lstat)
    assert len(await held.left()) == 3


async def test_each_image_is_looked_up_in_its_own_source(
    tmp_path: Path, small_spec: ModelSpec
) -> None:
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


async def test_images_in_the_log_are_left_to_the_watcher(
    tmp_path: Path, small_spec: ModelSpec
) -> None:
    """A disk that a link leads to is unplugged, and its mount point goes with it."""
    held, disk = Held(tmp_path / "root"), tmp_path / "media" / "DISK"
    names = ["0.png", "1.png", "2.png", "disk/far.png"]
    held.there(*names[:3])
    disk.mkdir(parents=True)
    (disk / "far.png").touch()
    (tmp_path / "media" / "other").mkdir()
    (held.root / "disk").symlink_to(disk)
    await held.hold(small_spec, *names)
    await held.publish(*names)
    shutil.rmtree(disk)
    assert await held.left() == set(names)


async def test_images_that_the_log_removed_are_orphans(
    tmp_path: Path, small_spec: ModelSpec
) -> None:
    held = Held(tmp_path)
    names = [*(f"{n}.png" for n in range(8)), "removed.png", "back.png", "never.png"]
    await held.hold(small_spec, *names)
    held.there(*names[:8])
    await held.publish("removed.png", "back.png", "0.png")
    await held.log.publish(IMAGES, [Message("removed.png", None), Message("back.png", None)])
    await held.publish("back.png")
    # An unreadable record does not count as its image's.
    await held.log.publish(IMAGES, [Message("back.png", b"{"), Message("never.png", b"{")])
    assert await held.left() == set(names) - {"removed.png", "never.png"}


async def app_of(
    bench: Bench, group: Group, ended: asyncio.Event, began: list[int]
) -> ConsumerLoop[IndexingWork]:
    await group.fill(bench.log, 5)

    async def before_replay() -> None:
        began.append(1)
        await ended.wait()

    app = indexing_member(bench.settings, bench.indexer, "group", bench.log, before_replay)
    app._consumer = group
    await app.on_partitions_assigned([TopicPartition(IMAGES.name, n) for n in range(2)])
    return app


@pytest.mark.slow
async def test_nothing_is_committed_before_orphans_of_a_new_log_are_removed(bench: Bench) -> None:
    """So a crash meanwhile is followed by the same."""
    group, ended, began = Group({0: 5}), asyncio.Event(), list[int]()
    app = await app_of(bench, group, ended, began)
    committing = asyncio.create_task(app.work.commit({1: 3}))
    await asyncio.sleep(0.05)
    assert began == [1]
    assert group.offsets == {0: 5}
    ended.set()
    await asyncio.wait_for(committing, 5)
    assert group.offsets == {0: 5, 1: 3}


async def test_a_group_with_offsets_for_all_partitions_continues(bench: Bench) -> None:
    group, began = Group({0: 5, 1: 0}), list[int]()
    app = await app_of(bench, group, asyncio.Event(), began)
    await asyncio.wait_for(app.work.commit({1: 3}), 5)
    assert group.offsets == {0: 5, 1: 3}
    assert began == []


async def test_an_error_while_removing_orphans_ends_the_work(bench: Bench) -> None:
    async def fails() -> None:
        raise Unavailable("for good")

    app = indexing_member(bench.settings, bench.indexer, "group", bench.log, fails)
    app._consumer = Group({})
    await app.on_partitions_assigned([TopicPartition(IMAGES.name, 0)])
    with pytest.raises(Unavailable):
        await asyncio.wait_for(app.work.failed, 5)
