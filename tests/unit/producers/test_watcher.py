"""The watcher against real folders and real notifications, with an in-memory log."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from watchdog.observers.inotify_c import InotifyEvent, InotifyFD

from adapters.log.fake import FakeEventLog
from producers.folder.watcher import FolderWatcher
from producers.settings import WatcherSettings
from producers.sources import Sources
from schemas.codec import decode, decode_image_change
from schemas.events import DeadLetter, ImageAdded
from schemas.topics import IMAGES, IMAGES_DLQ


def settings(root: Path, **changes: Any) -> WatcherSettings:
    return WatcherSettings(images_dir=root, **{"quiet_seconds": 0.1, **changes})


async def history(log: FakeEventLog) -> list[tuple[str, str | None]]:
    """(id, hash or None) of every record, partition by partition."""
    records = []
    async for record in log.read_all(IMAGES):
        change = decode_image_change(record.key, record.value)
        records.append((change.image_id, change.sha256 if isinstance(change, ImageAdded) else None))
    return records


async def view(log: FakeEventLog) -> dict[str, str]:
    """What the compacted topic says exists: id -> hash."""
    latest = dict(await history(log))
    return {image_id: sha256 for image_id, sha256 in latest.items() if sha256 is not None}


async def letters(log: FakeEventLog) -> list[DeadLetter]:
    return [decode(DeadLetter, record.value) async for record in log.read_all(IMAGES_DLQ)]


def on_disk(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*.jpg")
        if path.is_file()
    }


async def eventually(check: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not await check():
            await asyncio.sleep(0.02)


async def shows(log: FakeEventLog, expected: dict[str, str], seconds: float = 60.0) -> None:
    try:
        async with asyncio.timeout(seconds):
            while await view(log) != expected:
                await asyncio.sleep(0.02)
    except TimeoutError:
        assert await view(log) == expected


@asynccontextmanager
async def watching(
    root: Path, log: FakeEventLog, *, scanned: bool = True, **changes: Any
) -> AsyncIterator[FolderWatcher]:
    sources = Sources(settings(root, **changes), log)
    watcher = sources.main
    task = asyncio.create_task(sources.run())

    async def ready() -> bool:
        if task.done():
            task.result()
        return watcher.status.last_reconcile is not None

    try:
        if scanned:
            await eventually(ready)
        yield watcher
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def age(path: Path, seconds: float = 100) -> None:
    """Make a file look as if it had been written a while ago."""
    moment = path.stat().st_mtime - seconds
    os.utime(path, (moment, moment))


async def test_publishes_existing_files_at_start(root: Path, log: FakeEventLog) -> None:
    (root / "a.jpg").write_bytes(b"one")
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "er" / "b c.jpg").write_bytes(b"two")
    (root / "notes.txt").write_bytes(b"no picture")
    async with watching(root, log):
        await shows(log, on_disk(root))
        records = [r async for r in log.read_all(IMAGES)]
        added = {e.image_id: e for r in records if (e := decode(ImageAdded, r.value))}
    image = added["deep/er/b c.jpg"]
    assert image.uri == (root / "deep/er/b c.jpg").as_uri()
    assert image.size_bytes == 3
    assert image.media_type == "image/jpeg"
    modified_us = (root / "deep/er/b c.jpg").stat().st_mtime_ns // 1000
    assert image.modified_at is not None
    assert round(image.modified_at.timestamp() * 1e6) == modified_us


@pytest.mark.slow
async def test_publishes_nothing_after_a_restart(root: Path, log: FakeEventLog) -> None:
    for number in range(30):
        (root / f"{number}.jpg").write_bytes(bytes([number]))
    async with watching(root, log):
        await shows(log, on_disk(root))
    before = await history(log)
    async with watching(root, log):
        await asyncio.sleep(0.5)
    assert await history(log) == before


@pytest.mark.slow
async def test_follows_changes_while_running(root: Path, log: FakeEventLog) -> None:
    async with watching(root, log):
        (root / "a.jpg").write_bytes(b"first")
        await shows(log, on_disk(root), 2)
        (root / "a.jpg").write_bytes(b"second")
        await shows(log, on_disk(root), 2)
        (root / "a.jpg").rename(root / "b.jpg")
        await shows(log, on_disk(root), 2)
        (root / "b.jpg").unlink()
        await shows(log, {}, 2)


@pytest.mark.slow
async def test_notifications_that_cannot_be_applied_lead_to_new_watches(
    root: Path, log: FakeEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """watchdog's bookkeeping has been seen to fail, which ends the thread that reads events."""
    handle = InotifyFD.handle_event
    failures = 0

    def failing(self: InotifyFD, event: InotifyEvent) -> None:
        nonlocal failures
        if event.name == b"trap.jpg":
            failures += 1
            raise KeyError(b"/a/folder/that/was/moved")
        handle(self, event)

    (root / "folder").mkdir()
    async with watching(root, log, reconcile_seconds=3600):
        (root / "a.jpg").write_bytes(b"1")
        await shows(log, on_disk(root))
        with monkeypatch.context() as patched:
            patched.setattr(InotifyFD, "handle_event", failing)
            (root / "trap.jpg").write_bytes(b"2")
            (root / "folder" / "b.jpg").write_bytes(b"3")
            await shows(log, on_disk(root))
            assert failures
        (root / "folder" / "c.jpg").write_bytes(b"4")
        (root / "a.jpg").unlink()
        await shows(log, on_disk(root))


