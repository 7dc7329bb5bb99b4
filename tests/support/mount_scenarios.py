"""A watched folder over real mounts: `python -m tests.support.mount_scenarios NAME FOLDER`.

Run within a mount namespace of its own (`unshare --mount`), so that nobody else sees the mounts.
"""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from adapters.log.fake import FakeEventLog
from consumers.indexing.roots import Roots
from imaging.sources.settings import SourceSettings
from producers.folder.watcher import FolderWatcher
from schemas.codec import decode
from schemas.events import ImageAdded
from schemas.topics import IMAGES
from tests.unit.producers.test_watcher import age, eventually, on_disk, shows, view, watching


def command(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True)


def put(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(str(path).encode())
        age(path)


class MountedFolder:
    """A folder of images, and disks that can be mounted in it and keep their files."""

    def __init__(self, base: Path) -> None:
        self.root = base / "images"
        self.disks = base / "disks"
        put(self.root, *(f"{n}.jpg" for n in range(50)))
        self.disks.mkdir()
        command("mount", "-t", "tmpfs", "disks", self.disks)
        self.log = FakeEventLog()

    def disk(self, name: str, *files: str) -> Path:
        """A disk with these files."""
        folder = self.disks / name
        folder.mkdir()
        put(folder, *files)
        return folder

    def mount(self, disk: Path, point: str) -> None:
        (self.root / point).mkdir(parents=True, exist_ok=True)
        command("mount", "--bind", disk, self.root / point)

    def unmount(self, point: str, *, lazy: bool = False) -> None:
        command("umount", *(["-l"] if lazy else []), self.root / point)

    async def published_mounts(self) -> dict[str, str | None]:
        """id -> mount, of the newest event of each picture that is not removed."""
        found: dict[str, str | None] = {}
        async for record in self.log.read_all(IMAGES):
            assert record.key is not None
            if record.value is None:
                found.pop(record.key.decode(), None)
            else:
                event = decode(ImageAdded, record.value)
                found[event.image_id] = event.mount
        return {image_id: mount for image_id, mount in found.items() if "/" in image_id}


async def holds(watcher: FolderWatcher, count: int, *words: str) -> None:
    """Wait until `count` removals are held for a reason with these words and no other disk."""

    async def check() -> bool:
        reason = watcher.status.held_reason
        return watcher.status.held == count and all(word in reason for word in words)

    try:
        await eventually(check, 30)
    except TimeoutError:
        raise AssertionError((watcher.status.held, watcher.status.held_reason)) from None


async def unmounted(mounted: MountedFolder) -> None:
    """Images of an unmounted disk stay, while watching and between runs, until confirmed."""
    mounted.mount(mounted.disk("a", "x.jpg", "y.jpg"), "disk")
    everything = on_disk(mounted.root)
    for lazy in (False, True):
        async with watching(mounted.root, mounted.log) as watcher:
            await shows(mounted.log, everything)
            mounted.unmount("disk", lazy=lazy)
            await holds(watcher, 2, "nothing is mounted at disk")
            assert await view(mounted.log) == everything
        async with watching(mounted.root, mounted.log) as watcher:
            await holds(watcher, 2, "nothing is mounted at disk")
            assert await view(mounted.log) == everything
            mounted.mount(mounted.disks / "a", "disk")
            await holds(watcher, 0)
            assert await view(mounted.log) == everything
    mounted.unmount("disk")
    async with watching(mounted.root, mounted.log) as watcher:
        await holds(watcher, 2)
        watcher.request_scan(confirm_removals=True)
        await shows(mounted.log, on_disk(mounted.root))
        await holds(watcher, 0)


async def several(mounted: MountedFolder) -> None:
    """Held removals are reported for each disk, and no longer once it is back."""
    mounted.mount(mounted.disk("a", "1.jpg", "2.jpg"), "a")
    mounted.mount(mounted.disk("b", "1.jpg", "2.jpg", "3.jpg"), "b")
    everything = on_disk(mounted.root)
    async with watching(mounted.root, mounted.log) as watcher:
        await shows(mounted.log, everything)
        mounted.unmount("a")
        mounted.unmount("b")
        await holds(watcher, 5, "at a,", "at b,")
        mounted.mount(mounted.disks / "a", "a")
        await holds(watcher, 3, "at b,")
        assert "at a," not in watcher.status.held_reason
        (mounted.root / "7.jpg").unlink()
        del everything["7.jpg"]
        await shows(mounted.log, everything)


async def nested(mounted: MountedFolder) -> None:
    """A disk mounted on a disk: each image names the inner one; both can be unmounted."""
    mounted.mount(mounted.disk("outer", "o.jpg"), "outer")
    mounted.mount(mounted.disk("inner", "i.jpg"), "outer/inner")
    everything = on_disk(mounted.root)
    async with watching(mounted.root, mounted.log) as watcher:
        await shows(mounted.log, everything)
        assert await mounted.published_mounts() == {
            "outer/o.jpg": "outer",
            "outer/inner/i.jpg": "outer/inner",
        }
        mounted.unmount("outer/inner")
        await holds(watcher, 1, "at outer/inner,")
        mounted.unmount("outer")
        await holds(watcher, 2, "at outer/inner,", "at outer,")
        mounted.mount(mounted.disks / "outer", "outer")
        await holds(watcher, 1, "at outer/inner,")
        assert await view(mounted.log) == everything


async def moved(mounted: MountedFolder) -> None:
    """A mount point that moved: new images are added, the others held until confirmed."""
    mounted.mount(mounted.disk("a", "x.jpg"), "here")
    command("mount", "--make-rprivate", "/")
    before = on_disk(mounted.root)
    async with watching(mounted.root, mounted.log) as watcher:
        await shows(mounted.log, before)
        (mounted.root / "there").mkdir()
        command("mount", "--move", mounted.root / "here", mounted.root / "there")
        await holds(watcher, 1, "at here,")
        await shows(mounted.log, {**before, **on_disk(mounted.root)})
        assert await mounted.published_mounts() == {"here/x.jpg": "here", "there/x.jpg": "there"}
        watcher.request_scan(confirm_removals=True)
        await shows(mounted.log, on_disk(mounted.root))


async def another(mounted: MountedFolder) -> None:
    """A disk is unmounted, and an empty one mounted at once."""
    mounted.mount(mounted.disk("a", "x.jpg"), "disk")
    everything = on_disk(mounted.root)
    async with watching(mounted.root, mounted.log) as watcher:
        await shows(mounted.log, everything)
        mounted.disk("empty")
        mounted.unmount("disk")
        mounted.mount(mounted.disks / "empty", "disk")
        await holds(watcher, 1, "disk holds no picture")
        assert await view(mounted.log) == everything


async def covered(mounted: MountedFolder) -> None:
    """A file system mounted over the whole folder hides the disk, which the table still lists."""
    mounted.mount(mounted.disk("a", "x.jpg"), "disk")
    over = mounted.disk("over", *(f"{n}.jpg" for n in range(50)))
    (over / "disk").mkdir()
    async with watching(mounted.root, mounted.log) as watcher:
        await shows(mounted.log, on_disk(mounted.root))
        mounted.mount(over, ".")
        await holds(watcher, 1, "nothing is mounted at disk")
        assert "disk/x.jpg" in await view(mounted.log)


async def same_device(mounted: MountedFolder) -> None:
    """A bind mount of a folder of the same file system counts as a mount."""
    other = mounted.root.with_name("other")
    put(other, "x.jpg")
    mounted.mount(other, "bound")
    everything = on_disk(mounted.root)
    async with watching(mounted.root, mounted.log) as watcher:
        await shows(mounted.log, everything)
        assert await mounted.published_mounts() == {"bound/x.jpg": "bound"}
        events = [
            decode(ImageAdded, record.value)
            async for record in mounted.log.read_all(IMAGES)
            if record.key == b"bound/x.jpg"
        ]
        roots = Roots(SourceSettings(images_dir=mounted.root))
        assert roots.find_missing(events) is None
        mounted.unmount("bound")
        assert "nothing is mounted at" in (roots.find_missing(events) or "")
        await holds(watcher, 1, "at bound,")
        assert await view(mounted.log) == everything


async def one_file(mounted: MountedFolder) -> None:
    """A bind mount of a single file, as into a container, is a mount point, too."""
    put(mounted.root.with_name("other"), "x.jpg")
    put(mounted.root, "one/x.jpg", "one/y.jpg")
    command(
        "mount", "--bind", mounted.root.with_name("other") / "x.jpg", mounted.root / "one/x.jpg"
    )
    async with watching(mounted.root, mounted.log) as watcher:
        await shows(mounted.log, on_disk(mounted.root))
        assert await mounted.published_mounts() == {"one/x.jpg": "one/x.jpg", "one/y.jpg": None}
        unchanged = watcher.status.counters.unchanged
        before = watcher.status.last_reconcile
        watcher.request_scan()

        async def compared() -> bool:
            return watcher.status.last_reconcile != before

        await eventually(compared, 20)
        assert watcher.status.counters.unchanged == unchanged, "looked at though equal"


async def linked(mounted: MountedFolder) -> None:
    """A followed link to a disk elsewhere: its images depend on that disk."""
    elsewhere = mounted.root.with_name("elsewhere")
    (elsewhere / "plain").mkdir(parents=True)
    put(elsewhere / "plain", "p.jpg")
    (elsewhere / "usb").mkdir()
    command("mount", "--bind", mounted.disk("a", "x.jpg"), elsewhere / "usb")
    (mounted.root / "linked").symlink_to(elsewhere)
    mounted.mount(mounted.disk("b", "z.jpg"), "disk")
    (mounted.root / "short").symlink_to(mounted.root / "disk")
    expected = {
        **on_disk(mounted.root),
        **{
            name: hashlib.sha256((mounted.root / name).read_bytes()).hexdigest()
            for name in ("linked/plain/p.jpg", "linked/usb/x.jpg", "short/z.jpg")
        },
    }
    async with watching(mounted.root, mounted.log, follow_symlinks=True) as watcher:
        await shows(mounted.log, expected)
        assert await mounted.published_mounts() == {
            "linked/plain/p.jpg": None,
            "linked/usb/x.jpg": str(elsewhere / "usb"),
            "disk/z.jpg": "disk",
            "short/z.jpg": "disk",
        }
        command("umount", elsewhere / "usb")
        mounted.unmount("disk")
        await holds(watcher, 3, "at disk,", f"at {elsewhere / 'usb'},")
        assert await view(mounted.log) == expected
        (elsewhere / "plain" / "p.jpg").unlink()
        watcher.request_scan()
        del expected["linked/plain/p.jpg"]
        await shows(mounted.log, expected)


SCENARIOS: dict[str, Callable[[MountedFolder], Awaitable[None]]] = {
    each.__name__: each
    for each in (
        unmounted,
        several,
        nested,
        moved,
        another,
        covered,
        same_device,
        one_file,
        linked,
    )
}

if __name__ == "__main__":
    asyncio.run(SCENARIOS[sys.argv[1]](MountedFolder(Path(sys.argv[2]))))  # type: ignore[arg-type]
