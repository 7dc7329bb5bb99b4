"""Letters of images that indexing did not find are settled, or the images published again."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from adapters.log.dead_letter_reader import VANISHED, read_letters
from adapters.log.fake import FakeEventLog
from adapters.log.port import Message
from consumers.indexing.failures import Poison
from producers.known_image import UNKNOWN
from producers.log import vanished_letters as vanished_module
from producers.log.known_images import KnownImages
from schemas.topics import IMAGES, IMAGES_DLQ
from tests.unit.producers.test_watcher import age, eventually, history, on_disk, shows, watching


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vanished_module, "SETTLE_SECONDS", 0.1)


def put(root: Path, name: str, data: bytes) -> None:
    (root / name).write_bytes(data)
    age(root / name)


async def vanished(log: FakeEventLog, image_id: str) -> None:
    """What an indexer writes about the newest record of a picture."""
    newest = None
    async for record in log.read_all(IMAGES):
        if record.key == image_id.encode():
            newest = record
    assert newest is not None
    poison = Poison(newest, image_id, VANISHED, "the file is not there", 3)
    await log.publish(IMAGES_DLQ, [poison.message("images", "lite")])


async def settled(log: FakeEventLog) -> dict[str, str | None]:
    return {each.event.image_id: each.settled_as for each in await read_letters(log)}


async def becomes(log: FakeEventLog, expected: dict[str, str | None]) -> None:
    async def check() -> bool:
        return await settled(log) == expected

    await eventually(check, 20)


@pytest.mark.slow
async def test_an_unchanged_image_with_a_dead_letter_is_published_again(
    root: Path, log: FakeEventLog
) -> None:
    put(root, "a.jpg", b"a")
    put(root, "b.jpg", b"b")
    async with watching(root, log) as watcher:
        await shows(log, on_disk(root))
        await vanished(log, "a.jpg")
        watcher.request_scan()
        await becomes(log, {"a.jpg": "retried"})
        watcher.request_scan()
        await asyncio.sleep(0.5)
    reported = [image_id for image_id, _ in await history(log)]
    assert reported.count("a.jpg") == 2
    assert reported.count("b.jpg") == 1


@pytest.mark.slow
async def test_a_removal_settles_the_letter_of_an_image(root: Path, log: FakeEventLog) -> None:
    put(root, "a.jpg", b"a")
    async with watching(root, log):
        await shows(log, on_disk(root))
        await vanished(log, "a.jpg")
        (root / "a.jpg").unlink()
        await becomes(log, {"a.jpg": "overtaken"})
    assert await history(log) == [
        ("a.jpg", hashlib.sha256(b"a").hexdigest()),
        ("a.jpg", None),
    ]


@pytest.mark.slow
async def test_a_new_version_settles_a_letter(root: Path, log: FakeEventLog) -> None:
    put(root, "a.jpg", b"a")
    async with watching(root, log):
        await shows(log, on_disk(root))
        await vanished(log, "a.jpg")
        put(root, "a.jpg", b"another")
        await becomes(log, {"a.jpg": "overtaken"})


async def test_a_letter_written_before_the_start_is_settled(root: Path, log: FakeEventLog) -> None:
    put(root, "a.jpg", b"a")
    async with watching(root, log):
        await shows(log, on_disk(root))
    await vanished(log, "a.jpg")
    async with watching(root, log):
        await becomes(log, {"a.jpg": "retried"})


@pytest.mark.slow
async def test_letters_of_other_classes_are_left_alone(root: Path, log: FakeEventLog) -> None:
    put(root, "a.jpg", b"a")
    async with watching(root, log) as watcher:
        await shows(log, on_disk(root))
        (record,) = [each async for each in log.read_all(IMAGES)]
        poison = Poison(record, "a.jpg", "Rejected", "no picture")
        foreign = Message("a.jpg", b"no letter at all")
        await log.publish(IMAGES_DLQ, [poison.message("images", "lite"), foreign])
        watcher.request_scan()
        await asyncio.sleep(1.0)
    assert set((await settled(log)).values()) == {None}
    assert len(await history(log)) == 1


@pytest.mark.slow
async def test_letters_of_a_bucket_are_settled(tmp_path: Path, log: FakeEventLog) -> None:
    import fsspec

    from producers.sources import Sources
    from tests.unit.producers.test_watcher import settings

    bucket = f"memory://bucket-{tmp_path.name}"
    system = fsspec.filesystem("memory")
    for name in ("a", "b", "c"):
        system.pipe_file(f"{bucket.removeprefix('memory:/')}/{name}.jpg", name.encode())
    everything = {
        f"cloud/{name}.jpg": hashlib.sha256(name.encode()).hexdigest() for name in ("a", "b", "c")
    }
    (tmp_path / "images").mkdir()
    chosen = settings(tmp_path / "images", images_sources=f"cloud={bucket}", list_seconds=0.1)
    work = asyncio.create_task(Sources(chosen, log).run())
    try:
        await shows(log, everything)
        await vanished(log, "cloud/a.jpg")
        await becomes(log, {"cloud/a.jpg": "retried"})
        await vanished(log, "cloud/a.jpg")
        system.rm(f"{bucket.removeprefix('memory:/')}/a.jpg")
        del everything["cloud/a.jpg"]
        await shows(log, everything)
        await asyncio.sleep(0.5)
        assert {each.settled_as for each in await read_letters(log)} <= {"retried", "overtaken"}
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def test_an_image_that_could_not_be_read_keeps_its_letter(
    root: Path, log: FakeEventLog
) -> None:
    """What is known of it is open while it is to be published again; that overtakes nothing."""
    put(root, "a.jpg", b"a")
    async with watching(root, log):
        await shows(log, on_disk(root))
    await vanished(log, "a.jpg")
    state = KnownImages()
    state.put("a.jpg", UNKNOWN)
    letters = vanished_module.VanishedLetters(log, (), "")
    assert await letters.settle(state) == ["a.jpg"]
    assert await settled(log) == {"a.jpg": None}