@pytest.mark.slow
async def test_a_new_file_is_published_within_half_a_second(root: Path, log: FakeEventLog) -> None:
    async with watching(root, log, quiet_seconds=0.3):
        loop = asyncio.get_running_loop()
        started = loop.time()
        (root / "a.jpg").write_bytes(b"data")
        await shows(log, on_disk(root))
        assert loop.time() - started < 0.6


@pytest.mark.slow
async def test_finds_changes_made_while_it_was_down(root: Path, log: FakeEventLog) -> None:
    for name in ("kept", "changed", "removed", "renamed", "touched"):
        (root / f"{name}.jpg").write_bytes(name.encode())
    async with watching(root, log):
        await shows(log, on_disk(root))
    count = len(await history(log))
    (root / "changed.jpg").write_bytes(b"something else")
    (root / "removed.jpg").unlink()
    (root / "sub").mkdir()
    (root / "renamed.jpg").rename(root / "sub" / "new name.jpg")
    age(root / "touched.jpg")
    async with watching(root, log):
        await shows(log, on_disk(root))
    # changed, removed, and the two halves of the rename
    assert len(await history(log)) == count + 4


@pytest.mark.slow
async def test_a_rename_adds_before_it_removes(root: Path, log: FakeEventLog) -> None:
    published: list[str] = []
    publish = log.publish

    async def recording(topic: Any, messages: Any) -> Any:
        published.extend(f"{'+' if m.event else '-'}{m.key}" for m in messages)
        return await publish(topic, messages)

    log.publish = recording  # type: ignore[method-assign]
    (root / "a.jpg").write_bytes(b"one")
    async with watching(root, log):
        await shows(log, on_disk(root))
        (root / "a.jpg").rename(root / "b.jpg")
        await shows(log, on_disk(root))
    (root / "b.jpg").rename(root / "c.jpg")
    age(root / "c.jpg")
    async with watching(root, log):
        await shows(log, on_disk(root))
    assert published == ["+a.jpg", "+b.jpg", "-a.jpg", "+c.jpg", "-b.jpg"]


async def test_files_written_at_once_into_new_folders(root: Path, log: FakeEventLog) -> None:
    async with watching(root, log):
        for number in range(40):
            folder = root / f"d{number}" / "e" / "f"
            folder.mkdir(parents=True)
            (folder / "x.jpg").write_bytes(bytes([number]))
        await shows(log, on_disk(root))


@pytest.mark.slow
async def test_folders_moved_in_within_and_out(root: Path, log: FakeEventLog) -> None:
    outside = root.parent / "outside"
    (outside / "deep").mkdir(parents=True)
    for number in range(10):
        (outside / "deep" / f"{number}.jpg").write_bytes(bytes([number]))
    async with watching(root, log):
        outside.rename(root / "in")
        await shows(log, on_disk(root))
        (root / "in" / "deep" / "later.jpg").write_bytes(b"later")
        await shows(log, on_disk(root))
        (root / "in").rename(root / "within")
        await shows(log, on_disk(root))
        (root / "within" / "deep" / "last.jpg").write_bytes(b"last")
        await shows(log, on_disk(root))
        (root / "within").rename(outside)
        await shows(log, {})
        outside.rename(root / "again")
        await shows(log, on_disk(root))
        shutil.rmtree(root / "again")
        await shows(log, {})


