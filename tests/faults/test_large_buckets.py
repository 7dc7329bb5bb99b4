"""A bucket with very many images is compared in threads, folder by folder."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from adapters.log.fake import FakeEventLog
from imaging.sources.source import Source
from producers.bucket import watcher as listed_module
from producers.bucket.listing import BATCH, BucketListing, ListedObject
from producers.known_image import KnownImage, ListedStat
from producers.log.known_images import KnownImages
from producers.rules import Rules
from producers.sources import Sources
from schemas.codec import decode_image_change
from schemas.events import ImageAdded
from schemas.topics import IMAGES
from tests.unit.producers.test_watcher import eventually, history, settings

MANY = 50_000


class Bucket:
    """A file system whose listings are set by the test."""

    def __init__(self, folders: dict[str, dict[str, dict[str, Any]]]) -> None:
        self.folders = folders
        self.walks = 0
        self.threads: set[int] = set()
        self.cached = 0
        self.most_cached = 0

    def invalidate_cache(self, path: str | None = None) -> None:
        self.cached = 0 if path is None else self.cached - len(self.folders[path])

    def walk(self, root: str, **_: Any) -> Iterator[tuple[str, Any, Any]]:
        self.walks += 1
        for folder, files in self.folders.items():
            self.threads.add(threading.get_ident())
            self.cached += len(files)
            self.most_cached = max(self.most_cached, self.cached)
            inside = [p for p in self.folders if p.rpartition("/")[0] == folder]
            yield folder, {p.rpartition("/")[2]: {} for p in inside}, files


def known_as(name: str) -> KnownImage:
    return KnownImage(name.encode(), ListedStat(1, 1_000_000))


def entry(
    size: int | None = 1, mtime: float | None = 1.0, etag: str | None = "t"
) -> dict[str, Any]:
    return {"size": size, "mtime": mtime, "ETag": etag}


def uses(monkeypatch: pytest.MonkeyPatch, bucket: Bucket) -> None:
    monkeypatch.setattr("producers.bucket.listing.file_system", lambda url: (bucket, "b"))


@pytest.mark.slow
async def test_the_event_loop_stays_responsive_while_many_names_are_compared(
    tmp_path: Path, log: FakeEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes through all names does so in another thread, also when they are removed."""
    names = [f"{n}.jpg" for n in range(MANY)]
    bucket = Bucket({"b": {}, "b/big": {name: entry() for name in names}})
    uses(monkeypatch, bucket)
    state = KnownImages()
    for name in names:
        state.put(f"big/{name}", known_as(name))
    source = Source("cloud", "fake://b")
    chosen = settings(
        tmp_path,
        images_sources="cloud=memory://b",
        list_seconds=0.05,
        allow_mass_removal=True,
    )
    listed = listed_module.BucketWatcher(chosen, log, source)
    loop_thread = threading.get_ident()
    steps = 0
    touched = KnownImages.files

    def counted(self: KnownImages, directory: str) -> dict[str, KnownImage]:
        nonlocal steps
        if threading.get_ident() == loop_thread:
            steps += 1
        return touched(self, directory)

    monkeypatch.setattr(KnownImages, "files", counted)
    work = asyncio.create_task(listed.run(state))
    try:
        await eventually(lambda: _true(bucket.walks >= 3))
        assert loop_thread not in bucket.threads
        assert (steps, len(state), await history(log)) == (0, MANY, [])
        bucket.folders["b/big"] = {}
        lengths = set()
        while left := len(state):
            await asyncio.sleep(0.01 if left == MANY else 0)
            lengths.add(left)
        # Removed a batch at a time, and the loop turned in between.
        assert len(lengths) > MANY / BATCH / 2
        await eventually(lambda: _true(listed.status.counters.removed == MANY))
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def _true(value: bool) -> bool:
    return value


