"""What every `ImageIndex` promises: the twin in memory and Weaviate alike."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from adapters.errors import Rejected
from adapters.memory import MemoryIndex
from adapters.model_spec import ModelSpec
from adapters.ports import Collection, ImageIndex, ImageRecord
from adapters.weaviate_index import WeaviateIndex

WHEN = datetime(2026, 1, 5, 9, 58, 21, 123000, tzinfo=UTC)


@pytest.fixture(params=["memory", "weaviate"])
async def index(request: pytest.FixtureRequest) -> AsyncIterator[ImageIndex]:
    if request.param == "memory":
        yield MemoryIndex()
        return
    servers = request.getfixturevalue("servers")
    real = WeaviateIndex(servers.weaviate_url, grpc_port=servers.weaviate_grpc_port)
    await real.connect()
    before = await real.active()
    yield real
    if before is not None:
        # The servers are shared: other suites search through the alias.
        await real.activate(before)
    await real.close()


@pytest.fixture
async def collection(index: ImageIndex, small_spec: ModelSpec) -> Collection:
    unused = small_spec.model_copy(update={"version": uuid.uuid4().hex[:12]})
    return await index.ensure_collection(unused)


def unit(*numbers: float) -> list[float]:
    vector = np.zeros(8)
    vector[: len(numbers)] = numbers
    return [float(number) for number in vector / np.linalg.norm(vector)]


def record(image_id: str, vector: list[float], sha256: str = "a" * 64) -> ImageRecord:
    return ImageRecord(
        image_id=image_id,
        uri=f"file:///images/{image_id}",
        sha256=sha256,
        media_type="image/jpeg",
        size_bytes=3_000_000_000,
        width=640,
        height=480,
        modified_at=WHEN,
        added_at=WHEN,
        vector=vector,
    )


async def ids(index: ImageIndex, collection: Collection) -> set[str]:
    return {image_id async for image_id, _ in index.stored(collection)}


async def test_a_collection_knows_its_model(index: ImageIndex, small_spec: ModelSpec) -> None:
    spec = small_spec.model_copy(
        update={"name": "ViT-B-32__openai", "version": uuid.uuid4().hex[:12]}
    )
    first = await index.ensure_collection(spec)
    assert await index.ensure_collection(spec) == first
    assert (first.model_name, first.model_version) == (spec.name, spec.version)
    await index.activate(first)
    assert await index.active() == first


async def test_many_may_ensure_the_same_collection(
    index: ImageIndex, small_spec: ModelSpec
) -> None:
    spec = small_spec.model_copy(update={"version": uuid.uuid4().hex[:12]})
    found = await asyncio.gather(*(index.ensure_collection(spec) for _ in range(8)))
    assert len(set(found)) == 1


async def test_activation_moves(index: ImageIndex, small_spec: ModelSpec) -> None:
    old, new = [
        await index.ensure_collection(
            small_spec.model_copy(update={"version": uuid.uuid4().hex[:12]})
        )
        for _ in range(2)
    ]
    await index.activate(old)
    await index.activate(new)
    assert await index.active() == new
    await index.activate(old)
    assert await index.active() == old


async def test_a_collection_that_is_not_there_cannot_be_activated(index: ImageIndex) -> None:
    with pytest.raises(Rejected, match="Images_none_00000000"):
        await index.activate(Collection("Images_none_00000000", "none", "00000000", 8))


async def test_search_orders_by_cosine(index: ImageIndex, collection: Collection) -> None:
    refused = await index.upsert(
        collection,
        [
            record("far.jpg", unit(0, 1)),
            record("near.jpg", unit(1, 0.1)),
            record("behind.jpg", unit(-1)),
            record("same.jpg", unit(1)),
        ],
    )
    assert refused == {}
    matches = await index.search(collection, unit(1), limit=10)
    assert [match.image_id for match in matches] == [
        "same.jpg",
        "near.jpg",
        "far.jpg",
        "behind.jpg",
    ]
    expected = [1.0, float(np.dot(unit(1, 0.1), unit(1))), 0.0, -1.0]
    assert [match.score for match in matches] == pytest.approx(expected, abs=1e-5)
    assert (matches[0].width, matches[0].height) == (640, 480)
    assert len(await index.search(collection, unit(1), limit=2)) == 2


async def test_search_in_an_empty_collection(index: ImageIndex, collection: Collection) -> None:
    assert list(await index.search(collection, unit(1), limit=5)) == []


async def test_a_vector_of_another_dimension_is_refused(
    index: ImageIndex, collection: Collection
) -> None:
    with pytest.raises(Rejected, match="3 numbers"):
        await index.search(collection, [1.0, 0.0, 0.0], limit=1)
    refused = await index.upsert(
        collection, [record("good.jpg", unit(1)), record("bad.jpg", [1.0, 0.0, 0.0])]
    )
    assert list(refused) == ["bad.jpg"]
    assert "3 numbers" in refused["bad.jpg"]
    assert await ids(index, collection) == {"good.jpg"}


async def test_an_upsert_replaces(index: ImageIndex, collection: Collection) -> None:
    await index.upsert(collection, [record("a.jpg", unit(1), sha256="a" * 64)])
    await index.upsert(collection, [record("a.jpg", unit(0, 1), sha256="b" * 64)])
    assert [pair async for pair in index.stored(collection)] == [("a.jpg", "b" * 64)]
    assert await index.count(collection) == 1
    (match,) = await index.search(collection, unit(0, 1), limit=5)
    assert match.score == pytest.approx(1.0, abs=1e-5)


async def test_deletion_is_idempotent(index: ImageIndex, collection: Collection) -> None:
    await index.upsert(collection, [record("a.jpg", unit(1)), record("b.jpg", unit(0, 1))])
    await index.delete(collection, ["a.jpg", "never.jpg"])
    await index.delete(collection, ["a.jpg"])
    await index.delete(collection, [])
    assert await ids(index, collection) == {"b.jpg"}


async def test_names_that_differ_little_are_different(
    index: ImageIndex, collection: Collection
) -> None:
    names = [
        "a.jpg",
        "A.jpg",
        "a.jpg ",
        "d/a.jpg",
        "a\nb.jpg",
        "京都 'x' \"y\".jpg",
        "é.jpg",
        "é.jpg",
    ]
    await index.upsert(collection, [record(name, unit(1, n)) for n, name in enumerate(names)])
    assert await ids(index, collection) == set(names)
    await index.delete(collection, ["A.jpg"])
    assert await ids(index, collection) == set(names) - {"A.jpg"}


async def test_vectors_are_known_by_content(index: ImageIndex, collection: Collection) -> None:
    tagged = replace(
        record("a.jpg", unit(1, 2, 3), sha256="1" * 64),
        taken_at=WHEN,
        camera="Ricoh GR",
        latitude=48.2,
        longitude=-16.3,
    )
    await index.upsert(collection, [tagged, record("b.jpg", unit(0, 1), sha256="2" * 64)])
    known = await index.known_vectors(collection, ["1" * 64, "2" * 64, "3" * 64])
    assert set(known) == {"1" * 64, "2" * 64}
    found = known["1" * 64]
    assert list(found.vector) == pytest.approx(unit(1, 2, 3), abs=1e-6)
    assert (found.width, found.height, found.taken_at) == (640, 480, WHEN)
    assert (found.camera, found.latitude, found.longitude) == ("Ricoh GR", 48.2, -16.3)
    assert known["2" * 64].taken_at is None
    assert await index.known_vectors(collection, []) == {}


async def test_vectors_are_read_back_by_name(index: ImageIndex, collection: Collection) -> None:
    await index.upsert(collection, [record("a.jpg", unit(1, 2)), record("b/c.jpg", unit(0, 1))])
    found = await index.vectors(collection, ["b/c.jpg", "never.jpg", "a.jpg"])
    assert set(found) == {"a.jpg", "b/c.jpg"}
    assert list(found["a.jpg"]) == pytest.approx(unit(1, 2), abs=1e-6)
    assert await index.vectors(collection, ["never.jpg"]) == {}


async def test_more_than_a_page_is_listed_and_deleted(
    index: ImageIndex, collection: Collection
) -> None:
    names = [f"{number:04}.jpg" for number in range(2105)]
    generator = np.random.default_rng(1)
    records = [record(name, unit(*generator.normal(size=8))) for name in names]
    for start in range(0, len(records), 500):
        assert await index.upsert(collection, records[start : start + 500]) == {}
    assert await ids(index, collection) == set(names)
    assert await index.count(collection) == len(names)
    await index.delete(collection, names[1:])
    assert await ids(index, collection) == {names[0]}


async def test_it_is_ready(index: ImageIndex) -> None:
    assert await index.is_ready()
