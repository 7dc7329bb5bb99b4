"""Names that systems use for themselves are ignored; merely unusual names are not."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from adapters.log.fake import FakeEventLog
from imaging.sources.system_names import (
    FILE_BEGINNINGS,
    FILE_ENDINGS,
    FILES,
    FOLDERS,
    is_system_file,
)
from producers.rules import Rules, load_rules
from producers.settings import WatcherSettings
from tests.support.gateway_on_fakes import png
from tests.unit.producers.test_sources import running
from tests.unit.producers.test_watcher import eventually, on_disk, shows, view, watching

MADE_BY_SYSTEMS = [
    "@eaDir",
    "$RECYCLE.BIN",
    "$Recycle.Bin",
    "System Volume Information",
    ".thumbnails",
    "lost+found",
    "#recycle",
    "#snapshot",
    "@Recycle",
    ".@__thumb",
    ".Trash-1000",
    ".Trashes",
    ".Spotlight-V100",
    ".fseventsd",
    "RECYCLER",
    "LOST.DIR",
    "FOUND.000",
    "found.012",
    "appdata_ocabc123",
    "files_trashbin",
]
MERELY_ODD = [
    "lost",
    "lost and found",
    "found",
    "@home",
    "#1",
    "#fun#",
    "~draft",
    "draft~",
    "~$1",
    "$money",
    "RECYCLE.BIN",
    "Recycled",
    "recycle",
    "Trash",
    "thumbnails",
    "thumbs",
    "eaDir",
    "@eaDir2",
    "my @eaDir",
    "FOUND.1000",
    "System Volume",
    "snapshot",
    "-",
    "[x]",
    "été",
]
ODD_FILES = ["#1.jpg", "~draft.jpg", "@eaDir.jpg", "$RECYCLE.BIN.jpg", "Thumbs.db.jpg", "-.jpg"]


@pytest.mark.parametrize("name", MADE_BY_SYSTEMS)
def test_system_folders_are_ignored_at_any_depth(name: str) -> None:
    # Hidden names too are left out for what they are, where hidden ones are taken.
    rules = Rules(hidden=True)
    for path in (f"{name}/a.png", f"x/y/{name}/a.png", f"x/{name}/y/z/a.png"):
        assert not rules.includes(path)
        assert rules.is_system_path(path)
    assert Rules(hidden=True, defaults=False).includes(f"x/{name}/a.png")
    assert not Rules(hidden=True, defaults=False).is_system_path(f"x/{name}/a.png")


@pytest.mark.parametrize("name", MERELY_ODD)
def test_folders_with_similar_names_are_watched(name: str) -> None:
    for path in (f"{name}/a.png", f"x/{name}/y/a.png"):
        assert Rules().includes(path)
        assert not Rules().is_system_path(path)


@pytest.mark.parametrize("name", ODD_FILES)
def test_files_with_similar_names_are_watched(name: str) -> None:
    assert Rules().includes(name)
    assert Rules().includes(f"x/{name}")


@pytest.mark.parametrize("name", ["._a.png", ".trashed-1700000000-IMG_1.png", ".pending-1-a.png"])
def test_system_files_are_ignored_when_hidden_files_are_included(name: str) -> None:
    assert not Rules(hidden=True).includes(f"x/{name}")
    assert Rules(hidden=True).is_system_path(f"x/{name}")
    assert Rules(hidden=True).includes("x/.a.png")


@pytest.mark.parametrize("name", ["#a.png#", "a.png~", "~$a.png"])
def test_temporary_files_of_editors_are_ignored(name: str) -> None:
    assert Rules().skips_name(name)


@pytest.mark.parametrize("name", [*FILES, "a.jpg@SynoEAStream", "THUMBS.DB"])
def test_system_files_are_recognised(name: str) -> None:
    assert is_system_file(name)
    assert not is_system_file(f"x{name}x")


def test_a_pattern_can_include_a_system_folder() -> None:
    rules = Rules(["!@eaDir/", "!/lost+found/", "*.gif", "!#recycle/", "#recycle/old/"])
    assert rules.includes("a/@eaDir/b.png")
    assert not rules.is_system_path("a/@eaDir/b.png")
    assert not rules.includes("a/@eaDir/b.gif")
    assert rules.includes("lost+found/b.png")
    assert not rules.includes("a/lost+found/b.png")
    assert rules.includes("#recycle/b.png")
    assert not rules.includes("$RECYCLE.BIN/b.png")


def test_the_default_rules_can_be_switched_off(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_rules(root, (), WatcherSettings()) == Rules()
    monkeypatch.setenv("IGNORE_DEFAULTS", "false")
    rules = load_rules(root, (), WatcherSettings())
    assert rules != Rules()
    assert rules.includes("@eaDir/a.png")
    (root / ".imageignore").write_text("!(\n[")
    assert load_rules(root, (), WatcherSettings()).includes("@eaDir/a.png")


def test_each_ignored_name_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs/names.md").read_text(encoding="utf-8")
    for maker, names in FOLDERS.items():
        row = f"| {maker} | {', '.join(f'`{name}`' for name in names)} |"
        assert row in text
    for name in [*FILES, *FILE_BEGINNINGS, *FILE_ENDINGS]:
        assert name.replace("\r", "\\r") in text


def put(root: Path, *names: str) -> None:
    """Pictures of different contents."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        # A decoder stops where the picture ends.
        (root / name).write_bytes(png() + name.encode())


