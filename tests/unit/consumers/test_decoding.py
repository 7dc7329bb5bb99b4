"""Pictures are decoded in processes of their own, within what memory is granted to all."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adapters.embedder.spec import ModelSpec
from adapters.errors import Rejected
from consumers.indexing.decoding import Decoder
from consumers.indexing.reading import Superseded
from consumers.indexing.settings import IndexingSettings
from imaging.decode import decode
from imaging.decode_memory import memory_needed
from schemas.events import ImageAdded, now
from tests.conftest import ROOT

MEGA = 1_000_000


def event(path: Path, data: bytes | None = None) -> ImageAdded:
    data = path.read_bytes() if data is None else data
    return ImageAdded(
        image_id=path.name,
        uri=path.as_uri(),
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        media_type="image/jpeg",
        modified_at=now(),
        added_at=now(),
    )


def written(path: Path, image: Image.Image, **options: Any) -> ImageAdded:
    image.save(path, **options)
    return event(path)


@pytest.fixture
def noise() -> Image.Image:
    random = np.random.default_rng(3)
    return Image.fromarray(random.integers(0, 256, (90, 120, 3), dtype=np.uint8))


@pytest.fixture
async def decoder(small_spec: ModelSpec) -> AsyncIterator[Decoder]:
    """One that grants nothing, so that all is too big for it."""
    with ThreadPoolExecutor(2) as pool:
        made = Decoder(small_spec, IndexingSettings(decode_memory_bytes=1), pool)
        yield made
        made.close()


async def test_a_worker_decodes_the_same_pixels(
    decoder: Decoder, small_spec: ModelSpec, tmp_path: Path, noise: Image.Image
) -> None:
    events = [written(tmp_path / f"{n}.{kind}", noise) for n, kind in enumerate(["png", "jpg"])]
    for each in events:
        done = await decoder.decode(each)
        expected = decode((tmp_path / each.image_id).read_bytes(), small_spec)
        assert np.array_equal(done.image.pixels, expected.pixels)
        assert (done.image.width, done.image.height) == (120, 90)
        assert done.decode_ms > 0
    assert len(decoder.sandbox.processes) == 1


async def test_a_worker_raises_the_same_errors(decoder: Decoder, tmp_path: Path) -> None:
    damaged, gone, changed = (tmp_path / name for name in ("damaged.png", "gone.png", "new.png"))
    damaged.write_bytes(b"\x89PNG\r\n\x1a\nno more")
    with pytest.raises(Rejected, match="picture"):
        await decoder.decode(event(damaged))
    with pytest.raises(Superseded, match="is gone"):
        await decoder.decode(event(gone, b"what it was"))
    changed.write_bytes(b"something")
    with pytest.raises(Superseded, match="has changed"):
        await decoder.decode(event(changed, b"otherthing"))
    folder = tmp_path / "folder.png"
    folder.mkdir()
    with pytest.raises(OSError, match="directory"):
        await decoder.decode(event(folder, b"x"))


async def test_an_image_whose_worker_is_killed_is_retried(
    decoder: Decoder, tmp_path: Path, noise: Image.Image
) -> None:
    wanted = written(tmp_path / "a.png", noise)
    await decoder.decode(wanted)
    for process in decoder.sandbox.processes:
        os.kill(process, signal.SIGKILL)
    done = await asyncio.gather(*(decoder.decode(wanted) for _ in range(3)))
    assert {each.image.width for each in done} == {120}
    assert (await decoder.decode(wanted)).image.width == 120


@pytest.mark.parametrize(
    ("kind", "options", "mode", "least", "most"),
    [
        # Bytes a pixel, of a picture of 0.96 megapixels that is scaled down little.
        ("jpeg", {}, "RGB", 0.01, 5),
        ("jpeg", {"progressive": True}, "RGB", 3, 9),
        ("jpeg", {"progressive": True, "subsampling": 0}, "RGB", 6, 12),
        ("png", {}, "RGB", 4, 5),
        ("png", {}, "L", 5, 6),
        ("png", {}, "RGBA", 12, 17),
        ("gif", {}, "P", 5, 14),
        ("webp", {"lossless": True}, "RGB", 7, 8),
        ("avif", {"speed": 10}, "RGB", 9, 12),
        ("jxl", {"effort": 1}, "RGB", 7, 13),
        ("bmp", {}, "RGB", 4, 5),
        ("tiff", {}, "CMYK", 8, 9),
    ],
)
def test_the_memory_of_an_image_is_estimated(
    small_spec: ModelSpec, kind: str, options: dict[str, Any], mode: str, least: float, most: float
) -> None:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((1200, 800)).convert("RGB").convert(mode).save(
        buffer, kind, **options
    )
    each = memory_needed(buffer.getvalue(), small_spec) / (1200 * 800)
    assert least <= each <= most


def test_unreadable_data_needs_no_memory(small_spec: ModelSpec) -> None:
    assert memory_needed(b"", small_spec) == 0
    assert memory_needed(b"no picture at all", small_spec) == 0


BIG: dict[str, Callable[[Path, Image.Image], None]] = {
    "progressive.jpg": lambda path, image: image.save(path, progressive=True, subsampling=0),
    "palette.gif": lambda path, image: image.convert("L").convert("P").save(path),
}

INDEXER = """
import asyncio, json, sys
from concurrent.futures import ThreadPoolExecutor
import consumers.indexing.app  # what an indexer has in memory
from adapters.embedder.spec import ModelSpec
from consumers.indexing.settings import IndexingSettings
from imaging.sandbox.allocator import return_memory_promptly
from consumers.indexing.decoding import Decoder
from schemas.events import ImageAdded

async def main():
    return_memory_promptly()
    spec = ModelSpec.model_validate_json(sys.argv[1])
    with ThreadPoolExecutor(2) as pool:
        decoder = Decoder(spec, IndexingSettings(), pool)
        events = [ImageAdded.model_validate_json(line) for line in sys.stdin]
        done = await asyncio.gather(*(decoder.decode(event) for event in events))
        decoder.close()
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    widths = [each.image.width for each in done]
    print(json.dumps({"peak": int(line.split()[1]) * 1024, "widths": widths}))

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_giant_images_leave_the_indexer_below_400_mb(tmp_path: Path, small_spec: ModelSpec) -> None:
    """Pictures of 80 megapixels, all at once."""
    image = Image.linear_gradient("L").resize((10_000, 8_000)).convert("RGB")
    events = []
    for name, make in BIG.items():
        make(tmp_path / name, image)
        events.append(event(tmp_path / name))
    script = tmp_path / "indexer.py"
    script.write_text(INDEXER)
    done = subprocess.run(
        [sys.executable, str(script), small_spec.model_dump_json()],
        input="\n".join(each.model_dump_json() for each in events * 2),
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["widths"] == [10_000] * 2 * len(BIG)
    assert found["peak"] < 400 * MEGA
