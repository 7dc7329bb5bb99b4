"""Images on a disk mounted below the watched folder stay known while it is away."""

import asyncio
import shutil
from pathlib import Path

import pytest

from adapters.log.fake import FakeEventLog
from adapters.log.port import Message
from imaging.sources import mounts
from imaging.sources.mounts import Mounts, MountTable, unescape
from producers.events import addition
from producers.guard import RemovalGuards
from producers.known_image import FileStat, KnownImage
from producers.log.known_images import KnownImages
from schemas.codec import decode
from schemas.events import ImageAdded, now
from schemas.topics import IMAGES
from tests.unit.producers.test_watcher import age, on_disk, shows, view, watching


class Disks:
    """A mount table of the test's own. What is mounted is a folder's content, moved in and out."""

    def __init__(self, root: Path, table: Path) -> None:
        self._root = root
        self._table = table
        self._rows: dict[str, int] = {}
        self._numbers = 100
        self._write()

    def mount(self, point: str) -> None:
        """The disk's files appear at the mount point."""
        self._numbers += 1
        self._rows[point] = self._numbers
        away = self._root.with_name(f"away-{point.replace('/', '_')}")
        if away.exists():
            for path in list(away.iterdir()):
                path.rename(self._root / point / path.name)
            away.rmdir()
        self._write()

    def unmount(self, point: str) -> None:
        """The mount point is empty, as it was before."""
        away = self._root.with_name(f"away-{point.replace('/', '_')}")
        away.mkdir()
        del self._rows[point]
        self._write()
        for path in list((self._root / point).iterdir()):
            path.rename(away / path.name)

    def _write(self) -> None:
        lines = [
            f"{number} {self._parent(point)} 8:{number} / {self._root}/{point} rw"
            f" - ext4 /dev/sd{number} rw"
            for point, number in self._rows.items()
        ]
        self._table.write_text("\n".join(["1 0 8:1 / / rw - ext4 /dev/sda rw", *lines, ""]))

    def _parent(self, point: str) -> int:
        above = [other for other in self._rows if point.startswith(f"{other}/")]
        return self._rows[max(above, key=len)] if above else 1


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "disk").mkdir(parents=True)
    return folder


