"""A failing or slow disk is distinguished from a failing file, so that no image waits for ever."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adapters.embedder.spec import ModelSpec
from adapters.errors import DecoderTimeout, SlowFile
from adapters.progress import Activity
from consumers.indexing.decoding import Decoder
from consumers.indexing.reading import Superseded, read
from consumers.indexing.settings import IndexingSettings
from schemas.events import ImageAdded
from tests.faults.test_absent_images import moved_away, waits
from tests.faults.test_failing_decoders import png, written
from tests.support import hostile_tasks
from tests.unit.consumers.test_indexing import Bench, bench

__all__ = ["bench"]

LARGE = 30_000_000
"""A file's reported size, which allows for many seconds of reading."""


@pytest.fixture
async def decoder(small_spec: ModelSpec) -> AsyncIterator[Decoder]:
    settings = IndexingSettings(decode_workers=1, decode_seconds=2)
    with ThreadPoolExecutor(1) as pool:
        made = Decoder(small_spec, settings, pool, task=f"{hostile_tasks.MODULE}:read_slowly")
        yield made
        made.close()


def large(path: Path, data: bytes) -> ImageAdded:
    return written(path, data).model_copy(update={"size_bytes": LARGE})


@pytest.mark.slow
async def test_a_large_file_may_be_read_longer_than_it_may_be_decoded(
    decoder: Decoder, tmp_path: Path
) -> None:
    done = await decoder.decode(large(tmp_path / "slow.png", png("red")))
    assert done.image.width == 30
    assert done.read_ms > 2000


@pytest.mark.slow
async def test_the_decoding_timeout_begins_after_reading(decoder: Decoder, tmp_path: Path) -> None:
    async with asyncio.timeout(25):
        with pytest.raises(DecoderTimeout, match="more than 2 s"):
            await decoder.decode(large(tmp_path / "slow.png", hostile_tasks.LOOP + png("red")))


@pytest.mark.slow
async def test_a_slow_file_is_distinguished_from_storage_that_is_away(
    decoder: Decoder, tmp_path: Path
) -> None:
    async with asyncio.timeout(25):
        with pytest.raises(SlowFile, match="could not be read"):
            await decoder.decode(written(tmp_path / "never.png", png("red")))


@pytest.mark.slow
async def test_a_long_read_of_a_file_is_not_taken_for_a_stuck_process(
    small_spec: ModelSpec, tmp_path: Path
) -> None:
    settings = IndexingSettings(decode_workers=1, decode_seconds=20, stuck_seconds=1)
    activity = Activity("indexing", pending=lambda: 1, achieved=lambda: 0)
    with ThreadPoolExecutor(1) as pool, activity.here():
        decoder = Decoder(small_spec, settings, pool, task=f"{hostile_tasks.MODULE}:read_slowly")
        await decoder.decode(written(tmp_path / "slow.png", png("red")))
        decoder.close()
    activity.update(10)
    assert activity.quiet == 0
    assert activity.outage is not None
    assert "slow.png takes long" in activity.outage.reason


@pytest.mark.slow
async def test_a_file_whose_read_never_ends_does_not_stop_other_files(
    bench: Bench,
) -> None:
    records = await bench.logged(
        bench.added("never.png", bench.put_image("never.png")),
        bench.added("good.png", bench.put_image("good.png", "blue")),
    )
    bench.decoder._task = f"{hostile_tasks.MODULE}:read_slowly"
    bench.decoder.sandbox.seconds = 2
    await asyncio.wait_for(bench.run(*records), 60)
    assert bench.ids == {"good.png"}
    (letter,) = await bench.dead_letters()
    # The class that the watcher drives again.
    assert (letter.image_id, letter.error_class) == ("never.png", "Vanished")
    assert letter.attempts == bench.settings.max_attempts


@pytest.mark.slow
async def test_a_file_with_a_bad_sector_becomes_a_dead_letter_that_can_be_retried(
    bench: Bench,
) -> None:
    records = await bench.logged(
        bench.added("bad.png", bench.put_image("bad.png")),
        bench.added("good.png", bench.put_image("good.png", "blue")),
    )
    bench.decoder._task = f"{hostile_tasks.MODULE}:read_bad_sectors"
    await asyncio.wait_for(bench.run(*records), 20)
    assert bench.ids == {"good.png"}
    (letter,) = await bench.dead_letters()
    assert (letter.image_id, letter.error_class) == ("bad.png", "Vanished")
    assert "Input/output error" in letter.reason


@pytest.mark.slow
async def test_a_failing_disk_with_a_missing_root_is_waited_for(bench: Bench) -> None:
    names = [f"bad{n}.png" for n in range(20)]
    records = await bench.logged(
        *(bench.added(n, bench.put_image(n, f"#{i:06x}")) for i, n in enumerate(names))
    )
    usual = bench.decoder._task
    bench.decoder._task = f"{hostile_tasks.MODULE}:read_bad_sectors"
    bench.folder.rename(moved_away(bench))
    bench.folder.mkdir()
    work = asyncio.create_task(bench.run(*records))
    assert await waits(work)
    bench.decoder._task = usual
    bench.folder.rmdir()
    moved_away(bench).rename(bench.folder)
    await asyncio.wait_for(work, 20)
    assert bench.ids == set(names)
    assert await bench.dead_letters() == []


@pytest.mark.slow
async def test_a_root_check_that_never_answers_is_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = bench.put_image("a.png")
    (record,) = await bench.logged(bench.added("a.png", data))
    (bench.folder / "a.png").unlink()
    answers, requested = threading.Event(), list[Iterable[ImageAdded]]()

    def hangs(events: Iterable[ImageAdded]) -> str | None:
        requested.append(events)
        assert answers.wait(60)
        return None

    monkeypatch.setattr("consumers.indexing.absent.ROOT_CHECK_SECONDS", 0.05)
    monkeypatch.setattr(bench.indexer._preparer._absent._roots, "find_missing", hangs)
    work = asyncio.create_task(bench.run(record))
    try:
        assert await waits(work)
        assert "its storage does not respond" in caplog.text
        # No more threads hang the longer this lasts.
        assert len(requested) == 1
        bench.put_image("a.png")
        await asyncio.wait_for(work, 10)
    finally:
        answers.set()
    assert bench.ids == {"a.png"}


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENXIO, errno.ETIMEDOUT])
def test_errors_of_a_disk_or_of_one_file_are_resolved_from_the_log(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = written(tmp_path / "a.png", b"x")

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(Superseded, match=os.strerror(number)):
        read(event, max_bytes=10)
