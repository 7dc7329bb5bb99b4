"""A missing file is retried, dead-lettered or superseded, depending on its root and the log."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from adapters.errors import Unavailable
from adapters.log.fake import FakeEventLog
from adapters.log.port import LogRecord, Message
from consumers.indexing.newer_records import NewerRecords
from consumers.indexing.roots import Roots
from consumers.indexing.settings import IndexingSettings
from imaging.sources.mounts import MountTable
from imaging.sources.source import Source
from imaging.sources.storage import read_bytes
from schemas.codec import decode, encode
from schemas.events import ImageAdded
from schemas.topics import IMAGES, Topic
from tests.support import hostile_tasks
from tests.unit.consumers.test_indexing import Bench, bench

__all__ = ["bench"]


def moved_away(bench: Bench) -> Path:
    """The bench's folder, under another name."""
    return bench.folder.with_name(f"{bench.folder.name}-away")


async def waits(work: asyncio.Task[None]) -> bool:
    done, _ = await asyncio.wait([work], timeout=0.3)
    return not done


@pytest.mark.slow
async def test_a_missing_root_pauses_the_indexer_until_it_returns(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    records = await bench.logged(
        *(bench.added(f"{n}.png", bench.put_image(f"{n}.png", f"#{n:06x}")) for n in range(20))
    )
    bench.folder.rename(moved_away(bench))
    work = asyncio.create_task(bench.run(*records))
    async with asyncio.timeout(30):
        while f"the folder {bench.folder} is missing" not in caplog.text:
            await asyncio.sleep(0.02)
    assert await waits(work)
    moved_away(bench).rename(bench.folder)
    await asyncio.wait_for(work, 10)
    assert bench.ids == {f"{n}.png" for n in range(20)}
    assert await bench.dead_letters() == []
    assert bench.indexer.counters.superseded == 0


@pytest.mark.slow
async def test_an_empty_root_is_taken_for_an_unmounted_disk(bench: Bench) -> None:
    records = await bench.logged(bench.added("a.png", bench.put_image("a.png")))
    bench.folder.rename(moved_away(bench))
    bench.folder.mkdir()
    work = asyncio.create_task(bench.run(*records))
    assert await waits(work)
    bench.folder.rmdir()
    moved_away(bench).rename(bench.folder)
    await asyncio.wait_for(work, 10)
    assert bench.ids == {"a.png"}


@pytest.mark.slow
async def test_the_mount_named_in_the_event_is_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is there, and so is the rest of the root: only the disk is not."""
    bench.put_image("other.png")
    data = bench.put_image("disk/a.png")
    record = bench.added("disk/a.png", data)
    event = decode(ImageAdded, record.value).model_copy(update={"mount": "disk"})
    (record,) = await bench.logged(record._replace(value=encode(event)))
    (bench.folder / "disk").rename(moved_away(bench))
    (bench.folder / "disk").mkdir()
    work = asyncio.create_task(bench.run(record))
    assert await waits(work)
    (bench.folder / "disk").rmdir()
    moved_away(bench).rename(bench.folder / "disk")
    mounted = {str(bench.folder / "disk")}
    monkeypatch.setattr(MountTable, "has", lambda root, mount: str(root / mount) in mounted)
    await asyncio.wait_for(work, 10)
    assert bench.ids == {"disk/a.png"}


@pytest.mark.slow
async def test_a_missing_file_on_a_present_mount_is_dead_lettered(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.put_image("disk/other.png")
    record = bench.added("disk/a.png", b"it was")
    event = decode(ImageAdded, record.value).model_copy(update={"mount": "disk"})
    monkeypatch.setattr(MountTable, "has", lambda root, mount: mount == "disk")
    await asyncio.wait_for(bench.run(*await bench.logged(record._replace(value=encode(event)))), 10)
    assert [letter.error_class for letter in await bench.dead_letters()] == ["Vanished"]


@pytest.mark.parametrize(
    "number", [errno.ENOTCONN, errno.ESTALE, errno.ENODEV, errno.EHOSTDOWN, errno.ETIMEDOUT]
)
def test_an_unreachable_network_disk_does_not_blame_the_file(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(Unavailable):
        read_bytes((tmp_path / "a.png").as_uri(), 10)


@pytest.mark.slow
async def test_a_disk_that_reports_an_outage_is_waited_for(bench: Bench) -> None:
    records = await bench.logged(
        bench.added("a.png", bench.put_image("a.png")),
        bench.added("b.png", bench.put_image("b.png", "blue")),
    )
    away = bench.folder / hostile_tasks.AWAY
    away.touch()
    bench.decoder._task = f"{hostile_tasks.MODULE}:read_from_a_disk"
    work = asyncio.create_task(bench.run(*records))
    assert await waits(work)
    away.unlink()
    await asyncio.wait_for(work, 10)
    assert bench.ids == {"a.png", "b.png"}
    assert await bench.dead_letters() == []


def test_a_missing_bucket_is_an_outage_and_a_missing_object_is_not() -> None:
    fsspec.filesystem("memory").pipe("/bucket/folder/a.png", b"x")
    source = Source("cloud", "memory://bucket/folder")
    roots = Roots(IndexingSettings(images_sources=(source,)))

    def event(uri: str) -> ImageAdded:
        return ImageAdded(
            image_id="cloud/gone.png",
            uri=uri,
            sha256="0" * 64,
            size_bytes=1,
            media_type="image/png",
            modified_at="2026-01-05T00:00:00Z",
            added_at="2026-01-05T00:00:00Z",
        )

    assert roots.find_missing([event("memory://bucket/folder/gone.png")]) is None
    problem = roots.find_missing([event("memory://elsewhere/folder/gone.png")])
    assert problem is not None
    assert "elsewhere" in problem


def test_the_root_of_a_named_source_comes_from_the_settings(tmp_path: Path) -> None:
    """Its parent has a folder of this name, which does not show that the disk is mounted."""
    mount = tmp_path / "nas"
    source = Source("nas", mount.as_uri())
    event = ImageAdded(
        image_id="nas/sub/a b.png",
        uri=source.uri("sub/a b.png"),
        sha256="0" * 64,
        size_bytes=1,
        media_type="image/png",
        modified_at="2026-01-05T00:00:00Z",
        added_at="2026-01-05T00:00:00Z",
    )
    roots = Roots(IndexingSettings(images_sources=(source,)))
    assert "nas is missing" in str(roots.find_missing([event]))
    mount.mkdir()
    (mount / "something").touch()
    assert roots.find_missing([event]) is None
    # A source that the settings do not name: the event's own fields are used.
    (tmp_path / "nas").rename(tmp_path / "gone")
    (tmp_path / "x").mkdir()
    other = event.model_copy(update={"image_id": "sub/a b.png"})
    assert "nas is missing" in str(Roots(IndexingSettings()).find_missing([other]))


async def test_an_absent_file_without_a_newer_record_is_a_dead_letter(bench: Bench) -> None:
    bench.put_image("other.png")
    data = bench.put_image("a.png")
    (record,) = await bench.logged(bench.added("a.png", data))
    (bench.folder / "a.png").unlink()
    await asyncio.wait_for(bench.run(record), 10)
    (letter,) = await bench.dead_letters()
    assert (letter.image_id, letter.error_class) == ("a.png", "Vanished")
    assert letter.attempts == bench.settings.max_attempts
    assert letter.original_value == record.value
    assert bench.indexer.counters.superseded == 0


async def test_an_absent_file_with_a_newer_record_is_superseded(bench: Bench) -> None:
    bench.put_image("other.png")
    data = bench.put_image("a.png")
    (record,) = await bench.logged(bench.added("a.png", data))
    (bench.folder / "a.png").unlink()
    await bench.logged(bench.removed("a.png"))
    await asyncio.wait_for(bench.run(record), 10)
    assert await bench.dead_letters() == []
    assert bench.indexer.counters.superseded == 1


@pytest.mark.slow
async def test_a_newer_record_supersedes_the_image_while_the_root_is_missing(bench: Bench) -> None:
    """Deleting the last image, or the folder, leaves no consumer waiting."""
    data = bench.put_image("a.png")
    (record,) = await bench.logged(bench.added("a.png", data))
    (bench.folder / "a.png").unlink()
    bench.folder.rename(moved_away(bench))
    work = asyncio.create_task(bench.run(record))
    assert await waits(work)
    await bench.logged(bench.removed("a.png"))
    await asyncio.wait_for(work, 10)
    assert await bench.dead_letters() == []


async def test_a_record_that_was_compacted_away_counts_as_superseded(bench: Bench) -> None:
    bench.put_image("other.png")
    (record,) = await bench.logged(bench.added("a.png", b"it was"))
    await bench.logged(bench.removed("a.png"))
    partition = bench.log.topics[IMAGES.name][record.position.partition]
    partition[0] = partition[0]._replace(key=b"what took its place")
    partition[1] = partition[1]._replace(key=b"and the removal's")
    await asyncio.wait_for(bench.run(record), 10)
    assert await bench.dead_letters() == []


async def test_changed_content_without_a_newer_record_is_a_dead_letter(bench: Bench) -> None:
    data = bench.put_image("a.png")
    (record,) = await bench.logged(bench.added("a.png", data))
    bench.put_image("a.png", "blue")
    await asyncio.wait_for(bench.run(record), 10)
    (letter,) = await bench.dead_letters()
    assert letter.error_class == "Vanished"
    assert "has changed" in letter.reason


async def test_a_file_that_returns_during_the_check_is_indexed(bench: Bench) -> None:
    bench.put_image("other.png")
    data = bench.put_image("a.png")
    (record,) = await bench.logged(bench.added("a.png", data))
    (bench.folder / "a.png").rename(bench.folder / "b.png")
    log, back = bench.log, bench.folder / "a.png"

    class Meanwhile(FakeEventLog):
        async def read_all(self, topic: Topic, start: Any = None) -> AsyncIterator[LogRecord]:
            async for each in log.read_all(topic, start):
                yield each
            (bench.folder / "b.png").rename(back)

    bench.indexer._preparer._absent._newer = NewerRecords(Meanwhile())
    await asyncio.wait_for(bench.run(record), 10)
    assert bench.ids == {"a.png"}
    assert await bench.dead_letters() == []


@pytest.mark.slow
async def test_many_absent_files_read_their_partitions_once(bench: Bench) -> None:
    bench.put_image("other.png")
    records = await bench.logged(*(bench.added(f"{n}.png", b"was %d" % n) for n in range(40)))
    await bench.logged(*(bench.removed(f"{n}.png") for n in range(40)))
    log, read = bench.log, []

    class Counting(FakeEventLog):
        async def read_all(self, topic: Topic, start: Any = None) -> AsyncIterator[LogRecord]:
            async for each in log.read_all(topic, start):
                read.append(each.position)
                yield each

    bench.indexer._preparer._absent._newer = NewerRecords(Counting())
    for start in range(0, 40, 8):
        await asyncio.wait_for(bench.run(*records[start : start + 8]), 10)
    assert bench.indexer.counters.superseded == 40
    # Each record was read once, though there were five batches with absent files.
    assert len(read) == len(set(read)) <= 80


async def test_offsets_before_the_consumer_are_dropped_from_memory(bench: Bench) -> None:
    newer = NewerRecords(bench.log)
    records = await bench.logged(*(bench.added("a.png", b"%d" % n) for n in range(100)))
    assert await newer.find_superseded(records) == {each.position for each in records[:-1]}
    await newer.find_superseded(records[-1:])
    (partition,) = newer._partitions.values()
    assert len(partition._offsets) == 1
    # After a rebalance an older record may come again.
    assert await newer.find_superseded(records[3:4]) == {records[3].position}


@pytest.mark.slow
async def test_vanished_files_do_not_count_towards_the_poison_limit(bench: Bench) -> None:
    """Half of a disk is there: those files are indexed, and the others have letters."""
    names = [f"{n}.png" for n in range(200)]
    records = [bench.added(n, bench.put_image(n, f"#{i:06x}")) for i, n in enumerate(names)]
    logged = await bench.logged(*records)
    for name in names[::2]:
        (bench.folder / name).unlink()
    await asyncio.wait_for(bench.run(*logged), 30)
    assert bench.ids == set(names[1::2])
    letters = await bench.dead_letters()
    assert {letter.image_id for letter in letters} == set(names[::2])


@pytest.mark.slow
async def test_nearly_all_files_vanished_is_taken_for_a_missing_disk(bench: Bench) -> None:
    """A disk of which a folder is left: no letter is written before it is back."""
    bench.put_image("other.png")
    names = [f"disk/{n}.png" for n in range(80)]
    records = [bench.added(n, bench.put_image(n, f"#{i:06x}")) for i, n in enumerate(names)]
    logged = await bench.logged(*records)
    (bench.folder / "disk").rename(moved_away(bench))
    work = asyncio.create_task(bench.run(*logged))
    assert await waits(work)
    assert await bench.dead_letters() == []
    moved_away(bench).rename(bench.folder / "disk")
    await asyncio.wait_for(work, 30)
    assert bench.ids == set(names)


async def test_a_log_can_be_read_from_given_offsets_of_given_partitions() -> None:
    log = FakeEventLog()
    await log.publish(IMAGES, [Message(f"{n}", None) for n in range(50)])
    whole = [record.position async for record in log.read_all(IMAGES)]
    part = [record.position async for record in log.read_all(IMAGES, {3: 1})]
    assert part == [p for p in whole if p.partition == 3 and p.offset >= 1]
