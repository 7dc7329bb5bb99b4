"""The whole system, as a user starts it, on pictures of its own."""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import pytest
from aiokafka import AIOKafkaConsumer

from stack.record import ProcessRow, Record, RecordFile
from tests.conftest import ROOT, Servers, run_image_search, servers_of, stack_environment
from tests.support.object_store import ObjectStore, running_object_store

T = TypeVar("T")
SAMPLES = ROOT / "images"


BUCKET = "album"


@dataclass(frozen=True)
class System:
    """A running system: its folder of pictures, its bucket (source `cloud`), its processes."""

    servers: Servers
    images: Path
    state: Path
    store: ObjectStore | None = None

    @property
    def gateway(self) -> str:
        return f"http://127.0.0.1:{self.servers.environment['GATEWAY_PORT']}"

    def record(self) -> Record:
        record = RecordFile(self.state / "run").read()
        assert record is not None
        return record

    def process(self, name: str) -> ProcessRow:
        (row,) = [row for row in self.record().processes if row.name == name]
        return row

    def kill(self, name: str) -> int:
        """SIGKILL a process; returns the id it had."""
        row = self.process(name)
        assert row.pid is not None
        psutil.Process(row.pid).kill()
        return row.pid

    async def read_topic(self, topic: str, seconds: float = 5.0) -> list[Any]:
        """Every record of a topic, with a plain client, until it has been quiet for a moment."""
        consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=self.servers.kafka, auto_offset_reset="earliest"
        )
        await consumer.start()
        found: list[Any] = []
        try:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                batch = await consumer.getmany(timeout_ms=500)
                if not batch and found:
                    break
                found += [record for records in batch.values() for record in records]
        finally:
            await consumer.stop()
        return found


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    images = tmp_path_factory.mktemp("images")
    state = tmp_path_factory.mktemp("system")
    shutil.copytree(SAMPLES, images, dirs_exist_ok=True)
    with running_object_store(tmp_path_factory.mktemp("store") / "store.log") as store:
        store.client().create_bucket(Bucket=BUCKET)
        environment = {
            **stack_environment(state, images),
            **store.environment,
            "IMAGES_SOURCES": f"cloud=s3://{BUCKET}",
            "LIST_SECONDS": "1",
        }
        run_image_search(environment, "up", "--detach")
        try:
            yield System(servers_of(environment), images, state, store)
        finally:
            keep = os.environ.get("KEEP_LOGS")
            if keep:
                shutil.copytree(state / "logs", keep, dirs_exist_ok=True)
            run_image_search(environment, "down")


@pytest.fixture
async def client(system: System) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=system.gateway, timeout=30, trust_env=False) as client:
        yield client


async def eventually(check: Callable[[], Awaitable[T]], *, seconds: float, every: float = 0.1) -> T:
    """The first true answer of `check`; what it raised or answered last if there is none.

    Errors of the connection count as no: the gateway may be restarting.
    """
    deadline = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < deadline:
        try:
            answer = await check()
            if answer:
                return answer
            last = answer
        except (httpx.HTTPError, AssertionError, KeyError) as error:
            last = error
        await asyncio.sleep(every)
    raise AssertionError(f"not within {seconds} s; last seen: {last!r}")


async def search(client: httpx.AsyncClient, text: str, limit: int = 1000) -> dict[str, Any]:
    """A search that must be answered."""
    response = await client.post("/api/v1/search-image", json={"text": text, "limit": limit})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def names(client: httpx.AsyncClient, text: str, limit: int = 1000) -> list[str]:
    """The pictures a search finds, best first."""
    return [match["image_name"] for match in (await search(client, text, limit))["matches"]]