@pytest.mark.parametrize(
    "name",
    [
        "with space",
        'it\'s "quoted"',
        "line\nbreak",
        "tab\t",
        "日本 🏞",
        "e\u0301",
        "per%20cent",
        "a#b?c",
        "\\",
    ],
)
async def test_any_name_is_kept_as_it_is(root: Path, log: FakeEventLog, name: str) -> None:
    async with watching(root, log):
        (root / f"{name}.jpg").write_bytes(b"x")
        await shows(log, on_disk(root))
        assert list(await view(log)) == [f"{name}.jpg"]


@pytest.mark.slow
async def test_a_name_that_is_not_utf8_is_dead_lettered_once(root: Path, log: FakeEventLog) -> None:
    bad = os.fsencode(root) + b"/caf\xe9.jpg"
    Path(os.fsdecode(bad)).write_bytes(b"x")
    folder = Path(os.fsdecode(os.fsencode(root) + b"/\xff"))
    folder.mkdir()
    (folder / "inside.jpg").write_bytes(b"y")
    for _ in range(2):
        async with watching(root, log):
            (root / "good.jpg").write_bytes(b"good")
            await shows(log, {"good.jpg": hashlib.sha256(b"good").hexdigest()})
            await eventually(lambda: _has(log, 2))
    found = {letter.image_id: letter for letter in await letters(log)}
    assert set(found) == {"caf\\xe9.jpg", "\\xff/inside.jpg"}
    assert len(await letters(log)) == 2
    assert found["caf\\xe9.jpg"].reason == "the name is not UTF-8"


async def _published(log: FakeEventLog, count: int) -> bool:
    return len(await history(log)) >= count


async def _has(log: FakeEventLog, count: int) -> bool:
    return len(await letters(log)) >= count


