"""Abandoned decoding keeps its slot until its process has ended; shared work is finished."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import os
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from adapters.embedder.spec import ModelSpec
from consumers.indexing import decoding
from consumers.indexing.decoding import Decoder
from consumers.indexing.settings import IndexingSettings
from gateway.images.uploads import Uploads
from imaging.decoders import Decoders
from imaging.sandbox.pool import Sandbox
from schemas.events import ImageAdded, now
from tests.support import hostile_tasks
from tests.support.gateway_on_fakes import Gateway, gateway, image_record, png, unit

ENDLESS = 600.0


@pytest.fixture
async def bench(
    tmp_path: Path, small_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Gateway]:
    """A gateway that decodes one picture at a time, and has all the time to do so."""
    monkeypatch.setattr("imaging.decoders.TASKS", hostile_tasks.MODULE)
    settings = {
        "picture_workers": 1,
        "decode_seconds": ENDLESS,
        "request_timeout": 10 * ENDLESS,
        "thumbnails_dir": tmp_path / "thumbnails",
    }
    async with gateway(tmp_path, small_spec, [image_record("a.jpg", unit(1))], **settings) as bench:
        yield bench


async def exists(path: Path) -> None:
    async with asyncio.timeout(20):
        while not (path.exists() and path.stat().st_size):
            await asyncio.sleep(0.02)


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert all(task.cancelled() for task in tasks)


@pytest.mark.slow
async def test_a_worker_is_reused_only_when_its_cancelled_task_has_ended(
    tmp_path: Path,
) -> None:
    sandbox = Sandbox(1, memory_bytes=10**8, seconds=ENDLESS)
    for number in range(5):
        mark = tmp_path / str(number)
        work = asyncio.create_task(
            sandbox.run(f"{hostile_tasks.MODULE}:process_id_after", ENDLESS, mark)
        )
        await exists(begun := Path(f"{mark}.begun"))
        next_task = asyncio.create_task(sandbox.run(f"{hostile_tasks.MODULE}:process_id"))
        await asyncio.sleep(0)
        assert not next_task.done()
        await cancelled(work)
        first = int(begun.read_text())
        assert await next_task != first
        assert not psutil.pid_exists(first)
    sandbox.close()


@pytest.mark.slow
async def test_thumbnails_are_made_after_searches_were_cancelled(bench: Gateway) -> None:
    (bench.images / "x.png").write_bytes(png())
    await bench.holds("x.png")
    slow = {"image": base64.b64encode(hostile_tasks.SLOW + b" 600").decode()}
    for _ in range(3):
        search = asyncio.create_task(bench.search(terms=[slow] * 16))
        await asyncio.sleep(0.2)
        await cancelled(search)
    async with asyncio.timeout(30):
        assert (await bench.client.get("/thumbnails/x.png")).status_code == 200


@pytest.mark.slow
async def test_a_shared_thumbnail_is_finished_for_later_requests(
    bench: Gateway, tmp_path: Path
) -> None:
    count = tmp_path / "count"
    note = f"\nCOUNT {count}\n\nNOTE ".encode() + hostile_tasks.SLOW + b" 1 "
    (bench.images / "slow.png").write_bytes(png() + note)
    await bench.holds("slow.png")
    first = [asyncio.create_task(bench.client.get("/thumbnails/slow.png")) for _ in range(3)]
    await exists(count)
    await cancelled(*first)
    response = await bench.client.get("/thumbnails/slow.png")
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/jpeg"
    assert count.read_text() == "x"


@pytest.mark.slow
async def test_a_cancelled_upload_occupies_its_slot_until_its_thread_ends(
    tmp_path: Path,
) -> None:
    sandbox = Sandbox(1, memory_bytes=10**8, seconds=60)
    uploads = Uploads(tmp_path, Decoders(sandbox, max_pixels=10**7), max_bytes=10**6, workers=1)
    reading, go_on = threading.Event(), threading.Event()

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            reading.set()
            go_on.wait(60)
            return super().read(size)

    first = asyncio.create_task(uploads.store(Slow(png("red")), name="a.png", folder=""))
    assert await asyncio.to_thread(reading.wait, 20)
    await cancelled(first)
    second = asyncio.create_task(uploads.store(io.BytesIO(png()), name="b.png", folder=""))
    await asyncio.wait([second], timeout=0.3)
    assert not second.done()
    go_on.set()
    assert (await asyncio.wait_for(second, 30)).image_id == "b.png"
    sandbox.close()


@pytest.mark.slow
async def test_bytes_of_a_cancelled_read_count_until_it_ends(
    small_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture of a bucket is read by a thread, which cannot be stopped."""
    data = png()
    reading, go_on = threading.Event(), threading.Event()

    def slowly(event: ImageAdded, *, max_bytes: int) -> bytes:
        reading.set()
        go_on.wait(60)
        return data

    monkeypatch.setattr(decoding, "read", slowly)
    event = ImageAdded(
        image_id="a.png",
        uri="memory://bucket/a.png",
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        media_type="image/png",
        modified_at=now(),
        added_at=now(),
    )
    with ThreadPoolExecutor(4) as pool:
        decoder = Decoder(small_spec, IndexingSettings(decode_memory_bytes=2 * len(data)), pool)
        first = asyncio.create_task(decoder.decode(event))
        assert await asyncio.to_thread(reading.wait, 20)
        await cancelled(first)
        reading.clear()
        second = asyncio.create_task(decoder.decode(event))
        await asyncio.wait([second], timeout=0.3)
        assert not reading.is_set()
        go_on.set()
        assert (await asyncio.wait_for(second, 30)).image.width == 30
        decoder.close()


@pytest.mark.slow
async def test_a_task_cancelled_before_it_began_ends_no_worker(tmp_path: Path) -> None:
    sandbox = Sandbox(1, memory_bytes=10**8, seconds=ENDLESS)
    kept = await sandbox.run(f"{hostile_tasks.MODULE}:process_id")
    busy = asyncio.create_task(
        sandbox.run(f"{hostile_tasks.MODULE}:process_id_after", 0.3, tmp_path / "a")
    )
    await exists(tmp_path / "a.begun")
    waiting = [
        asyncio.create_task(sandbox.run(f"{hostile_tasks.MODULE}:echo", n)) for n in range(20)
    ]
    await asyncio.sleep(0)
    await cancelled(*waiting)
    assert await busy == kept == await sandbox.run(f"{hostile_tasks.MODULE}:process_id")
    assert kept != os.getpid()
    sandbox.close()
