"""Worker starts and uploads do not wait for the event loop's default threads."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest

from gateway.images.uploads import Uploads
from imaging.decoders import Decoders
from imaging.sandbox.pool import Sandbox
from tests.support import hostile_tasks
from tests.support.gateway_on_fakes import png

SECONDS = 20


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    made = Sandbox(2, memory_bytes=10**8, seconds=60)
    yield made
    made.close()


@pytest.fixture
async def taken() -> AsyncIterator[None]:
    """The only thread of the loop is taken for as long as the test runs."""
    go_on = threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    busy = loop.run_in_executor(None, go_on.wait)
    yield
    go_on.set()
    await busy


async def test_a_worker_starts_while_all_threads_of_the_loop_are_busy(
    taken: None, sandbox: Sandbox
) -> None:
    async with asyncio.timeout(SECONDS):
        assert await sandbox.run(f"{hostile_tasks.MODULE}:echo", 1) == 1


async def test_uploads_are_stored_while_all_threads_of_the_loop_are_busy(
    taken: None, sandbox: Sandbox, tmp_path: Path
) -> None:
    uploads = Uploads(tmp_path, Decoders(sandbox, max_pixels=10**7), max_bytes=10**6, workers=2)
    async with asyncio.timeout(SECONDS):
        stored = await asyncio.gather(
            *(uploads.store(io.BytesIO(png()), name=f"{n}.png", folder="") for n in range(4))
        )
    assert [each.image_id for each in stored] == [f"{n}.png" for n in range(4)]
    await uploads.close()


async def test_uploads_leave_the_threads_of_the_loop_to_others(
    tmp_path: Path,
) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    decoders = mock.AsyncMock(Decoders)
    decoders.media_type.return_value = "image/png"
    uploads = Uploads(tmp_path, decoders, max_bytes=10**6, workers=1)
    reading, go_on = threading.Event(), threading.Event()

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            reading.set()
            go_on.wait(60)
            return super().read(size)

    storing = asyncio.create_task(uploads.store(Slow(png()), name="a.png", folder=""))
    try:
        async with asyncio.timeout(SECONDS):
            while not reading.is_set():
                await asyncio.sleep(0.01)
            await asyncio.to_thread(int)
    finally:
        go_on.set()
        await storing
    await uploads.close()


async def test_close_waits_for_uploads_in_progress(sandbox: Sandbox, tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, Decoders(sandbox, max_pixels=10**7), max_bytes=10**6, workers=1)
    storing = asyncio.create_task(uploads.store(io.BytesIO(png()), name="a.png", folder=""))
    await asyncio.sleep(0)
    await uploads.close()
    assert (tmp_path / "a.png").exists()
    assert (await storing).image_id == "a.png"
