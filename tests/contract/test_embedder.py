"""What every `Embedder` promises: the fake (in-memory) one and Triton alike."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from adapters.embedder.arrays import Pixels
from adapters.embedder.fake import FakeEmbedder
from adapters.embedder.port import Embedder
from adapters.embedder.spec import ModelSpec
from adapters.embedder.triton import TritonEmbedder
from adapters.errors import Rejected, Unavailable

MODEL = "lite"


@pytest.fixture(params=["memory", "triton"])
async def embedder(
    request: pytest.FixtureRequest, small_spec: ModelSpec
) -> AsyncIterator[Embedder]:
    if request.param == "memory":
        yield FakeEmbedder(served={MODEL: small_spec.model_copy(update={"name": MODEL})})
        return
    servers = request.getfixturevalue("servers")
    real = TritonEmbedder(servers.triton_url, timeout=20)
    yield real
    await real.close()


def pixels(spec: ModelSpec, count: int) -> Pixels:
    generator = np.random.default_rng(7)
    return generator.integers(0, 256, (count, spec.height, spec.width, 3), dtype=np.uint8)


async def test_vectors_have_the_models_dimension_and_unit_length(embedder: Embedder) -> None:
    spec = await embedder.spec(MODEL)
    assert spec.name == MODEL
    for vectors in (
        await embedder.embed_images(MODEL, pixels(spec, 3)),
        await embedder.embed_texts(MODEL, ["tennis", "a photo of a dog", "été 京都"]),
    ):
        assert vectors.shape == (3, spec.dimension)
        assert vectors.dtype == np.float32
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-4)


async def test_a_row_does_not_depend_on_its_batch(embedder: Embedder) -> None:
    spec = await embedder.spec(MODEL)
    batch = pixels(spec, 4)
    together = await embedder.embed_images(MODEL, batch)
    alone = np.concatenate([await embedder.embed_images(MODEL, batch[n : n + 1]) for n in range(4)])
    assert np.sum(together * alone, axis=1) == pytest.approx(1.0, abs=1e-3)


async def test_calls_at_once_keep_their_answers(embedder: Embedder) -> None:
    texts = [f"text number {number}" for number in range(24)]
    one_by_one = [await embedder.embed_texts(MODEL, [text]) for text in texts]
    at_once = await asyncio.gather(*(embedder.embed_texts(MODEL, [text]) for text in texts))
    for expected, found in zip(one_by_one, at_once, strict=True):
        assert float(np.sum(expected * found)) == pytest.approx(1.0, abs=1e-3)


async def test_pixels_of_another_size_are_rejected(embedder: Embedder) -> None:
    with pytest.raises(Rejected):
        await embedder.embed_images(MODEL, np.zeros((1, 7, 9, 3), np.uint8))


async def test_a_model_that_is_not_served_is_unavailable(embedder: Embedder) -> None:
    with pytest.raises(Unavailable):
        await embedder.spec("no-such-model")
    with pytest.raises(Unavailable):
        await embedder.embed_texts("no-such-model", ["x"])
    assert not await embedder.is_ready("no-such-model")
    assert await embedder.is_ready(MODEL)