def test_one_folder_at_a_time_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what the file system keeps, too; a listing cache would hold the whole bucket."""
    folders = {f"b/{n}": {f"{m}.jpg": entry() for m in range(10)} for n in range(50)}
    bucket = Bucket({"b": {}, **folders})
    uses(monkeypatch, bucket)
    state = KnownImages()
    listing = BucketListing(Source("cloud", "fake://b"), Rules(), state)
    missing: list[str] = []
    sizes = [len(batch) for batch in listing.changes((), (), missing)]
    assert sizes == [10] * 50
    assert bucket.most_cached == 10


def test_missing_objects_are_found_folder_by_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket({"b": {"a.jpg": entry()}, "b/x": {"c.jpg": entry()}})
    uses(monkeypatch, bucket)
    state = KnownImages()
    for path in ("a.jpg", "b.jpg", "x/c.jpg", "x/d.jpg", "x/deep/e.jpg", "y/f.jpg"):
        state.put(path, known_as(path))
    listing = BucketListing(Source("cloud", "fake://b"), Rules(), state)
    missing: list[str] = []
    assert list(listing.changes((), (), missing)) == []
    assert sorted(missing) == ["b.jpg", "x/d.jpg", "x/deep/e.jpg", "y/f.jpg"]
    judged, count = listing.missing()
    assert (sorted(judged), count) == (sorted(missing), 2)


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        (entry(), []),
        (entry(size=2), ["a.jpg"]),
        (entry(mtime=2.0), ["a.jpg"]),
        (entry(etag="u"), ["a.jpg"]),
        (entry(etag=None), []),
        (entry(size=None), []),
        (entry(mtime=None), []),
        (entry(mtime=None, etag=None), ["a.jpg"]),
        (entry(mtime=None, etag="u"), ["a.jpg"]),
    ],
    ids=str,
)
def test_missing_fields_of_a_listing_are_not_taken_for_zero(
    reported: dict[str, Any], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every listing would find a difference, or none."""
    bucket = Bucket({"b": {"a.jpg": entry()}})
    uses(monkeypatch, bucket)
    state = KnownImages()
    state.put("a.jpg", known_as("a"))
    listing = BucketListing(Source("cloud", "fake://b"), Rules(), state)
    assert list(listing.changes((), (), [])) == []
    bucket.folders["b"]["a.jpg"] = reported
    found = [path for batch in listing.changes((), (), []) for path, _ in batch]
    assert found == expected


class Untimed(MemoryFileSystem):  # type: ignore[misc]
    """Tells neither size nor time of its files."""

    protocol = "untimed"

    def ls(self, path: str, detail: bool = True, **_: Any) -> Any:
        found = super().ls(path, detail=True)
        kept = [{key: each[key] for key in ("name", "type")} for each in found]
        return kept if detail else [each["name"] for each in kept]


@pytest.mark.slow
async def test_an_image_whose_time_is_not_listed_has_none(
    tmp_path: Path, log: FakeEventLog
) -> None:
    fsspec.register_implementation("untimed", Untimed, clobber=True)
    system = fsspec.filesystem("untimed")
    system.pipe_file("/box/a.jpg", b"one")
    system.pipe_file("/box/huge.jpg", bytes(2000))
    (tmp_path / "images").mkdir()
    chosen = settings(
        tmp_path / "images",
        images_sources="box=untimed://box",
        list_seconds=0.05,
        max_image_bytes=1024,
    )

    async def sizes() -> list[tuple[int, object]]:
        events = [decode_image_change(r.key, r.value) async for r in log.read_all(IMAGES)]
        return [(e.size_bytes, e.modified_at) for e in events if isinstance(e, ImageAdded)]

    try:
        for expected in ([(3, None)], [(3, None), (4, None)]):
            work = asyncio.create_task(Sources(chosen, log).run())

            async def reported(wanted: list[Any] = expected) -> bool:
                return sorted(await sizes(), key=str) == sorted(wanted, key=str)

            await eventually(reported)
            await asyncio.sleep(0.3)
            assert await reported()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            system.pipe_file("/box/a.jpg", b"four")
    finally:
        system.store.clear()


async def test_a_folder_emptied_during_a_listing_hides_no_other_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is not there any more when the listing comes to it, as in an object store."""
    system = fsspec.filesystem("memory")
    for name in ("a/1.jpg", "b/2.jpg", "c/3.jpg"):
        system.pipe_file(f"/emptied/{name}", name.encode())
    usual = MemoryFileSystem.ls

    def ls(self: MemoryFileSystem, path: str, **options: Any) -> Any:
        if path.endswith("/b"):
            raise FileNotFoundError(path)
        return usual(self, path, **options)

    monkeypatch.setattr(MemoryFileSystem, "ls", ls)
    try:
        state = KnownImages()
        listing = BucketListing(Source("cloud", "memory://emptied"), Rules(), state)
        missing: list[str] = []
        found = [path for batch in listing.changes((), (), missing) for path, _ in batch]
        assert found == ["a/1.jpg", "c/3.jpg"]
        for path in found:
            state.put(path, known_as(path))
        assert listing.missing()[0] == []
    finally:
        system.rm("/emptied", recursive=True)


async def test_no_more_than_half_of_the_time_is_spent_listing(
    tmp_path: Path, log: FakeEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    pauses: list[float] = []

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return clock[0]

    listed = listed_module.BucketWatcher(
        settings(tmp_path, images_sources="cloud=memory://b", list_seconds=30),
        log,
        Source("cloud", "fake://b"),
    )

    async def compare() -> None:
        clock[0] += 100.0

    def timeout(seconds: float) -> Any:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise EOFError
        return asyncio.timeouts.timeout(0)

    monkeypatch.setattr(listed_module, "time", Clock)
    monkeypatch.setattr(listed, "_compare", compare)
    monkeypatch.setattr(asyncio, "timeout", timeout)
    with pytest.raises(EOFError):
        await listed.run(KnownImages())
    assert pauses == [100.0, 100.0, 100.0]


def test_a_tag_is_stored_as_a_number() -> None:
    assert {type(each) for each in ListedObject(1, 2, hash("t"))} == {int}