@pytest.fixture
def disks(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disks:
    monkeypatch.setattr(mounts, "_TABLE", tmp_path / "mountinfo")
    return Disks(root, tmp_path / "mountinfo")


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
        age(path)


async def published_mounts(log: FakeEventLog) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    async for record in log.read_all(IMAGES):
        if record.value is not None:
            event = decode(ImageAdded, record.value)
            found[event.image_id] = event.mount
    return found


async def rests(watcher: object, seconds: float = 2.5) -> None:
    """Long enough for a look at the root, a scan, and what follows from it."""
    await asyncio.sleep(seconds)


async def test_an_event_states_the_mount_point_as_a_path(
    root: Path, disks: Disks, log: FakeEventLog
) -> None:
    (root / "disk" / "inner").mkdir()
    put(root, "a.jpg", "disk/b.jpg", "disk/inner/c.jpg", "disks/d.jpg")
    disks.mount("disk")
    disks.mount("disk/inner")
    async with watching(root, log):
        await shows(log, on_disk(root))
    assert await published_mounts(log) == {
        "a.jpg": None,
        "disk/b.jpg": "disk",
        "disk/inner/c.jpg": "disk/inner",
        "disks/d.jpg": None,
    }


@pytest.mark.slow
@pytest.mark.parametrize("running", [True, False], ids=["while watching", "between runs"])
async def test_a_small_disk_that_is_unmounted_keeps_its_images(
    root: Path, disks: Disks, log: FakeEventLog, running: bool
) -> None:
    """However few they are of all pictures, and though the root is there."""
    put(root, *(f"{n}.jpg" for n in range(50)), "disk/x.jpg", "disk/y.jpg")
    disks.mount("disk")
    everything = on_disk(root)
    if running:
        async with watching(root, log) as watcher:
            await shows(log, everything)
            disks.unmount("disk")
            await rests(watcher)
            assert await view(log) == everything
            assert watcher.status.held == 2
            assert "nothing is mounted at disk" in watcher.status.held_reason
            disks.mount("disk")
            await rests(watcher)
            assert watcher.status.held == 0
    else:
        async with watching(root, log):
            await shows(log, everything)
        disks.unmount("disk")
        async with watching(root, log) as watcher:
            await rests(watcher)
            assert await view(log) == everything
            assert watcher.status.held == 2
    assert await view(log) == everything


@pytest.mark.slow
async def test_changes_made_while_a_disk_was_unmounted_are_found(
    root: Path, disks: Disks, log: FakeEventLog
) -> None:
    put(root, "a.jpg", "disk/gone.jpg", "disk/kept.jpg")
    disks.mount("disk")
    async with watching(root, log):
        await shows(log, on_disk(root))
        disks.unmount("disk")
        await asyncio.sleep(1.5)
        away = root.with_name("away-disk")
        (away / "gone.jpg").unlink()
        (away / "new.jpg").write_bytes(b"new")
        age(away / "new.jpg")
        disks.mount("disk")
        await shows(log, on_disk(root))
    assert "disk/new.jpg" in on_disk(root)


@pytest.mark.slow
async def test_a_disk_that_comes_back_empty_keeps_its_images(
    root: Path, disks: Disks, log: FakeEventLog
) -> None:
    put(root, *(f"{n}.jpg" for n in range(50)), "disk/x.jpg")
    disks.mount("disk")
    everything = on_disk(root)
    async with watching(root, log):
        await shows(log, everything)
    disks.unmount("disk")
    shutil.rmtree(root.with_name("away-disk"))
    disks.mount("disk")
    async with watching(root, log) as watcher:
        await rests(watcher)
        assert await view(log) == everything
        assert "disk holds no picture" in watcher.status.held_reason


@pytest.mark.slow
async def test_a_removal_on_a_mounted_disk_is_published(
    root: Path, disks: Disks, log: FakeEventLog
) -> None:
    put(root, "disk/x.jpg", "disk/y.jpg")
    disks.mount("disk")
    async with watching(root, log):
        await shows(log, on_disk(root))
        (root / "disk" / "x.jpg").unlink()
        await shows(log, on_disk(root))


@pytest.mark.slow
async def test_images_of_a_permanently_removed_disk_can_be_removed(
    root: Path, disks: Disks, log: FakeEventLog
) -> None:
    put(root, "a.jpg", "disk/x.jpg")
    disks.mount("disk")
    async with watching(root, log) as watcher:
        await shows(log, on_disk(root))
        disks.unmount("disk")
        await rests(watcher)
        watcher.request_scan(confirm_removals=True)
        await shows(log, {"a.jpg": on_disk(root)["a.jpg"]})


@pytest.mark.slow
async def test_events_of_an_earlier_version_are_published_once_with_their_mount(
    root: Path, disks: Disks, log: FakeEventLog
) -> None:
    put(root, "a.jpg", "disk/x.jpg")
    async with watching(root, log):  # Nothing is mounted: as an earlier version recorded it.
        await shows(log, on_disk(root))
    before = len([record async for record in log.read_all(IMAGES)])
    disks.mount("disk")
    for expected in (1, 1):
        async with watching(root, log):
            await rests(None, 0.5)
        reported = len([record async for record in log.read_all(IMAGES)])
        assert reported - before == expected
    assert (await published_mounts(log))["disk/x.jpg"] == "disk"


def test_the_limit_on_removals_applies_to_each_mount() -> None:
    state = KnownImages()
    for n in range(1000):
        state.put(f"{n}", KnownImage(bytes([n % 256, n // 256]), FileStat(1, 1)))
    for n in range(100):
        state.put(f"d/{n}", KnownImage(bytes([n, 0, 1]), FileStat(1, 1), mount="d"))
    assert (state.count(None), state.count("d")) == (1000, 100)
    guards = RemovalGuards(0.5, allow=False, mounts=lambda: Mounts(points=frozenset({"d"})))
    most = [f"d/{n}" for n in range(60)]
    assert guards.admitted([*most, "1", "2"], state, 0.0) == ["1", "2"]
    assert guards.held == 60
    assert guards.admitted(most[:30], state, 0.0) == most[:30]


def test_the_mount_of_an_image_is_the_innermost() -> None:
    table = Mounts(points=frozenset({"a", "a/b", "c d"}))
    found = {path: table.of(path) for path in ("x", "a/x", "a/b/c/x", "ab/x", "c d/x", "")}
    assert found == {
        "x": None,
        "a/x": "a",
        "a/b/c/x": "a/b",
        "ab/x": None,
        "c d/x": "c d",
        "": None,
    }


def test_the_mount_table_is_parsed_with_any_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "mountinfo"
    table.write_bytes(
        b"20 1 8:1 / /pictures rw - ext4 a rw\n"
        b"21 20 8:2 / /pictures/my\\040disk\\134x rw - ext4 b rw\n"
        b"22 20 8:3 / /pictures/l\xe4tin rw - ext4 c rw\n"
        b"23 1 8:4 / /pictures-other rw - ext4 d rw\n"
    )
    monkeypatch.setattr(mounts, "_TABLE", table)
    found = MountTable.read(Path("/pictures"))
    assert found.mounts.points == {"my disk\\x", "l\udce4tin"}
    assert found.entries is not None
    assert len(found.entries) == 3
    assert unescape(b"a\\011b") == b"a\tb"


async def test_known_images_share_the_string_of_their_mount() -> None:
    from producers.log.known_images_loader import load

    log = FakeEventLog()
    events = [
        addition(
            f"disk/{n}.jpg", f"file:///r/disk/{n}.jpg", bytes(32), FileStat(1, 1), now(), "disk"
        )
        for n in range(3)
    ]
    await log.publish(IMAGES, [Message(event.image_id, event) for event in events])
    state = (await load(log, {"": "file:///r/"}))[""]
    found = [known.mount for path in state if (known := state.get(path)) is not None]
    assert found == ["disk"] * 3
    assert len({id(name) for name in found}) == 1
    assert state.count("disk") == 3


def table_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *rows: str, root: str = "/pictures"
) -> MountTable:
    table = tmp_path / "mountinfo"
    table.write_text("\n".join(["20 1 8:1 / / rw - ext4 a rw", *rows, ""]))
    monkeypatch.setattr(mounts, "_TABLE", table)
    return MountTable.read(Path(root))


def test_a_reused_device_number_is_another_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel gives a number to the next mount as soon as it is free."""
    rows = [
        "21 20 8:2 / /pictures/disk rw shared:7 - ext4 /dev/sdb rw",
        "21 20 8:3 / /pictures/disk rw - ext4 /dev/sdc rw",
        "21 20 8:2 /sub /pictures/disk rw - ext4 /dev/sdb rw",
    ]
    tables = [table_of(tmp_path, monkeypatch, row) for row in rows]
    assert len({table.entries for table in tables}) == 3
    assert {table.mounts.points for table in tables} == {frozenset({"disk"})}
    again = table_of(tmp_path, monkeypatch, rows[0].replace(" rw ", " ro,noatime ", 1))
    assert again == tables[0]


def test_an_automount_point_is_not_a_mounted_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demand = "21 20 0:50 / /pictures/nas rw - autofs systemd-1 rw"
    assert not table_of(tmp_path, monkeypatch, demand).mounts.has("nas")
    disk = "22 21 0:51 / /pictures/nas rw - nfs4 server:/x rw"
    assert table_of(tmp_path, monkeypatch, demand, disk).mounts.has("nas")


def test_a_disk_covered_by_another_mount_is_not_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        "21 20 8:2 / /pictures/disk rw - ext4 b rw",
        "22 21 8:3 / /pictures/disk/inner rw - ext4 c rw",
    ]
    assert table_of(tmp_path, monkeypatch, *rows).mounts.points == {"disk", "disk/inner"}
    over_the_root = "23 20 8:4 / /pictures rw - ext4 d rw"
    assert table_of(tmp_path, monkeypatch, *rows, over_the_root).mounts.points == set()
    over_the_disk = "23 21 8:4 / /pictures/disk rw - ext4 d rw"
    assert table_of(tmp_path, monkeypatch, *rows, over_the_disk).mounts.points == {"disk"}


def test_a_disk_behind_a_link_is_known_by_the_links_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        "21 20 8:2 / /media/usb rw - ext4 b rw",
        "22 20 8:3 / /home rw - ext4 c rw",
        "23 22 8:4 / /home/me/pictures/disk rw - ext4 d rw",
    ]
    found = table_of(tmp_path, monkeypatch, *rows, root="/home/me/pictures").mounts
    folders = ["/media/usb", "/media/usb/a/b", "/media", "/home/me/x", "/home/me/pictures/disk/x"]
    assert [found.of_real(folder) for folder in folders] == [
        "/media/usb",
        "/media/usb",
        None,
        None,
        "disk",
    ]
    assert found.has("/media/usb")
    assert not found.has("/home")


@pytest.mark.slow
async def test_a_folder_is_not_compared_again_and_again_while_a_disk_is_away(
    root: Path, disks: Disks, log: FakeEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it is mounted again is seen in the mount table."""
    monkeypatch.setattr("producers.folder.watcher.HELD_RETRY_SECONDS", 0.2)
    put(root, "a.jpg", "disk/x.jpg")
    disks.mount("disk")
    async with watching(root, log) as watcher:
        await shows(log, on_disk(root))
        disks.unmount("disk")
        await rests(watcher)
        assert watcher.status.held == 1
        before = watcher.status.last_reconcile
        await rests(watcher, 1.0)
        assert watcher.status.last_reconcile == before


def test_held_removals_are_reported_for_each_mount() -> None:
    state = KnownImages()
    for mount in ("a", "b"):
        state.put(f"{mount}/x", KnownImage(mount.encode(), FileStat(1, 1), mount=mount))
    present: set[str] = set()
    guards = RemovalGuards(0.5, allow=False, mounts=lambda: Mounts(points=frozenset(present)))
    assert guards.admitted(["a/x", "b/x"], state, 0.0, whole=True) == []
    assert guards.held == 2
    present.add("a")
    assert guards.admitted(["b/x"], state, 0.0, whole=True) == []
    assert (guards.held, guards.reason) == (1, "nothing is mounted at b, where 1 pictures were.")


@pytest.mark.slow
async def test_an_empty_root_is_not_taken_for_complete_because_of_a_disk_below_it(
    root: Path, disks: Disks, log: FakeEventLog
) -> None:
    """The root's own disk is another one, and what is mounted below it is there."""
    put(root, "1.jpg", "2.jpg", "disk/x.jpg", "disk/y.jpg", "disk/z.jpg")
    disks.mount("disk")
    everything = on_disk(root)
    async with watching(root, log):
        await shows(log, everything)
    (root / "1.jpg").unlink()
    (root / "2.jpg").unlink()
    async with watching(root, log) as watcher:
        await rests(watcher)
        assert await view(log) == everything
        assert watcher.status.held == 2
        assert "the folder holds no picture" in watcher.status.held_reason
