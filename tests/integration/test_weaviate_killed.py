"""What was written before or during a `kill -9` of Weaviate is found by searches after it."""

import asyncio
import hashlib
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
import pytest

from adapters.embedder.spec import ModelSpec
from adapters.errors import Unavailable
from adapters.index.port import Collection, ImageRecord
from adapters.index.weaviate import WeaviateIndex
from stack.record import RecordFile
from tests.conftest import Servers, running_servers
from tests.support.indexing_processes import TcpProxy

BATCH = 20
KILLS = 3


@pytest.fixture(scope="module")
def own_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers that nobody else's test minds to have killed."""
    with running_servers(tmp_path_factory) as running:
        yield running


def kill_weaviate(servers: Servers) -> None:
    """SIGKILL; the launcher starts it again."""
    record = RecordFile(Path(servers.environment["STATE_DIR"]) / "run").read()
    assert record is not None
    (row,) = [row for row in record.processes if row.name == "weaviate"]
    assert row.pid is not None
    psutil.Process(row.pid).kill()


def some_records(label: str, dimension: int) -> list[ImageRecord]:
    made = []
    random_vectors = np.random.default_rng(len(label) + random.randrange(2**31))
    for number in range(BATCH):
        vector = random_vectors.normal(size=dimension)
        name = f"{label}/{number}.jpg"
        made.append(
            ImageRecord(
                image_id=name,
                uri=f"file:///nowhere/{name}",
                sha256=hashlib.sha256(name.encode()).hexdigest(),
                media_type="image/jpeg",
                size_bytes=1,
                width=1,
                height=1,
                modified_at=datetime(2026, 1, 5, tzinfo=UTC),
                added_at=datetime(2026, 1, 5, tzinfo=UTC),
                vector=(vector / np.linalg.norm(vector)).tolist(),
            )
        )
    return made


async def write(index: WeaviateIndex, collection: Collection, records: list[ImageRecord]) -> None:
    """Retry until the write is confirmed, as the indexer does."""
    async with asyncio.timeout(120):
        while True:
            try:
                assert not await index.upsert(collection, records)
                return
            except Unavailable:
                await asyncio.sleep(0.3)


async def not_found(
    index: WeaviateIndex, collection: Collection, records: list[ImageRecord]
) -> list[str]:
    """The pictures that a search for their own vectors does not have among its best."""
    missing = []
    async with asyncio.timeout(120):
        for record in records:
            while True:
                try:
                    matches = await index.search(collection, record.vector, 10)
                    break
                except Unavailable:
                    await asyncio.sleep(0.3)
            if record.image_id not in {match.image_id for match in matches}:
                missing.append(record.image_id)
    return missing


@pytest.mark.timeout(600)
@pytest.mark.parametrize("moment", ["after", "during"])
async def test_written_records_are_found_after_weaviate_is_killed(
    own_servers: Servers, small_spec: ModelSpec, moment: str
) -> None:
    index = WeaviateIndex(own_servers.weaviate_url, grpc_port=own_servers.weaviate_grpc_port)
    spec = small_spec.model_copy(update={"dimension": 64})
    collection = await index.ensure_collection(spec)
    written: list[ImageRecord] = []
    try:
        for kill in range(KILLS):
            for number in range(4):
                records = some_records(f"{moment}-{kill}-{number}", spec.dimension)
                await write(index, collection, records)
                written += records
            if moment == "after":
                kill_weaviate(own_servers)
            else:
                # Within the batches that follow; each takes some hundredths of a second.
                loop = asyncio.get_running_loop()
                loop.call_later(random.uniform(0.01, 0.08), kill_weaviate, own_servers)
                for number in range(4, 10):
                    records = some_records(f"{moment}-{kill}-{number}", spec.dimension)
                    await write(index, collection, records)
                    written += records
            await asyncio.sleep(1)
            assert not await not_found(index, collection, written)
    finally:
        await index.close()


async def test_a_batch_that_the_client_has_sent_twice_counts_as_failed(
    own_servers: Servers, small_spec: ModelSpec
) -> None:
    """Its second sending has the vectors of the first, which Weaviate may have stored alone."""
    proxy = TcpProxy(own_servers.weaviate_grpc_port)
    await proxy.mend()
    index = WeaviateIndex(own_servers.weaviate_url, grpc_port=proxy.port)
    spec = small_spec.model_copy(update={"dimension": 64})
    try:
        collection = await index.ensure_collection(spec)
        records = some_records("twice", spec.dimension)
        assert not await index.upsert(collection, records)
        await proxy.cut()
        writing = asyncio.create_task(index.upsert(collection, records))
        await asyncio.sleep(0.5)
        assert not writing.done()
        await proxy.mend()
        with pytest.raises(Unavailable, match="connection was lost meanwhile"):
            await writing
        assert not await index.upsert(collection, records)
    finally:
        await index.close()
        await proxy.cut()