@pytest.mark.slow
async def test_temporary_hidden_and_ignored_names(root: Path, log: FakeEventLog) -> None:
    (root / ".imageignore").write_text("drafts/\n*_raw.jpg\n")
    for name in (
        "a.jpg.part",
        "b.jpg.crdownload",
        "c.jpg.tmp",
        "d.jpg~",
        ".e.jpg.Xy12",
        ".f.jpg",
        "~$g.jpg",
        "h.txt",
        ".hidden/i.jpg",
        "drafts/j.jpg",
        "k_raw.jpg",
        "sub/drafts/l.jpg",
        "sub.tmp/m.jpg",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    (root / "seen.JPG").write_bytes(b"seen")
    seen = {"seen.JPG": hashlib.sha256(b"seen").hexdigest()}
    async with watching(root, log):
        await shows(log, seen)
        (root / "b.jpg.crdownload").rename(root / "b.jpg")
        seen["b.jpg"] = hashlib.sha256(b"b.jpg.crdownload").hexdigest()
        await shows(log, seen)
        (root / ".imageignore").write_text("*.JPG\n")
        (root / "drafts" / "n.jpg").write_bytes(b"n")
        await shows(
            log,
            {
                name: hashlib.sha256((root / name).read_bytes()).hexdigest()
                for name in (
                    "b.jpg",
                    "drafts/j.jpg",
                    "drafts/n.jpg",
                    "k_raw.jpg",
                    "sub/drafts/l.jpg",
                )
            },
        )


@pytest.mark.slow
async def test_a_slow_copy_gives_one_event_with_the_final_hash(
    root: Path, log: FakeEventLog
) -> None:
    async with watching(root, log):
        with (root / "slow.jpg").open("wb") as file:
            for number in range(6):
                file.write(bytes([number]) * 1000)
                file.flush()
                await asyncio.sleep(0.3)
        await shows(log, on_disk(root))
        await asyncio.sleep(0.3)
    assert len(await history(log)) == 1


@pytest.mark.slow
async def test_a_restart_in_the_middle_of_a_copy_waits_for_its_end(
    root: Path, log: FakeEventLog
) -> None:
    with (root / "slow.jpg").open("wb") as file:
        file.write(b"half")
        file.flush()
        age(root / "slow.jpg")
        async with watching(root, log):
            await asyncio.sleep(0.5)
            assert await history(log) == []
            file.write(b"whole")
            file.close()
            await shows(log, on_disk(root))
    assert len(await history(log)) == 1


@pytest.mark.slow
async def test_an_outage_loses_nothing(root: Path, log: FakeEventLog) -> None:
    async with watching(root, log):
        log.available = False
        for number in range(50):
            (root / f"{number}.jpg").write_bytes(bytes([number]))
        await asyncio.sleep(0.5)
        for number in range(10):
            (root / f"{number}.jpg").unlink()
        await asyncio.sleep(0.5)
        assert await log_is_empty(log)
        log.available = True
        await shows(log, on_disk(root), 20)


async def log_is_empty(log: FakeEventLog) -> bool:
    return not any(records for partitions in log.topics.values() for records in partitions)


@pytest.mark.slow
async def test_starts_while_the_log_is_down(root: Path, log: FakeEventLog) -> None:
    (root / "a.jpg").write_bytes(b"x")
    log.available = False
    async with watching(root, log, scanned=False):
        await asyncio.sleep(0.3)
        log.available = True
        await shows(log, on_disk(root), 20)


@pytest.mark.slow
async def test_a_checkout_that_moved_is_published_again_without_hashing(
    root: Path, log: FakeEventLog
) -> None:
    (root / "a.jpg").write_bytes(b"x")
    async with watching(root, log):
        await shows(log, on_disk(root))
    moved = root.parent / "moved"
    root.rename(moved)
    async with watching(moved, log):
        await eventually(lambda: _published(log, 2))
        records = [decode(ImageAdded, r.value) async for r in log.read_all(IMAGES)]
    assert [r.uri for r in records] == [(root / "a.jpg").as_uri(), (moved / "a.jpg").as_uri()]


@pytest.mark.slow
async def test_polling_finds_the_same(root: Path, log: FakeEventLog) -> None:
    async with watching(root, log, poll_seconds=0.2):
        (root / "sub").mkdir()
        (root / "sub" / "a.jpg").write_bytes(b"one")
        (root / "b.jpg").write_bytes(b"two")
        await shows(log, on_disk(root))
        (root / "b.jpg").write_bytes(b"three")
        shutil.rmtree(root / "sub")
        await shows(log, on_disk(root))
        (root / "b.jpg").unlink()
        await shows(log, {})


@pytest.mark.slow
async def test_too_large_a_file_is_refused(root: Path, log: FakeEventLog) -> None:
    (root / "a.jpg").write_bytes(b"x" * 11)
    (root / "b.jpg").write_bytes(b"x" * 10)
    async with watching(root, log, max_image_bytes=10):
        await shows(log, {"b.jpg": hashlib.sha256(b"x" * 10).hexdigest()})
        await eventually(lambda: _has(log, 1))
        (root / "b.jpg").write_bytes(b"x" * 12)
        await shows(log, {})
    assert {(d.image_id, d.error_class, d.reason) for d in await letters(log)} == {
        ("a.jpg", "TooLarge", "11 bytes are more than 10"),
        ("b.jpg", "TooLarge", "12 bytes are more than 10"),
    }


@pytest.mark.slow
async def test_a_touched_file_publishes_nothing(root: Path, log: FakeEventLog) -> None:
    (root / "a.jpg").write_bytes(b"x")
    async with watching(root, log):
        await shows(log, on_disk(root))
        age(root / "a.jpg")
        (root / "a.jpg").write_bytes(b"x")
        await asyncio.sleep(0.6)
    assert len(await history(log)) == 1


@pytest.mark.slow
async def test_an_emptied_root_removes_nothing_until_confirmed(
    root: Path, log: FakeEventLog, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        (root / f"{number}.jpg").write_bytes(bytes([number]))
    before = on_disk(root)
    async with watching(root, log):
        await shows(log, before)
    aside = root.rename(root.parent / "aside")
    root.mkdir()
    async with watching(root, log) as watcher:
        await asyncio.sleep(0.5)
        assert await view(log) == before
        assert "REMOVALS HELD BACK" in caplog.text
        assert watcher._guard.held == 3
        watcher.request_scan(confirm_removals=True)
        async with asyncio.timeout(60):
            while watcher._guard.held:
                watcher.status.write_soon.clear()
                await watcher.status.write_soon.wait()
        # The status at the end of the comparison shows its result.
        assert watcher.status.held == 0
        assert watcher.status.counters.removed == 3
        assert await view(log) == {}
    shutil.rmtree(root)
    aside.rename(root)
    async with watching(root, log):
        await shows(log, before)


async def _not_held(watcher: FolderWatcher) -> bool:
    return not watcher._guard.held


@pytest.mark.slow
async def test_a_vanished_root_removes_nothing_and_is_watched_again(
    root: Path, log: FakeEventLog, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(30):
        (root / f"{number}.jpg").write_bytes(bytes([number]))
    before = on_disk(root)
    async with watching(root, log) as watcher:
        await shows(log, before)
        aside = root.rename(root.parent / "aside")
        await eventually(lambda: _root_missing(watcher))
        assert "THE FOLDER IS GONE" in caplog.text
        assert await view(log) == before
        aside.rename(root)
        (root / "new.jpg").write_bytes(b"new")
        await shows(log, on_disk(root))
        (root / "later.jpg").write_bytes(b"later")
        await shows(log, on_disk(root), 3)
        shutil.rmtree(root)
        await asyncio.sleep(1.5)
        assert len(await view(log)) == 32


async def _root_missing(watcher: FolderWatcher) -> bool:
    return bool(watcher.status.root_missing)


@pytest.mark.slow
async def test_removals_of_most_images_at_once_are_held(root: Path, log: FakeEventLog) -> None:
    for folder in ("kept", "disk"):
        (root / folder).mkdir()
        for number in range(25 if folder == "kept" else 30):
            (root / folder / f"{number}.jpg").write_bytes(f"{folder}{number}".encode())
    before = on_disk(root)
    async with watching(root, log) as watcher:
        await shows(log, before)
        shutil.rmtree(root / "disk")
        await eventually(lambda: _held(watcher))
        assert await view(log) == before
        # A rename of as many is no loss.
        (root / "kept").rename(root / "renamed")
        await eventually(lambda: _shows_names(log, "renamed/", 25))
    async with watching(root, log, allow_mass_removal=True):
        await shows(log, on_disk(root))


@pytest.mark.slow
async def test_held_removals_are_examined_again_soon(
    root: Path, log: FakeEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producers.folder.watcher.HELD_RETRY_SECONDS", 0.5)
    (root / "disk").mkdir()
    for number in range(30):
        (root / "disk" / f"{number}.jpg").write_bytes(bytes([number]))
    async with watching(root, log) as watcher:
        await shows(log, on_disk(root))
        shutil.rmtree(root / "disk")
        await eventually(lambda: _held(watcher))
        # With these, what is gone is no longer most of what is known.
        for number in range(40):
            (root / f"{number}.jpg").write_bytes(bytes([number, 1]))
        await shows(log, on_disk(root))
        await eventually(lambda: _not_held(watcher))


async def _held(watcher: FolderWatcher) -> bool:
    return watcher._guard.held > 0


async def _shows_names(log: FakeEventLog, prefix: str, count: int) -> bool:
    return sum(name.startswith(prefix) for name in await view(log)) == count


@pytest.mark.slow
async def test_folders_nested_a_thousand_deep_are_polled(root: Path, log: FakeEventLog) -> None:
    here = os.open(root, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    deepest = root / "/".join(["d"] * 1200) / "x.jpg"
    deepest.write_bytes(b"x")
    expected = {deepest.relative_to(root).as_posix(): hashlib.sha256(b"x").hexdigest()}
    try:
        async with watching(root, log) as watcher:
            await shows(log, expected)
            assert watcher.status.poll_seconds > 0
    finally:
        subprocess.run(["rm", "-r", str(root / "d")], check=True)  # noqa: ASYNC221


@pytest.mark.slow
async def test_links_are_not_followed_by_default(root: Path, log: FakeEventLog) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "a.jpg").write_bytes(b"a")
    (root / "real").mkdir()
    (root / "real" / "b.jpg").write_bytes(b"b")
    (root / "folder").symlink_to(outside)
    (root / "file.jpg").symlink_to(outside / "a.jpg")
    (root / "broken.jpg").symlink_to("nowhere")
    (root / "real" / "loop").symlink_to(root)
    (root / "self").symlink_to("self")
    a, b = (hashlib.sha256(content).hexdigest() for content in (b"a", b"b"))
    async with watching(root, log):
        await shows(log, {"real/b.jpg": b})
    async with watching(root, log, follow_symlinks=True):
        await shows(log, {"real/b.jpg": b, "folder/a.jpg": a, "file.jpg": a})
    async with watching(root, log):
        await shows(log, {"real/b.jpg": b})


@pytest.mark.slow
async def test_images_of_a_folder_replaced_by_a_link_are_removed(
    root: Path, log: FakeEventLog
) -> None:
    (root / "sub").mkdir()
    (root / "sub" / "a.jpg").write_bytes(b"a")
    async with watching(root, log):
        await shows(log, on_disk(root))
        (root / "sub").rename(root.parent / "elsewhere")
        (root / "sub").symlink_to(root.parent / "elsewhere")
        await shows(log, {})
