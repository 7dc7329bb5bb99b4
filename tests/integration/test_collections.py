"""On the real server: no collection comes to be, or stays, without saying which model fills it."""

import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import pytest

from adapters.embedder.spec import ModelSpec
from adapters.errors import Unavailable
from adapters.index.port import Collection, ImageRecord
from adapters.index.weaviate import WeaviateIndex
from adapters.naming import collection_name
from tests.conftest import Servers

NOW = datetime(2026, 1, 5, tzinfo=UTC)
RECORD = ImageRecord(
    image_id="a",
    uri="file:///a",
    sha256="a" * 64,
    media_type="image/png",
    size_bytes=9,
    width=3,
    height=3,
    modified_at=NOW,
    added_at=NOW,
    vector=[1.0] + [0.0] * 7,
)


@pytest.fixture
async def index(servers: Servers) -> AsyncIterator[WeaviateIndex]:
    index = WeaviateIndex(servers.weaviate_url, grpc_port=servers.weaviate_grpc_port)
    await index.connect()
    yield index
    await index.close()


@pytest.mark.parametrize("count", [1, 3])
async def test_a_write_to_a_vanished_collection_rejects_no_image(
    index: WeaviateIndex, count: int
) -> None:
    """It vanished after the writer looked: a refusal would be a dead letter for each picture."""
    gone = Collection("Images_vanished_0124", "vanished", "0124", 8)
    index._collections[gone.name] = (time.monotonic(), gone)
    records = [replace(RECORD, image_id=str(number)) for number in range(count)]
    with pytest.raises(Unavailable):
        await index.upsert(gone, records)
    assert await index.find(gone.name) is None


@pytest.mark.parametrize("description", [None, "not ours", "[]", '{"model_name": "small"}'])
async def test_a_collection_created_by_a_write_is_recreated(
    index: WeaviateIndex, servers: Servers, small_spec: ModelSpec, description: str | None
) -> None:
    """As it is on a server of somebody else's that makes collections by itself."""
    spec = small_spec.model_copy(update={"version": uuid.uuid4().hex[:12]})
    body = {"class": collection_name(spec), "description": description, "vectorizer": "none"}
    async with httpx.AsyncClient(base_url=servers.weaviate_url, trust_env=False) as client:
        assert (await client.post("/v1/schema", json=body)).status_code == 200
    made = await index.ensure_collection(spec)
    assert (made.model_name, made.dimension) == (spec.name, spec.dimension)
    assert made.incarnation
    assert await index.ensure_collection(spec) == made
    assert await index.upsert(made, [RECORD]) == {}


async def test_a_write_to_a_missing_collection_is_refused_and_makes_none(servers: Servers) -> None:
    async with httpx.AsyncClient(base_url=servers.weaviate_url, trust_env=False) as client:
        body = {"class": "Images_vanished_0123", "properties": {"image_id": "a"}, "vector": [1.0]}
        answer = await client.post("/v1/objects", json=body)
        assert answer.status_code >= 400, answer.text
        batch = await client.post("/v1/batch/objects", json={"objects": [body]})
        assert "errors" in batch.text
        names = [each["class"] for each in (await client.get("/v1/schema")).json()["classes"]]
        assert "Images_vanished_0123" not in names
