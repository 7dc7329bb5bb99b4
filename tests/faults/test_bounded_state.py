"""State that once grew with the number of requests is bounded."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pytest

from adapters.embedder.spec import ModelSpec
from adapters.index.port import Collection
from gateway.images import transfers
from gateway.search import image_lookup
from imaging.sources.storage import open_pieces
from tests.support.gateway_on_fakes import Gateway, assert_problem, gateway, png


@pytest.fixture
def bucket() -> Iterator[str]:
    system = fsspec.filesystem("memory")
    name = f"/bucket-{uuid4().hex}"
    system.mkdir(name)
    yield f"memory:/{name}"
    system.rm(name, recursive=True)


@pytest.fixture
async def bench(tmp_path: Path, small_spec: ModelSpec, bucket: str) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path, small_spec, images_sources=f"cloud={bucket}") as found:
        yield found


class Reads:
    """A file of a bucket that notes how it is read."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.sizes: list[int] = []
        self.closed = threading.Event()

    def read(self, size: int = -1) -> bytes:
        self.sizes.append(size)
        return bytes(self._file.read(size))

    def close(self) -> None:
        self.closed.set()
        self._file.close()


async def closed(file: Reads) -> None:
    assert await asyncio.to_thread(file.closed.wait, 10)


async def test_an_image_of_a_bucket_is_streamed_in_pieces(
    bench: Gateway, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = png() + bytes(3_000_000)
    fsspec.filesystem("memory").pipe_file(f"{bucket.removeprefix('memory:/')}/a.png", content)
    await bench.holds("cloud/a.png")
    opened: list[Reads] = []

    def noted(uri: str, piece_bytes: int) -> Reads:
        opened.append(Reads(open_pieces(uri, piece_bytes)))
        return opened[-1]

    monkeypatch.setattr(transfers, "open_pieces", noted)
    answer = await bench.client.get("/images/cloud/a.png")
    assert answer.content == content
    assert answer.headers["etag"]
    assert answer.headers["content-type"] == "image/png"
    assert max(opened[0].sizes) == transfers.PIECE_BYTES
    assert min(opened[0].sizes) > 0
    await closed(opened[0])
    head = await bench.client.head("/images/cloud/a.png")
    for name in ("etag", "content-type", "content-length"):
        assert head.headers[name] == answer.headers[name]
    assert len(opened[1].sizes) == 1
    await closed(opened[1])


async def test_an_object_that_is_not_an_image_is_closed_and_refused(
    bench: Gateway, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.filesystem("memory").pipe_file(f"{bucket.removeprefix('memory:/')}/a.txt", b"text")
    await bench.holds("cloud/a.txt")
    opened: list[Reads] = []

    def noted(uri: str, piece_bytes: int) -> Reads:
        opened.append(Reads(open_pieces(uri, piece_bytes)))
        return opened[-1]

    monkeypatch.setattr(transfers, "open_pieces", noted)
    assert_problem(await bench.client.get("/images/cloud/a.txt"), 404)
    await closed(opened[0])


@pytest.mark.slow
async def test_searches_waiting_for_one_image_share_requests_to_the_index(
    bench: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested: list[int] = []
    in_flight = 0
    hashes = bench.index.hashes

    async def counted(collection: Collection, wanted: Sequence[str]) -> Mapping[str, str]:
        nonlocal in_flight
        requested.append(len(wanted))
        in_flight += 1
        assert in_flight <= 3
        await asyncio.sleep(0.001)
        in_flight -= 1
        return await hashes(collection, wanted)

    monkeypatch.setattr(bench.index, "hashes", counted)
    wanted = {"image_name": "soon.png", "timeout_s": 10}
    searches = [asyncio.create_task(bench.search(text="x", wait_for=wanted)) for _ in range(100)]
    await asyncio.sleep(0.5)
    assert len(requested) < 100
    await bench.holds("soon.png")
    answers = await asyncio.gather(*searches)
    assert {answer.status_code for answer in answers} == {200}


@pytest.mark.slow
async def test_the_number_of_waiting_searches_is_limited(
    bench: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_lookup, "MAX_WAITING", 3)
    wanted = {"image_name": "never.png", "timeout_s": 0.5}
    answers = await asyncio.gather(*(bench.search(text="x", wait_for=wanted) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [409] * 3 + [503] * 5
    assert all(a.headers["retry-after"] for a in answers if a.status_code == 503)
    # Searches that timed out no longer count.
    assert_problem(await bench.search(text="x", wait_for=wanted), 409, "wait_for")
