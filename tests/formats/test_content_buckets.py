"""The first bytes of an object in a bucket decide what it is; they are fetched once."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from adapters.log.fake import FakeEventLog
from imaging.media_types import HEAD_BYTES
from producers.bucket import non_images as cache
from producers.bucket.listing import ListedObject
from tests.formats.test_content_local import CONTENTS, JPEG, NAMES, added
from tests.unit.producers.test_sources import running
from tests.unit.producers.test_watcher import eventually

JUNK = b"no picture" * 1000


@pytest.fixture
def bucket() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    system.makedirs("/b/x", exist_ok=True)
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the objects whose first bytes were requested."""
    names: list[str] = []
    original = MemoryFileSystem.cat_file

    def cat_file(self: Any, path: str, start: Any = None, end: Any = None, **options: Any) -> Any:
        assert (start, end) == (0, HEAD_BYTES)
        names.append(path.rpartition("/")[2])
        return original(self, path, start=start, end=end, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    return names


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the objects that were opened to be read whole."""
    names: list[str] = []
    original = MemoryFileSystem.open

    def open_(self: Any, path: str, *arguments: Any, **options: Any) -> Any:
        names.append(path.rpartition("/")[2])
        return original(self, path, *arguments, **options)

    monkeypatch.setattr(MemoryFileSystem, "open", open_)
    return names


async def ids(log: FakeEventLog) -> set[str]:
    return set(await added(log))


async def test_the_media_type_is_that_of_the_content(
    root: Path, log: FakeEventLog, bucket: Any
) -> None:
    bucket.pipe({f"/b/x/{name}": data for name, (data, _) in CONTENTS.items()})
    wanted = {f"cloud/{name}": media_type for name, (_, media_type) in CONTENTS.items()}
    async with running(root, log):
        await eventually(lambda: _are(log, set(wanted)))
    assert {name: event.media_type for name, event in (await added(log)).items()} == wanted


async def test_objects_of_every_valid_name_are_published(
    root: Path, log: FakeEventLog, bucket: Any
) -> None:
    names = set(NAMES) - {"..."}
    bucket.pipe({f"/b/x/{name}": JPEG + name.encode() for name in names})
    async with running(root, log):
        await eventually(lambda: _are(log, {f"cloud/{name}" for name in names}))


async def _are(log: FakeEventLog, names: set[str]) -> bool:
    return await ids(log) == names


@pytest.mark.slow
async def test_only_the_first_bytes_are_requested_and_only_once(
    root: Path, log: FakeEventLog, bucket: Any, fetched: list[str], opened: list[str]
) -> None:
    bucket.pipe({"/b/x/a": JUNK, "/b/x/deep/b.dat": JUNK, "/b/x/c.mov": JUNK, "/b/x/d": b""})
    bucket.pipe({"/b/x/picture": JPEG, "/b/x/e.jpg": JPEG, "/b/x/.hidden/f.jpg": JPEG})
    opened.clear()
    async with running(root, log) as sources:
        status = sources.others["cloud"].status
        await eventually(lambda: _are(log, {"cloud/picture", "cloud/e.jpg"}))
        await eventually(lambda: _equal(sorted(fetched), ["a", "b.dat", "picture"]))
        assert sorted(set(opened)) == ["e.jpg", "picture"]
        before = status.last_reconcile
        await eventually(lambda: _differ(status.last_reconcile, before))
        await asyncio.sleep(0.3)
        assert sorted(fetched) == ["a", "b.dat", "picture"]
        names = {reason: sorted(paths) for reason, paths in status.skipped.names().items()}
        assert names == {
            "not_a_picture": ["a", "d", "deep/b.dat"],
            "other_suffix": ["c.mov"],
            "ignored": [".hidden/f.jpg"],
        }
        bucket.pipe("/b/x/a", JPEG)
        bucket.rm("/b/x/deep/b.dat")
        await eventually(lambda: _are(log, {"cloud/picture", "cloud/e.jpg", "cloud/a"}))
        await eventually(lambda: _equal(status.skipped.names()["not_a_picture"], ["d"]))
        bucket.pipe("/b/x/picture", JUNK)
        await eventually(lambda: _equal(status.skipped.names()["not_a_picture"], ["d", "picture"]))
        await eventually(lambda: _equal(len(sources.others["cloud"]._state), 2))


@pytest.mark.slow
async def test_an_object_that_is_too_large_is_requested_once(
    root: Path, log: FakeEventLog, bucket: Any, fetched: list[str]
) -> None:
    bucket.pipe({"/b/x/large": JPEG + bytes(5000), "/b/x/small": JPEG})
    async with running(root, log, max_image_bytes=4000) as sources:
        status = sources.others["cloud"].status
        await eventually(lambda: _are(log, {"cloud/small"}))
        for _ in range(3):
            before = status.last_reconcile
            await eventually(lambda: _differ(status.last_reconcile, before))  # noqa: B023
        assert sorted(fetched) == ["large", "small"]
        assert status.skipped.counts() == {"too_large": 1}


async def _equal(one: object, other: object) -> bool:
    return one == other


async def _differ(one: object, other: object) -> bool:
    return one != other


@pytest.mark.parametrize("kept", [True, False])
async def test_objects_without_images_are_remembered_over_a_restart(
    root: Path, log: FakeEventLog, bucket: Any, fetched: list[str], tmp_path: Path, kept: bool
) -> None:
    status_file = tmp_path / "watcher.json" if kept else None
    bucket.pipe({"/b/x/a": JUNK, "/b/x/b": JUNK, "/b/x/gone": JUNK, "/b/x/c.jpg": JPEG})
    async with running(root, log, status_file=status_file) as sources:
        await eventually(lambda: _equal(sources.others["cloud"].status.skipped.counts(), _no(3)))
        if kept:
            file = tmp_path / "watcher-no-pictures-cloud.json"
            await eventually(lambda: _equal(file.is_file(), True))
    assert sorted(fetched) == ["a", "b", "gone"]
    fetched.clear()
    bucket.pipe("/b/x/b", JUNK + b"more")
    bucket.rm("/b/x/gone")
    async with running(root, log, status_file=status_file) as sources:
        status = sources.others["cloud"].status
        await eventually(lambda: _differ(status.last_reconcile, None))
        assert status.skipped.counts() == _no(2)
    assert sorted(fetched) == (["b"] if kept else ["a", "b"])


async def test_after_the_rule_was_changed_everything_is_requested(
    root: Path,
    log: FakeEventLog,
    bucket: Any,
    fetched: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket.pipe("/b/x/a", JUNK)
    file = tmp_path / "watcher-no-pictures-cloud.json"
    for rule, requested in ((1, ["a"]), (1, []), (2, ["a"])):
        monkeypatch.setattr(cache, "RULE_VERSION", rule)
        fetched.clear()
        async with running(root, log, status_file=tmp_path / "watcher.json") as sources:
            status = sources.others["cloud"].status
            await eventually(lambda: _differ(status.last_reconcile, None))  # noqa: B023
            assert status.skipped.counts() == _no(1)
            await eventually(lambda: _equal(file.is_file(), True))
        assert fetched == requested


def _no(count: int) -> dict[str, int]:
    return {"not_a_picture": count}


async def test_an_invalid_cache_of_objects_without_images_is_ignored(
    root: Path, log: FakeEventLog, bucket: Any, tmp_path: Path
) -> None:
    for text in ("", "[]", "{", '{"url": "memory://b/x", "objects": 3}', '{"objects": {}}'):
        (tmp_path / "watcher-no-pictures-cloud.json").write_text(text)
        bucket.pipe("/b/x/a", JUNK)
        async with running(root, log, status_file=tmp_path / "watcher.json") as sources:
            status = sources.others["cloud"].status
            await eventually(lambda: _equal(status.skipped.counts(), _no(1)))  # noqa: B023


def test_content_is_recognized_by_the_tag_before_the_time() -> None:
    assert ListedObject(1, 2, 3).content == ListedObject(1, 9, 3).content
    assert ListedObject(1, 2, 3).content != ListedObject(1, 2, 4).content
    assert ListedObject(1, 2, None).content != ListedObject(1, 3, None).content
    assert ListedObject(1, None, None).content is None
