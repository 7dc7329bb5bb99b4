"""The memory of the recent vectors is bounded."""

from consumers.indexing.inference import RECENT_VECTORS
from gateway.search.text_cache import TextCache
from tests.unit.consumers.test_indexing import Bench, bench

__all__ = ["bench"]

FLOAT32 = 4


async def test_vectors_of_recent_images_take_four_bytes_a_number(bench: Bench) -> None:
    data = bench.put_image("a.png")
    await bench.run(bench.added("a.png", data))
    inference = bench.indexer._preparer._inference
    (known,) = inference._recent.values()
    assert memoryview(known.vector).itemsize == FLOAT32  # type: ignore[arg-type]
    stored = bench.index.records[bench.collection.name]["a.png"]
    recent = inference.recent(stored.sha256)
    assert recent is not None
    assert recent.vector == stored.vector
    assert RECENT_VECTORS * 768 * FLOAT32 < 16 << 20


async def test_vectors_of_recent_texts_take_four_bytes_a_number() -> None:
    cache = TextCache(3)

    async def embedded() -> list[float]:
        return [0.5, 0.25, -1.0]

    first = await cache.get("model", "a text", embedded)
    (kept,) = cache._models["model"].values()
    assert memoryview(kept).itemsize == FLOAT32
    assert await cache.get("model", "a text", embedded) == first == [0.5, 0.25, -1.0]