@pytest.mark.slow
async def test_the_watcher_ignores_system_folders(root: Path, log: FakeEventLog) -> None:
    put(root, *(f"{name}/a.jpg" for name in MERELY_ODD), *ODD_FILES)
    expected = on_disk(root)
    assert len(expected) == len(MERELY_ODD) + len(ODD_FILES)
    put(root, *(f"x/{name}/b.jpg" for name in MADE_BY_SYSTEMS))
    async with watching(root, log, include_hidden=True):
        await shows(log, expected)
        put(root, "y/@eaDir/c.jpg", "y/d.jpg")
        await shows(log, expected | {n: d for n, d in on_disk(root).items() if n == "y/d.jpg"})


@pytest.mark.slow
async def test_previously_indexed_system_files_are_removed_without_confirmation(
    root: Path, log: FakeEventLog, caplog: pytest.LogCaptureFixture
) -> None:
    put(root, *(f"{n}.jpg" for n in range(10)))
    images = on_disk(root)
    put(root, *(f"@eaDir/{n}.jpg/thumb.jpg" for n in range(90)))
    async with watching(root, log, ignore_defaults=False):
        await shows(log, on_disk(root))
    async with watching(root, log) as watcher:
        await shows(log, images)
        assert watcher.status.counters.removed == 90
        assert watcher.status.held == 0
        # Nor do they count for what goes after them.
        (root / "0.jpg").unlink()
        await shows(log, {name: each for name, each in images.items() if name != "0.jpg"})
    assert "HELD BACK" not in caplog.text
    assert (root / "@eaDir/0.jpg/thumb.jpg").exists()


@pytest.mark.slow
async def test_removed_system_files_do_not_raise_the_limit_on_removals(
    root: Path, log: FakeEventLog
) -> None:
    """Thirty of forty pictures are gone: hundreds of thumbnails beside them make that no less."""
    put(root, *(f"{n}.jpg" for n in range(40)))
    images = on_disk(root)
    put(root, *(f"@eaDir/{n}.jpg" for n in range(200)))
    async with watching(root, log, ignore_defaults=False):
        await shows(log, on_disk(root))
    for n in range(30):
        (root / f"{n}.jpg").unlink()
    async with watching(root, log) as watcher:
        await shows(log, images)

        async def held() -> bool:
            return watcher.status.held == 30

        await eventually(held)
        assert await view(log) == images
        watcher.request_scan(confirm_removals=True)
        await shows(log, {f"{n}.jpg": images[f"{n}.jpg"] for n in range(30, 40)})


@pytest.mark.slow
async def test_system_files_of_a_missing_folder_are_kept(root: Path, log: FakeEventLog) -> None:
    put(root, "a.jpg", "@eaDir/b.jpg")
    before = on_disk(root)
    async with watching(root, log, ignore_defaults=False):
        await shows(log, before)
    shutil.rmtree(root)
    async with watching(root, log, scanned=False) as watcher:

        async def gone() -> bool:
            return bool(watcher.status.root_missing)

        await eventually(gone)
        await asyncio.sleep(0.2)
        assert await view(log) == before


@pytest.fixture
def bucket() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    system.makedirs("/b/x", exist_ok=True)
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.mark.slow
async def test_a_bucket_removes_only_its_system_files(
    root: Path, log: FakeEventLog, bucket: Any
) -> None:
    bucket.pipe({f"/b/x/{n}.jpg": png(size=(n + 1, 1)) for n in range(40)})
    bucket.pipe({f"/b/x/@eaDir/{n}.jpg": png(size=(n + 1, 2)) for n in range(100)})
    images = {f"cloud/{n}.jpg" for n in range(40)}

    async def all_known() -> bool:
        return len(await view(log)) == 140

    async def only_images() -> bool:
        return set(await view(log)) == images

    async with running(root, log, ignore_defaults=False):
        await eventually(all_known)
    bucket.rm([f"/b/x/{n}.jpg" for n in range(30)])
    async with running(root, log) as sources:
        await eventually(only_images)

        async def held() -> bool:
            return sources.statuses()["cloud"].held == 30

        await eventually(held)
        assert await only_images()
