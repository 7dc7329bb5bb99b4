"""Several folders and buckets at once, with an in-memory log and in-memory buckets."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest
from prometheus_client import generate_latest

from adapters.errors import Rejected, Unavailable
from adapters.log.fake import FakeEventLog
from imaging.sources.source import Source, parse_sources
from imaging.sources.storage import file_system, open_uri, read_bytes
from producers.metrics import registry
from producers.settings import WatcherSettings
from producers.sources import Sources
from schemas.codec import decode_image_change
from schemas.events import ImageAdded
from schemas.topics import IMAGES, IMAGES_DLQ
from tests.unit.producers.test_watcher import eventually


class TestSource:
    def test_names_and_urls_are_read(self) -> None:
        assert parse_sources(" nas=file:///mnt/my%20nas\n cloud=s3://b/x/ ") == (
            Source("nas", "file:///mnt/my%20nas"),
            Source("cloud", "s3://b/x/"),
        )

    @pytest.mark.parametrize(
        "text", ["s3://b/x", "a/b=s3://b", "=s3://b", "nas=/mnt/nas", "a=s3://b a=s3://c"]
    )
    def test_an_invalid_source_is_named(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"is not of the form|used for two"):
            parse_sources(text)
        with pytest.raises(ValueError, match="IMAGES_SOURCES"):
            WatcherSettings(images_sources=text)

    def test_any_name_fits_into_a_uri(self, bucket: Any) -> None:
        source = Source("cloud", "memory://b/x")
        for name in ("a b.jpg", "100%.jpg", "a#b?c.jpg", "été*.jpg", "a%20b.jpg"):
            bucket.pipe(f"/b/x/{name}", name.encode())
            assert read_bytes(source.uri(name), 99) == name.encode()

    def test_missing_files_and_unknown_schemes_are_errors(self, bucket: Any) -> None:
        with pytest.raises(FileNotFoundError):
            open_uri("memory://b/none.jpg")
        with pytest.raises(Rejected, match="gopher"):
            file_system("gopher://b/none.jpg")


@pytest.fixture
def bucket() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    system.makedirs("/b/x", exist_ok=True)
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@asynccontextmanager
async def running(root: Path, log: FakeEventLog, **changes: Any) -> AsyncIterator[Sources]:
    usual = {"quiet_seconds": 0.1, "list_seconds": 0.1, "images_sources": "cloud=memory://b/x"}
    sources = Sources(WatcherSettings(images_dir=root, **{**usual, **changes}), log)
    task = asyncio.create_task(sources.run())
    try:
        yield sources
    finally:
        ended = task.done()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert not ended


async def events(log: FakeEventLog) -> dict[str, ImageAdded]:
    latest: dict[str, ImageAdded] = {}
    async for record in log.read_all(IMAGES):
        change = decode_image_change(record.key, record.value)
        if isinstance(change, ImageAdded):
            latest[change.image_id] = change
        else:
            latest.pop(change.image_id, None)
    return latest


async def count(log: FakeEventLog) -> int:
    return len([None async for _ in log.read_all(IMAGES)])


async def shows(log: FakeEventLog, expected: dict[str, bytes]) -> None:
    wanted = {name: hashlib.sha256(data).hexdigest() for name, data in expected.items()}

    async def equal() -> bool:
        return {name: event.sha256 for name, event in (await events(log)).items()} == wanted

    try:
        await eventually(equal)
    except TimeoutError:
        assert {n: e.sha256 for n, e in (await events(log)).items()} == wanted


@pytest.mark.slow
async def test_a_bucket_is_followed(root: Path, log: FakeEventLog, bucket: Any) -> None:
    bucket.pipe({"/b/x/a.jpg": b"1", "/b/x/deep/er/b c.png": b"2", "/b/x/notes.txt": b"no"})
    bucket.pipe({"/b/x/.hidden/c.jpg": b"no", "/b/other.jpg": b"no"})
    (root / "own.jpg").write_bytes(b"0")
    async with running(root, log) as sources:
        await shows(log, {"own.jpg": b"0", "cloud/a.jpg": b"1", "cloud/deep/er/b c.png": b"2"})
        event = (await events(log))["cloud/deep/er/b c.png"]
        assert event.uri == "memory://b/x/deep/er/b%20c.png"
        assert event.media_type == "image/png"
        assert read_bytes(event.uri, 10) == b"2"
        bucket.pipe("/b/x/a.jpg", b"changed")
        bucket.rm("/b/x/deep/er/b c.png")
        bucket.pipe("/b/x/new.jpg", b"3")
        await shows(log, {"own.jpg": b"0", "cloud/a.jpg": b"changed", "cloud/new.jpg": b"3"})
        (root / "own.jpg").unlink()
        (root / "own2.jpg").write_bytes(b"00")
        expected = {"own2.jpg": b"00", "cloud/a.jpg": b"changed", "cloud/new.jpg": b"3"}
        await shows(log, expected)
        assert sources.statuses()["cloud"].known() == 2
    before = await count(log)
    async with running(root, log) as sources:
        await eventually(lambda: compared(sources))
        assert await count(log) == before
        assert sources.statuses()["cloud"].state == "watching"


async def compared(sources: Sources) -> bool:
    return all(status.last_reconcile is not None for status in sources.statuses().values())


async def state_is(sources: Sources, name: str, wanted: str) -> bool:
    return sources.statuses()[name].state == wanted


@pytest.mark.slow
async def test_an_emptied_bucket_removes_nothing_until_confirmed(
    root: Path, log: FakeEventLog, bucket: Any
) -> None:
    bucket.pipe({f"/b/x/{number}.jpg": bytes([number]) for number in range(3)})
    before = {f"cloud/{number}.jpg": bytes([number]) for number in range(3)}
    async with running(root, log) as sources:
        await shows(log, before)
        bucket.rm("/b/x/0.jpg")
        await shows(log, {name: data for name, data in before.items() if name != "cloud/0.jpg"})
        bucket.pipe("/b/x/0.jpg", bytes([0]))
        await shows(log, before)
    bucket.rm("/b/x", recursive=True)
    async with running(root, log) as sources:
        await eventually(lambda: state_is(sources, "cloud", "removals held back"))
        await shows(log, before)
        sources.request_scan(confirm_removals=True)
        await shows(log, {})
        await eventually(lambda: state_is(sources, "cloud", "watching"))


@pytest.mark.slow
async def test_a_listing_during_which_a_bucket_is_emptied_removes_nothing(
    root: Path, log: FakeEventLog, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.pipe({f"/b/x/{number}.jpg": bytes([number]) for number in range(100)})
    before = {f"cloud/{number}.jpg": bytes([number]) for number in range(100)}
    walk = type(bucket).walk
    torn = 0

    def emptied_meanwhile(system: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
        """Nine tenths are listed, then all are removed, and the rest is not listed any more."""
        nonlocal torn
        for folder, folders, files in list(walk(system, *arguments, **options)):
            if files:
                torn += 1
                system.rm("/b/x", recursive=True)
                files = dict(list(files.items())[:90])
            yield folder, folders, files

    async with running(root, log) as sources:
        await shows(log, before)
        with monkeypatch.context() as patched:
            patched.setattr(type(bucket), "walk", emptied_meanwhile)
            await eventually(lambda: state_is(sources, "cloud", "removals held back"))
            assert torn == 1
        await shows(log, before)
        assert sources.statuses()["cloud"].held == 100


@pytest.mark.slow
async def test_a_bucket_outage_removes_nothing(
    root: Path, log: FakeEventLog, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.pipe({"/b/x/a.jpg": b"1", "/b/x/b.jpg": b"2"})
    async with running(root, log) as sources:
        await shows(log, {"cloud/a.jpg": b"1", "cloud/b.jpg": b"2"})

        def away(*_: object, **__: object) -> None:
            raise ConnectionError("no route")

        with monkeypatch.context() as patched:
            patched.setattr(type(bucket), "walk", away)
            await eventually(lambda: state_is(sources, "cloud", "not reachable"))
            text = generate_latest(registry(sources.statuses)).decode()
            assert 'image_search_watcher_source_missing{source="cloud"} 1.0' in text
            assert 'image_search_watcher_source_missing{source="main"} 0.0' in text
            assert 'image_search_watcher_published_total{source="cloud"} 2.0' in text
        bucket.rm("/b/x/a.jpg")
        await shows(log, {"cloud/b.jpg": b"2"})


async def test_an_unreadable_object_does_not_delay_the_others(
    root: Path, log: FakeEventLog, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.pipe({"/b/x/bad.jpg": b"1", "/b/x/good.jpg": b"2"})

    def refusing(uri: str) -> Any:
        if "bad" in uri:
            raise Unavailable("access denied")
        return open_uri(uri)

    with monkeypatch.context() as patched:
        patched.setattr("producers.bucket.watcher.open_uri", refusing)
        async with running(root, log) as sources:
            await shows(log, {"cloud/good.jpg": b"2"})
            assert sources.statuses()["cloud"].counters.unreadable == {"bad.jpg"}
            patched.undo()
            await shows(log, {"cloud/good.jpg": b"2", "cloud/bad.jpg": b"1"})
            assert not sources.statuses()["cloud"].counters.unreadable


async def test_an_object_over_the_limit_is_a_dead_letter(
    root: Path, log: FakeEventLog, bucket: Any
) -> None:
    bucket.pipe({"/b/x/big.jpg": b"12345678", "/b/x/small.jpg": b"1"})
    async with running(root, log, max_image_bytes=5):
        await shows(log, {"cloud/small.jpg": b"1"})
    (letter,) = [record async for record in log.read_all(IMAGES_DLQ)]
    assert letter.key == b"cloud/big.jpg"


@pytest.mark.slow
async def test_a_second_folder_is_watched_under_its_name(
    root: Path, log: FakeEventLog, tmp_path: Path
) -> None:
    second = tmp_path / "a second"
    (second / "in").mkdir(parents=True)
    (second / "in" / "a.jpg").write_bytes(b"1")
    # A folder of the main one with the same name is left alone.
    (root / "nas").mkdir()
    (root / "nas" / "no.jpg").write_bytes(b"no")
    async with running(root, log, images_sources=f"nas={second.as_uri()}"):
        await shows(log, {"nas/in/a.jpg": b"1"})
        (second / "b.jpg").write_bytes(b"2")
        await shows(log, {"nas/in/a.jpg": b"1", "nas/b.jpg": b"2"})
        event = (await events(log))["nas/b.jpg"]
        assert event.uri == (second / "b.jpg").as_uri()
        (second / "in" / "a.jpg").unlink()
        await shows(log, {"nas/b.jpg": b"2"})
