"""Batch sizes adapt to the time of a request; a busy Triton is not mistaken for a dead one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from adapters.embedder import triton as triton_clip
from adapters.embedder.arrays import Pixels, Vectors
from adapters.embedder.batch_size import BatchSize
from adapters.embedder.fake import FakeEmbedder
from adapters.embedder.spec import ModelSpec
from adapters.embedder.triton import TritonEmbedder
from adapters.errors import Rejected, TooSlow, Unavailable
from adapters.progress import Activity
from gateway.search.text_batches import TextBatches
from tests.unit.consumers.test_indexing import Bench, bench, some

__all__ = ["bench"]

# How the size is found


@given(most=st.integers(1, 64), fits=st.integers(1, 64), tries=st.integers(1, 300))
def test_the_batch_size_settles_below_the_deadline(most: int, fits: int, tries: int) -> None:
    """Each item takes as long as any other; `fits` of them take exactly the deadline."""
    size = BatchSize(most, deadline=1.0)
    too_slow: list[int] = []
    for _ in range(tries):
        seconds = size.items / fits
        if seconds > 1.0:
            too_slow.append(size.items)
            size.too_slow(size.items)
        else:
            size.took(size.items, seconds)
        assert 1 <= size.items <= most
    # Each time it was less, until it fitted; and it does not grow to what is too much again.
    assert too_slow == sorted(set(too_slow), reverse=True)


@given(fits=st.integers(1, 31), tries=st.integers(100, 2000))
def test_a_batch_size_that_failed_is_retried_ever_less_often(fits: int, tries: int) -> None:
    """A batch larger than `fits` always times out; a smaller one is quick."""
    size = BatchSize(32, deadline=1.0)
    failures = 0
    for _ in range(tries):
        if size.items > fits:
            failures += 1
            size.too_slow(size.items)
        else:
            size.took(size.items, 0.01)
    assert failures <= 16 + tries / 128


def test_the_batch_size_grows_again_when_batches_are_quick() -> None:
    size = BatchSize(32, deadline=1.0)
    size.too_slow(32)
    assert size.items == 16
    for _ in range(17):
        size.took(size.items, 0.1)
    assert size.items == 32
    size.took(32, 0.9)  # near the deadline
    assert size.items == 16


# The indexer


class Slow(FakeEmbedder):
    """Embeds at most `fits` images at once in time; larger batches time out."""

    fits = 3
    requested: list[int]

    async def embed_images(self, model_name: str, pixels: Pixels) -> Vectors:
        self.requested.append(len(pixels))
        if len(pixels) > self.fits:
            raise TooSlow("no answer in time, though it is alive")
        return await super().embed_images(model_name, pixels)


def slow(bench: Bench, fits: int) -> Slow:
    embedder = Slow(served=bench.embedder.served)
    embedder.fits, embedder.requested = fits, []
    bench.indexer._preparer._inference._embedder = embedder
    return embedder


async def test_a_batch_that_timed_out_is_never_sent_again_unchanged(bench: Bench) -> None:
    embedder = slow(bench, fits=1)
    await asyncio.wait_for(bench.run(*some(bench, 12)), 20)
    assert len(bench.ids) == 12
    assert await bench.dead_letters() == []
    too_much = [count for count in embedder.requested if count > 1]
    # 4 and 2, perhaps by each call in flight, and 2 again when one has been easy for long enough.
    assert len(too_much) <= 2 * bench.settings.embed_in_flight + 2
    assert too_much.count(4) <= bench.settings.embed_in_flight


async def test_embedded_images_are_not_sent_again(bench: Bench) -> None:
    embedder = slow(bench, fits=2)
    await asyncio.wait_for(bench.run(*some(bench, 8)), 20)
    assert sum(count for count in embedder.requested if count <= 2) == 8


async def test_images_of_a_refused_batch_are_tried_one_by_one(bench: Bench) -> None:
    class NotFinite(FakeEmbedder):
        async def embed_images(self, model_name: str, pixels: Pixels) -> Vectors:
            if (pixels == 255).all(axis=(1, 2, 3)).any():
                raise Rejected("the embedding has numbers that are not finite")
            return await super().embed_images(model_name, pixels)

    bench.indexer._preparer._inference._embedder = NotFinite(served=bench.embedder.served)
    white = bench.added("white.png", bench.put_image("white.png", "white"))
    await bench.run(white, *some(bench, 5))
    assert bench.ids == {f"p{n}.png" for n in range(5)}
    assert [letter.image_id for letter in await bench.dead_letters()] == ["white.png"]


# The gateway


async def test_texts_that_timed_out_together_are_sent_in_smaller_batches(
    small_spec: ModelSpec,
) -> None:
    requested: list[int] = []

    class SlowTexts(FakeEmbedder):
        async def embed_texts(self, model_name: str, texts: Sequence[str]) -> Vectors:
            requested.append(len(texts))
            await asyncio.sleep(0)
            if len(texts) > 3:
                raise TooSlow("no answer in time, though it is alive")
            return await super().embed_texts(model_name, texts)

    batches = TextBatches(SlowTexts(served={small_spec.name: small_spec}))

    async def embed(text: str) -> list[float]:
        while True:
            try:
                return await batches.embed(small_spec.name, text)
            except TooSlow:
                await asyncio.sleep(0)

    found = await asyncio.wait_for(asyncio.gather(*(embed(f"{n}") for n in range(60))), 20)
    assert len(found) == 60
    assert len([count for count in requested if count > 3]) <= 8


# Triton, seen from its client


@dataclass
class FakeTriton:
    """Answers as Triton does, each picture after some time, if at all."""

    seconds: float = 0.0
    live: bool = True
    requested: list[int] = field(default_factory=list)
    address: str = ""

    async def infer(self, request: web.Request) -> web.Response:
        header = int(request.headers["Inference-Header-Content-Length"])
        reported = json.loads((await request.read())[:header])
        rows = reported["inputs"][0]["shape"][0]
        self.requested.append(rows)
        await asyncio.sleep(self.seconds * rows)
        vectors = np.ones((rows, 8), np.float32)
        answer = json.dumps(
            {
                "model_name": "small_image",
                "model_version": "1",
                "outputs": [
                    {
                        "name": "EMBEDDING",
                        "datatype": "FP32",
                        "shape": [rows, 8],
                        "parameters": {"binary_data_size": vectors.nbytes},
                    }
                ],
            }
        ).encode()
        return web.Response(
            body=answer + vectors.tobytes(),
            headers={"Inference-Header-Content-Length": str(len(answer))},
        )

    async def is_live(self, _: web.Request) -> web.Response:
        if not self.live:
            await asyncio.sleep(1)
        return web.Response()


@asynccontextmanager
async def triton(seconds: float, *, live: bool = True) -> AsyncIterator[FakeTriton]:
    fake = FakeTriton(seconds, live)
    application = web.Application()
    application.router.add_post("/v2/models/{model}/infer", fake.infer)
    application.router.add_get("/v2/health/live", fake.is_live)
    runner = web.AppRunner(application, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.address = f"127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield fake
    finally:
        await runner.cleanup()


def images(count: int) -> Pixels:
    return np.zeros((count, 16, 16, 3), np.uint8)


@pytest.mark.slow
async def test_a_busy_triton_is_distinguished_from_a_dead_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(triton_clip, "LIVE_TIMEOUT_SECONDS", 0.1)
    async with triton(1.0) as busy, triton(1.0, live=False) as dead:
        for fake, kind in ((busy, TooSlow), (dead, Unavailable)):
            embedder = TritonEmbedder(fake.address, timeout=0.1)
            with pytest.raises(Unavailable) as caught:
                await embedder.embed_images("small", images(4))
            assert type(caught.value) is kind
            await embedder.close()


@pytest.mark.slow
async def test_a_single_slow_image_gets_more_time_until_it_succeeds() -> None:
    """It takes five times the deadline: the model is large and the machine small."""
    async with triton(0.5) as fake:
        embedder = TritonEmbedder(fake.address, timeout=0.1)
        tries = 0
        while True:
            tries += 1
            assert tries < 6
            try:
                vectors = await embedder.embed_images("small", images(1))
            except TooSlow:
                continue
            break
        assert vectors.shape == (1, 8)
        # What was learnt serves the next one, and is forgotten when it is quick again.
        await embedder.embed_images("small", images(1))
        fake.seconds = 0.0
        await embedder.embed_images("small", images(1))
        assert embedder._single == {}
        await embedder.close()


@pytest.mark.slow
async def test_the_watchdog_does_not_fire_while_triton_embeds_one_image() -> None:
    async with triton(0.6) as fake:
        embedder = TritonEmbedder(fake.address, timeout=0.1)
        embedder._single["small_image"] = 10.0
        activity = Activity("test", pending=lambda: 1, achieved=lambda: 0)
        with activity.here():
            work = asyncio.create_task(embedder.embed_images("small", images(1)))
        await asyncio.sleep(0.4)
        activity.update(100.0)
        assert activity.quiet == 0
        assert activity.outage is not None
        assert activity.outage.what == "Triton"
        await work
        await embedder.close()


@pytest.mark.slow
async def test_an_image_does_not_wait_for_a_triton_that_has_died(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(triton_clip, "LIVE_TIMEOUT_SECONDS", 0.1)
    async with triton(1.5) as fake:
        embedder = TritonEmbedder(fake.address, timeout=0.1)
        embedder._single["small_image"] = 1000.0
        work = asyncio.create_task(embedder.embed_images("small", images(1)))
        await asyncio.sleep(0.25)
        assert not work.done()
        fake.live = False
        with pytest.raises(Unavailable, match="nor to a health check"):
            await asyncio.wait_for(work, 10)
        await embedder.close()


@pytest.mark.slow
async def test_a_model_too_slow_for_its_batches_still_indexes_all_images(
    bench: Bench, small_spec: ModelSpec
) -> None:
    """Through the indexer: four at once take too long, and so does one at first."""
    async with triton(0.15) as fake:
        embedder = TritonEmbedder(fake.address, timeout=0.1)
        inference = bench.indexer._preparer._inference
        inference._embedder = embedder
        await asyncio.wait_for(bench.run(*some(bench, 6)), 30)
        assert len(bench.ids) == 6
        assert fake.requested.count(4) <= bench.settings.embed_in_flight
        await embedder.close()
    assert _falls(fake.requested[:3])


def _falls(counts: Sequence[int]) -> bool:
    return counts[-1] < counts[0]
