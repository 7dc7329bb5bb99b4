"""Objects of buckets pass through the gateway in small pieces, without read-ahead."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import httpx
import pytest
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from adapters.embedder.spec import ModelSpec
from gateway.images import transfers
from tests.support.gateway_on_fakes import Gateway, assert_problem, gateway, png

CONTENT = png() + bytes(5_000_000)


class Store:
    """Which ranges are read of it, and a way to hold it up."""

    def __init__(self) -> None:
        self.ranges: list[int] = []
        self.closed = threading.Semaphore(0)
        self.free = threading.Event()
        self.free.set()
        self.hold_after = 0
        self.in_flight = 0
        self.most = 0
        self._lock = threading.Lock()

    def fetched(self, start: int, end: int) -> bytes:
        with self._lock:
            self.ranges.append(end - start)
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
        if start >= self.hold_after:
            self.free.wait(20)
        with self._lock:
            self.in_flight -= 1
        return CONTENT[start:end]


class RangedFile(AbstractBufferedFile):  # type: ignore[misc]
    """A file as the clients of object stores have it, with the read-ahead of fsspec."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return self.fs.store.fetched(start, end)  # type: ignore[no-any-return]

    def close(self) -> None:
        if not self.closed:
            self.fs.store.closed.release()
        super().close()


class RangedFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """Holds one content under every name. There is an instance for each thread."""

    protocol = "ranged"
    store: ClassVar[Store]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("ranged://")

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "type": "file", "size": len(CONTENT), "ETag": "one"}

    def _open(self, path: str, mode: str = "rb", **options: Any) -> RangedFile:
        chosen = {name: options[name] for name in ("block_size", "cache_type") if name in options}
        return RangedFile(self, path, mode, **chosen)


@pytest.fixture
def store() -> Iterator[Store]:
    fsspec.register_implementation("ranged", RangedFileSystem, clobber=True)
    RangedFileSystem.store = Store()
    yield RangedFileSystem.store
    RangedFileSystem.store.free.set()


@pytest.fixture
async def bench(tmp_path: Path, small_spec: ModelSpec, store: Store) -> AsyncIterator[Gateway]:
    async with gateway(
        tmp_path, small_spec, images_sources="cloud=ranged://bucket", request_timeout=1.0
    ) as found:
        await found.holds(*(f"cloud/{number}.png" for number in range(20)))
        yield found


@pytest.mark.slow
async def test_no_more_than_a_piece_of_an_object_is_fetched_at_a_time(
    bench: Gateway, store: Store
) -> None:
    answer = await bench.client.get("/images/cloud/0.png")
    assert answer.content == CONTENT
    assert answer.headers["content-length"] == str(len(CONTENT))
    assert max(store.ranges) <= transfers.PIECE_BYTES
    assert await asyncio.to_thread(store.closed.acquire, timeout=10)


async def test_an_object_is_closed_when_its_client_goes_away(bench: Gateway, store: Store) -> None:
    store.hold_after = 1_000_000
    store.free.clear()
    requested = asyncio.create_task(bench.client.get("/images/cloud/0.png"))
    while not store.in_flight:
        await asyncio.sleep(0.01)
    requested.cancel()
    await asyncio.gather(requested, return_exceptions=True)
    store.free.set()
    assert await asyncio.to_thread(store.closed.acquire, timeout=10)


@pytest.mark.slow
async def test_a_bucket_that_hangs_takes_no_thread_from_others(
    bench: Gateway, store: Store
) -> None:
    store.free.clear()
    several = [bench.client.get(f"/images/cloud/{number}.png") for number in range(20)]
    for answer in await asyncio.gather(*several):
        assert_problem(answer, 503)
    assert store.most <= transfers.THREADS
    async with asyncio.timeout(5):
        # The threads that every other part of the gateway uses are free.
        await asyncio.gather(*(asyncio.to_thread(int) for _ in range(50)))


@pytest.mark.slow
async def test_the_number_of_simultaneous_transfers_is_limited(
    tmp_path: Path, small_spec: ModelSpec, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "MAX_TRANSFERS", 2)
    names = [f"cloud/{number}.png" for number in range(20)]
    async with gateway(tmp_path, small_spec, images_sources="cloud=ranged://bucket") as bench:
        await bench.holds(*names)
        several = [bench.client.get(f"/images/{name}") for name in names]
        answers: list[httpx.Response] = await asyncio.gather(*several)
    assert {answer.status_code for answer in answers} == {200}
    assert store.most <= 2
