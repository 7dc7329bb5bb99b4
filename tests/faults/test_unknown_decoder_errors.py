"""Any error of a decoder means that its image is damaged."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adapters.embedder.spec import ModelSpec
from adapters.errors import DecoderMemory, Rejected, Unavailable
from consumers.indexing import worker_task as decoding_task
from consumers.indexing.decoding import Decoder
from consumers.indexing.reading import Limits
from consumers.indexing.settings import IndexingSettings
from imaging import worker_tasks as decoding_tasks
from imaging.decode import resize
from imaging.decode_memory import memory_needed_at
from imaging.sandbox.worker import NeedsMemory
from tests.faults.test_failing_decoders import png, written
from tests.support.gateway_on_fakes import assert_problem, gateway, image_record, unit

PLENTY = 1 << 40


class Unheard(Exception):
    """What no list of errors names."""


ERRORS = [
    ZeroDivisionError("integer division or modulo by zero"),
    OverflowError("size too large"),
    AttributeError("'NoneType' object has no attribute 'load'"),
    AssertionError(),
    OSError("encoder error -2"),
    Unheard("?"),
]


def no_samples() -> bytes:
    """A progressive JPEG whose components say that they have no samples at all."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "green").save(buffer, "JPEG", progressive=True)
    data = bytearray(buffer.getvalue())
    start = data.index(b"\xff\xc2")
    for component in range(data[start + 9]):
        data[start + 11 + 3 * component] = 0
    return bytes(data)


def thread(length: int) -> bytes:
    """A PNG one pixel wide."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        end = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + end

    head = struct.pack(">IIBBBBB", 1, length, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(2 * length), 9)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def cropping(spec: ModelSpec) -> ModelSpec:
    return spec.model_copy(update={"resize_mode": "shortest_edge_center_crop"})


def tasks(spec: ModelSpec, folder: Path) -> list[Callable[[], object]]:
    """All that is done with a picture's bytes."""
    data = png("green")
    event = written(folder / "a.png", data)
    limits = Limits(10**6, 10**6)
    return [
        lambda: decoding_tasks.decode_image(data, spec, 10**6, memory=PLENTY),
        lambda: decoding_tasks.thumbnail(data, 64, 10**6, 10**6, memory=PLENTY),
        lambda: decoding_tasks.media_type(data, 10**6, 10**6, memory=PLENTY),
        lambda: decoding_task.read_and_decode(event, None, spec, limits, memory=PLENTY),
    ]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("stage", ["memory_needed_at", "decode"])
def test_an_unlisted_decoder_error_is_a_damaged_image(
    small_spec: ModelSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    stage: str,
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    names = (
        ["memory_needed_at"]
        if stage == "memory_needed_at"
        else ["decode", "make_thumbnail", "check"]
    )
    for name in names:
        monkeypatch.setattr(decoding_tasks, name, fails)
    if stage == "decode":
        monkeypatch.setattr(decoding_task, "decode", fails)
    for task in tasks(small_spec, tmp_path):
        with pytest.raises(Rejected, match=f"damaged picture: {type(error).__name__}"):
            task()


@pytest.mark.parametrize(
    "error", [Unavailable("away"), DecoderMemory("much"), NeedsMemory(1), MemoryError()]
)
def test_errors_of_our_own_keep_their_type(
    small_spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(decoding_tasks, "memory_needed_at", fails)
    for task in tasks(small_spec, tmp_path):
        with pytest.raises(type(error)) as raised:
            task()
        assert raised.value is error


def test_an_unreadable_file_is_not_a_damaged_image(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        decoding_tasks.media_type(tmp_path / "none", 1, 1, memory=PLENTY)


async def test_an_indexer_dead_letters_an_image_that_its_decoder_fails_on(
    small_spec: ModelSpec, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(1) as pool:
        decoder = Decoder(cropping(small_spec), IndexingSettings(decode_workers=1), pool)
        with pytest.raises(Rejected):
            await decoder.decode(written(tmp_path / "a.jpg", no_samples()))
        assert (await decoder.decode(written(tmp_path / "c.png", png("red")))).image.width == 30
        decoder.close()


@pytest.mark.slow
async def test_a_gateway_names_the_image_that_its_decoder_fails_on(
    small_spec: ModelSpec, tmp_path: Path
) -> None:
    async with gateway(tmp_path, small_spec, [image_record("a.jpg", unit(1))]) as bench:
        data = no_samples()
        requested = await bench.search(image=base64.b64encode(data).decode())
        assert_problem(requested, 422, "image")
        sent = {"image": ("x.jpg", data, "image/jpeg")}
        assert_problem(await bench.client.post("/api/v1/images", files=sent), 422, "image")


def test_the_memory_of_a_header_without_samples_is_estimated() -> None:
    assert memory_needed_at(no_samples(), 448, max_pixels=10**8) > 0


@pytest.mark.parametrize("size", [(2, 900), (900, 2), (3, 901), (5, 2000)])
def test_the_centre_crop_of_a_long_image_equals_that_of_the_scaled_image(
    small_spec: ModelSpec, size: tuple[int, int]
) -> None:
    spec = cropping(small_spec)
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    edge = spec.width
    scale = edge / min(size)
    whole = image.resize(
        (int(size[0] * scale), int(size[1] * scale)), Image.Resampling[spec.interpolation.upper()]
    )
    left, top = round((whole.width - edge) / 2), round((whole.height - edge) / 2)
    wanted = np.asarray(whole.crop((left, top, left + edge, top + edge)), np.int16)
    found = np.asarray(resize(image, spec), np.int16)
    assert np.abs(found - wanted).max() <= 2


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["stretch", "shortest_edge_center_crop"])
async def test_a_one_line_image_takes_no_more_memory_than_estimated(
    small_spec: ModelSpec, tmp_path: Path, mode: str
) -> None:
    """A worker may take no more: what it does take is refused."""
    spec = small_spec.model_copy(update={"resize_mode": mode, "width": 224, "height": 224})
    with ThreadPoolExecutor(1) as pool:
        decoder = Decoder(spec, IndexingSettings(decode_workers=1), pool)
        for length in (1_000, 1_000_000):
            found = await decoder.decode(written(tmp_path / str(length), thread(length)))
            assert found.image.pixels.shape == (224, 224, 3)
            assert (found.image.width, found.image.height) == (1, length)
        decoder.close()
