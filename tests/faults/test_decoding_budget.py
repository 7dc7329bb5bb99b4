"""All decoding of a gateway shares one memory budget and one limit on workers."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from adapters.embedder.spec import ModelSpec
from imaging.sandbox.pool import Sandbox
from tests.support import hostile_tasks
from tests.support.gateway_on_fakes import assert_problem, gateway, image_record, png, unit

MEGA = 1_000_000


def large() -> bytes:
    """A picture of few bytes that takes 48 MB to decode."""
    buffer = io.BytesIO()
    Image.new("RGB", (4000, 3000), "green").save(buffer, "PNG")
    return buffer.getvalue()


def own_memory() -> int:
    """Memory, in bytes, that this process holds and that its children have for themselves."""
    process = psutil.Process()
    held = process.memory_info().rss
    for child in process.children(recursive=True):
        try:
            held += child.memory_full_info().uss
        except psutil.Error:
            continue
    return int(held)


class Peak:
    """The most memory, in bytes, that was added to what was held at the beginning."""

    def __init__(self) -> None:
        self._base = own_memory()
        self.bytes = 0

    def look(self) -> None:
        self.bytes = max(self.bytes, own_memory() - self._base)


@asynccontextmanager
async def measured() -> AsyncIterator[Peak]:
    peak = Peak()

    async def watch() -> None:
        while True:
            peak.look()
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    try:
        yield peak
    finally:
        watching.cancel()
        await asyncio.wait([watching])


@pytest.mark.slow
async def test_sixteen_large_terms_beside_thumbnails_stay_within_the_memory_budget(
    tmp_path: Path, small_spec: ModelSpec
) -> None:
    data = large()
    names = [f"{n}.png" for n in range(4)]
    settings = {
        "picture_workers": 4,
        "decode_memory_bytes": 40 * MEGA,
        "request_timeout": 120.0,
        "thumbnails_dir": tmp_path / "thumbnails",
    }
    async with gateway(tmp_path, small_spec, [image_record("a.jpg", unit(1))], **settings) as bench:
        for name in names:
            (bench.images / name).write_bytes(data)
        await bench.holds(*names)
        # All workers are there, so that what is measured is what they take to decode.
        small = {"image": base64.b64encode(png()).decode()}
        await bench.search(terms=[small] * 8)
        terms = [{"image": base64.b64encode(data).decode()}] * 16
        async with measured() as peak:
            answers = await asyncio.gather(
                bench.search(terms=terms),
                *(bench.client.get(f"/thumbnails/{name}") for name in names),
            )
    assert [answer.status_code for answer in answers] == [200] * 5
    # One is decoded at a time, for it exceeds the budget by itself: one in each worker would
    # be 192 MB, all 20 at once 960.
    assert peak.bytes < 150 * MEGA


@pytest.mark.slow
async def test_an_image_over_the_whole_budget_is_decoded_alone(
    tmp_path: Path, small_spec: ModelSpec
) -> None:
    settings = {"decode_memory_bytes": 1, "request_timeout": 120.0}
    async with gateway(tmp_path, small_spec, [image_record("a.jpg", unit(1))], **settings) as bench:
        image = base64.b64encode(large()).decode()
        answers = await asyncio.gather(*(bench.search(image=image) for _ in range(3)))
        assert [answer.status_code for answer in answers] == [200] * 3


async def test_small_images_are_decoded_beside_one_that_takes_the_whole_budget(
    tmp_path: Path,
) -> None:
    sandbox = Sandbox(2, memory_bytes=20 * MEGA, seconds=600)
    mark = tmp_path / "mark"
    task = f"{hostile_tasks.MODULE}:process_id_after"
    giant = asyncio.create_task(sandbox.run(task, 600.0, mark, memory=100 * MEGA))
    async with asyncio.timeout(20):
        while not Path(f"{mark}.begun").exists():
            await asyncio.sleep(0.02)
    another = asyncio.create_task(sandbox.run(task, 0.0, tmp_path / "b", memory=90 * MEGA))
    await asyncio.sleep(0)
    await sandbox.run(f"{hostile_tasks.MODULE}:echo", 1)
    assert not another.done()
    giant.cancel()
    await another
    sandbox.close()


@pytest.mark.slow
async def test_a_search_that_waits_too_long_for_a_worker_gets_retry_after(
    tmp_path: Path, small_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imaging.decoders.TASKS", hostile_tasks.MODULE)
    settings = {"picture_workers": 1, "decode_seconds": 2.0, "request_timeout": 8.0}
    async with gateway(tmp_path, small_spec, [image_record("a.jpg", unit(1))], **settings) as bench:
        good = base64.b64encode(png()).decode()
        assert (await bench.search(image=good)).status_code == 200
        bad = base64.b64encode(hostile_tasks.LOOP).decode()
        answers: list[httpx.Response] = await asyncio.gather(
            *(bench.search(image=bad) for _ in range(8))
        )
        assert {answer.status_code for answer in answers} == {422, 503}
        for answer in answers:
            if answer.status_code == 503:
                assert_problem(answer, 503)
                assert int(answer.headers["Retry-After"]) > 0
        # The refused searches are not worked on any more.
        assert (await bench.search(image=good)).status_code == 200


@pytest.mark.slow
async def test_one_bad_term_cancels_the_decoding_of_the_others(
    tmp_path: Path, small_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imaging.decoders.TASKS", hostile_tasks.MODULE)
    settings = {"picture_workers": 2, "decode_seconds": 500.0, "request_timeout": 1000.0}
    async with gateway(tmp_path, small_spec, [image_record("a.jpg", unit(1))], **settings) as bench:
        terms = [
            {"image": base64.b64encode(data).decode()}
            for data in (hostile_tasks.SLOW + b" 400", b"no picture")
        ]
        assert_problem(await bench.search(terms=terms), 422, "terms.1")
        good = {"image": base64.b64encode(png()).decode()}
        assert (await bench.search(terms=[good] * 4)).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
async def test_there_are_never_more_workers_than_configured(tmp_path: Path, count: int) -> None:
    sandbox = Sandbox(count, memory_bytes=100 * MEGA, seconds=60)
    most = 0

    async def work(number: int) -> None:
        nonlocal most
        task = f"{hostile_tasks.MODULE}:process_id_after"
        try:
            async with asyncio.timeout(0.01 * (number % 7) or None):
                await sandbox.run(task, 0.02, tmp_path / str(number))
        except TimeoutError:
            pass
        most = max(most, len(psutil.Process().children(recursive=True)))

    # What it takes to start workers, besides them.
    await sandbox.run(f"{hostile_tasks.MODULE}:echo", 1)
    others = len(psutil.Process().children(recursive=True)) - 1
    await asyncio.gather(*(work(number) for number in range(40)))
    assert most - others <= count
    sandbox.close()
