"""The content of a file decides what it is; skipped files are reported."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.log.fake import FakeEventLog
from imaging.media_types import sniff_media_type
from imaging.sources.storage import read_bytes
from producers.folder import hashing
from producers.folder.watcher import FolderWatcher
from schemas.codec import decode_image_change
from schemas.events import ImageAdded
from schemas.topics import IMAGES
from tests.support.corpus_cases import dng, gradient, heif, saved
from tests.unit.producers.test_watcher import age, eventually, letters, view, watching

JPEG = saved(gradient(), "JPEG")
PNG = saved(gradient(), "PNG")

CONTENTS = {
    "no_suffix": (JPEG, "image/jpeg"),
    "a.jfif": (JPEG, "image/jpeg"),
    "b.pjpeg": (JPEG, "image/jpeg"),
    "c.apng": (PNG, "image/png"),
    "d.hif": (heif(quality=80), "image/heic"),
    "e.heic": (JPEG, "image/jpeg"),
    "f.JPG": (PNG, "image/png"),
    "g.jpg_original": (JPEG, "image/jpeg"),
    "h.jpg.1": (JPEG, "image/jpeg"),
    "i.bak": (saved(gradient(), "WEBP"), "image/webp"),
    "j.dng": (JPEG, "image/jpeg"),
    "k.nef": (saved(gradient(), "TIFF"), "image/x-raw"),
    "l.raw": (dng(), "image/x-raw"),
    "m.gif": (saved(gradient(), "TIFF"), "image/tiff"),
    "n.": (saved(gradient("P"), "GIF"), "image/gif"),
    "o 2024.05.06": (saved(gradient(), "BMP"), "image/bmp"),
    "p.picture": (saved(gradient(), "JXL"), "image/jxl"),
    "q.mif": (saved(gradient(), "AVIF"), "image/avif"),
    "damaged.png": (b"no picture at all", "image/png"),
}
NAMES = (
    "new\nline.jpg",
    "\n",
    "ends.jpg\n",
    "back\\slash.jpg",
    "100%.jpg",
    "%2e%41.jpg",
    "who?.jpg",
    "hash#.jpg",
    "🦢.jpg",
    "🦢",
    "-rf",
    "--help.jpg",
    "dot.jpg.",
    "blank.jpg ",
    " blank.jpg",
    "tab\t\x01.jpg",
    "x" * 255,
    "é" * 125 + ".jpg",
    "a:b*c|d<e>.jpg",
    "...",
)


async def added(log: FakeEventLog) -> dict[str, ImageAdded]:
    changes = [decode_image_change(r.key, r.value) async for r in log.read_all(IMAGES)]
    return {each.image_id: each for each in changes if isinstance(each, ImageAdded)}


def skipped(watcher: FolderWatcher, **expected: list[str]) -> Callable[[], Awaitable[bool]]:
    """Whether just these were skipped."""

    async def right() -> bool:
        names = {reason: sorted(paths) for reason, paths in watcher.status.skipped.names().items()}
        return names == {reason: sorted(paths) for reason, paths in expected.items()}

    return right


@pytest.mark.parametrize("live", [False, True])
async def test_the_media_type_is_that_of_the_content(
    root: Path, log: FakeEventLog, live: bool
) -> None:
    def write() -> None:
        for name, (data, _) in CONTENTS.items():
            (root / name).write_bytes(data)

    if not live:
        write()
    async with watching(root, log):
        if live:
            write()
        await eventually(lambda: _are(log, set(CONTENTS)))
    found = {name: event.media_type for name, event in (await added(log)).items()}
    assert found == {name: media_type for name, (_, media_type) in CONTENTS.items()}


async def _failed(log: FakeEventLog, names: set[str]) -> bool:
    return {each.image_id for each in await letters(log)} == names


async def _are(log: FakeEventLog, names: set[str]) -> bool:
    return set(await view(log)) == names


@pytest.mark.parametrize("live", [False, True])
async def test_files_of_every_valid_name_are_published(
    root: Path, log: FakeEventLog, live: bool
) -> None:
    def write() -> None:
        for name in NAMES:
            (root / name).write_bytes(JPEG + name.encode())

    hidden = "..."
    if not live:
        write()
    async with watching(root, log) as watcher:
        if live:
            write()
        await eventually(lambda: _are(log, set(NAMES) - {hidden}))
        await eventually(skipped(watcher, ignored=[hidden]))
    for name, event in (await added(log)).items():
        assert read_bytes(event.uri, 10**6) == JPEG + name.encode()


@pytest.mark.slow
@pytest.mark.parametrize("live", [False, True])
async def test_skipped_files_are_counted_by_reason(
    root: Path, log: FakeEventLog, live: bool
) -> None:
    def write() -> None:
        (root / "src/deep").mkdir(parents=True)
        (root / "drafts").mkdir()
        for name in ("src/a.py", "src/deep/b.mp4", "photo.xmp", "photo.JSON"):
            (root / name).write_bytes(b"text")
        (root / "Makefile").write_bytes(b"all:\n")
        (root / "src/BMW").write_bytes(b"BMW is no bitmap, though it begins as one" * 9)
        (root / "empty").touch()
        (root / "big.jpg").write_bytes(JPEG + bytes(3000))
        (root / "big").write_bytes(JPEG + bytes(3000))
        (root / "big.iso.x").write_bytes(bytes(9000))
        (root / "half.jpg.part").write_bytes(JPEG)
        (root / "drafts/c.jpg").write_bytes(JPEG)
        (root / "link.jpg").symlink_to(root / "a.jpg")
        Path(os.fsdecode(bytes(root) + b"/caf\xe9")).write_bytes(JPEG)
        (root / "a.jpg").write_bytes(JPEG)

    (root / ".imageignore").write_text("drafts/\n")
    if not live:
        write()
    async with watching(root, log, max_image_bytes=3000) as watcher:
        if live:
            write()
        expected = skipped(
            watcher,
            other_suffix=["src/a.py", "src/deep/b.mp4", "photo.xmp", "photo.JSON"],
            not_a_picture=["Makefile", "src/BMW", "empty", "big.iso.x"],
            ignored=[".imageignore", "drafts/", "half.jpg.part"],
            too_large=["big.jpg", "big"],
            not_a_file=["link.jpg"],
            name_not_utf8=["caf\udce9"],
        )
        await eventually(expected)
        await eventually(lambda: _are(log, {"a.jpg"}))
        counts = {
            "other_suffix": 4,
            "not_a_picture": 4,
            "ignored": 3,
            "too_large": 2,
            "not_a_file": 1,
            "name_not_utf8": 1,
        }
        assert watcher.status.as_dict()["skipped"] == counts
        # What is no picture is no failure, however large.
        await eventually(lambda: _failed(log, {"big.jpg", "big", "caf\\xe9"}))
        (root / "half.jpg.part").rename(root / "half.jpg")
        (root / "src/a.py").unlink()
        (root / "src/BMW").unlink()
        (root / "Makefile").write_bytes(PNG)
        for folder in ("src/deep", "drafts"):
            for path in (root / folder).iterdir():
                path.unlink()
            (root / folder).rmdir()
        await eventually(
            skipped(
                watcher,
                other_suffix=["photo.xmp", "photo.JSON"],
                not_a_picture=["empty", "big.iso.x"],
                ignored=[".imageignore"],
                too_large=["big.jpg", "big"],
                not_a_file=["link.jpg"],
                name_not_utf8=["caf\udce9"],
            )
        )
        await eventually(lambda: _are(log, {"a.jpg", "half.jpg", "Makefile"}))


async def test_unreadable_files_are_reported(
    root: Path, log: FakeEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a user without root's permission to read everything."""
    closed = {"a.jpg", "b", "shut"}

    def guarded(call: Any) -> Any:
        def instead(path: Any, *arguments: Any, **options: Any) -> Any:
            if isinstance(path, str) and path.startswith(f"{root}/") and Path(path).name in closed:
                raise PermissionError(13, "Permission denied", path)
            return call(path, *arguments, **options)

        return instead

    monkeypatch.setattr(os, "open", guarded(os.open))
    monkeypatch.setattr(os, "scandir", guarded(os.scandir))
    (root / "shut").mkdir()
    for name in ("a.jpg", "b"):
        (root / name).write_bytes(JPEG)
        age(root / name)
    async with watching(root, log) as watcher:
        await eventually(skipped(watcher, unreadable=["a.jpg", "b", "shut/"]))
        closed -= {"a.jpg", "shut"}
        watcher.request_scan()
        await eventually(skipped(watcher, unreadable=["b"]))
        await eventually(lambda: _are(log, {"a.jpg"}))


