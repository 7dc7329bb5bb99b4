"""Any text in metadata can be written to the index, or only its image is refused."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, NamedTuple

import grpc  # type: ignore[import-untyped]
import pytest
from PIL import ExifTags, Image
from weaviate.classes.data import DataObject
from weaviate.exceptions import WeaviateBatchError

from adapters.embedder.spec import ModelSpec
from adapters.index import writes as weaviate_writes
from adapters.index.port import Collection, ImageRecord
from imaging.decode import decode
from imaging.metadata.exif import TEXT_CHARACTERS, read_metadata

COLLECTION = Collection("C", "m", "1", 2, "x")
WHEN = datetime(2026, 1, 5, tzinfo=UTC)
LIMIT = 1000


def tiff(**tags: str) -> bytes:
    exif = Image.Exif()
    for name, text in tags.items():
        exif[ExifTags.Base[name]] = text
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "TIFF", exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "tags",
    [
        {"Make": "x" * 1_000_000},
        {"Model": "x" * 1_000_000},
        {"Make": "y" * 1_000_000, "Model": "é" * 1_000_000},
        {"Make": " " * 1_000_000 + "x"},
    ],
)
def test_a_camera_s_name_is_bounded(small_spec: ModelSpec, tags: dict[str, str]) -> None:
    camera = decode(tiff(**tags), small_spec).camera
    assert camera
    assert len(camera) <= TEXT_CHARACTERS
    assert camera == camera.strip()


def test_a_time_with_a_long_tail_is_read_or_ignored() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.DateTime] = "2026:01:05 00:00:00" + "\0" * 1_000_000
    assert read_metadata(exif).taken_at == WHEN
    exif[ExifTags.Base.DateTime] = "2026:01:05 00:00:00" + "x" * 1_000_000
    assert read_metadata(exif).taken_at is None


class Objects(NamedTuple):
    """A collection behind a real gRPC channel, whose messages are bounded."""

    channel: grpc.aio.Channel
    sent: list[list[str]]

    @property
    def data(self) -> Objects:
        return self

    async def insert_many(self, batch: Sequence[DataObject[Any, Any]]) -> Any:
        content = b"".join(str(each.properties).encode() for each in batch)
        try:
            await self.channel.unary_unary("/weaviate/batch")(content)
        except grpc.aio.AioRpcError as error:
            raise WeaviateBatchError(str(error)) from error  # As the client does.
        self.sent.append([str(each.properties["image_id"]) for each in batch])
        return SimpleNamespace(uuids=dict.fromkeys(range(len(batch))), errors={})


class _Answers(grpc.GenericRpcHandler):  # type: ignore[misc]
    def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        async def answer(content: bytes, _: object) -> bytes:
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture(params=["max_send_message_length", "max_receive_message_length"])
async def objects(request: pytest.FixtureRequest) -> AsyncIterator[Objects]:
    """Once the client refuses what is too large, once the server."""
    limit = [(f"grpc.{request.param}", LIMIT)]
    by_client = "send" in request.param
    server = grpc.aio.server(options=[] if by_client else limit)
    server.add_generic_rpc_handlers([_Answers()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    options = limit if by_client else []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield Objects(channel, [])
    await server.stop(None)


def record(name: str, camera: str) -> ImageRecord:
    return ImageRecord(
        image_id=name,
        uri=f"file:///{name}",
        sha256="a" * 64,
        media_type="image/png",
        size_bytes=9,
        width=3,
        height=3,
        modified_at=WHEN,
        added_at=WHEN,
        vector=[1.0, 0.0],
        camera=camera,
    )


async def test_a_batch_that_is_too_large_is_written_in_parts(objects: Objects) -> None:
    records = [record(f"{n}.png", "x" * 100) for n in range(11)]
    assert await weaviate_writes.upsert(objects, COLLECTION, records) == {}  # type: ignore[arg-type]
    assert {name for batch in objects.sent for name in batch} == {r.image_id for r in records}


async def test_a_record_that_is_too_large_by_itself_is_refused_alone(objects: Objects) -> None:
    records = [record(f"{n}.png", "x" * (LIMIT if n == 5 else 100)) for n in range(11)]
    refused = await weaviate_writes.upsert(objects, COLLECTION, records)  # type: ignore[arg-type]
    assert set(refused) == {"5.png"}
    assert "larger" in refused["5.png"]
    written = {name for batch in objects.sent for name in batch}
    assert written == {r.image_id for r in records} - {"5.png"}


async def test_other_exhausted_resources_do_not_split_the_batch() -> None:
    async def busy(_: object) -> None:
        raise WeaviateBatchError("status = StatusCode.RESOURCE_EXHAUSTED: too many requests")

    data = SimpleNamespace(data=SimpleNamespace(insert_many=busy))
    with pytest.raises(WeaviateBatchError):
        await weaviate_writes.upsert(data, COLLECTION, [record("a.png", "x")])  # type: ignore[arg-type]