@pytest.mark.slow
async def test_a_file_that_is_not_an_image_is_examined_once(
    root: Path, log: FakeEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    sniff = sniff_media_type

    def counted(head: bytes) -> str | None:
        nonlocal looks
        looks += head == b"no picture"
        return sniff(head)

    monkeypatch.setattr(hashing, "sniff_media_type", counted)
    for number in range(5):
        (root / f"{number}").write_bytes(b"no picture")
        age(root / f"{number}")
    async with watching(root, log) as watcher:
        await eventually(lambda: _counts(watcher, 5))
        assert looks == 5
        await _scans(watcher, 3)
        assert looks == 5
        (root / "3").write_bytes(JPEG)
        await eventually(lambda: _are(log, {"3"}))
        await _scans(watcher, 1)
        assert (looks, watcher.status.skipped.counts()) == (5, {"not_a_picture": 4})


async def _counts(watcher: FolderWatcher, count: int) -> bool:
    return sum(watcher.status.skipped.counts().values()) == count


async def _scans(watcher: FolderWatcher, count: int) -> None:
    for _ in range(count):
        before = watcher.status.last_reconcile

        async def another(before: Any = before) -> bool:
            return bool(watcher.status.last_reconcile != before)

        watcher.request_scan()
        await eventually(another)


@pytest.mark.slow
async def test_a_file_that_is_no_longer_an_image_is_removed(root: Path, log: FakeEventLog) -> None:
    (root / "a").write_bytes(JPEG)
    (root / "b.jpg").write_bytes(JPEG)
    async with watching(root, log) as watcher:
        await eventually(lambda: _are(log, {"a", "b.jpg"}))
        (root / "a").write_bytes(b"overwritten with text")
        (root / "b.jpg").write_bytes(b"overwritten with text")
        await eventually(lambda: _are(log, {"b.jpg"}))
        await eventually(skipped(watcher, not_a_picture=["a"]))
        (root / "a").write_bytes(PNG)
        await eventually(lambda: _are(log, {"a", "b.jpg"}))
        await eventually(skipped(watcher))


@pytest.mark.slow
async def test_other_files_do_not_make_a_missing_folder_look_complete(
    root: Path, log: FakeEventLog
) -> None:
    """The folder below a disk that is away may hold something: a note, a marker."""
    for number in range(3):
        (root / f"{number}").write_bytes(JPEG)
    async with watching(root, log):
        await eventually(lambda: _are(log, {"0", "1", "2"}))
    for number in range(3):
        (root / f"{number}").unlink()
    (root / "README").write_text("The disk is not mounted.")
    age(root / "README")
    async with watching(root, log) as watcher:
        await asyncio.sleep(0.3)
        assert set(await view(log)) == {"0", "1", "2"}
        assert watcher._guard.held == 3
