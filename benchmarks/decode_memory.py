"""Peak memory of a process that decodes one big picture, for each format.

`python -m benchmarks.decode_memory --size 10000 8000` makes the pictures in a temporary folder and
writes `benchmarks/results/decode_memory.md`. Each is decoded in a process of its own that has
the modules of an indexer loaded.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pillow_jxl  # noqa: F401 (makes JPEG XL known to Pillow)
from PIL import Image
from pillow_heif import register_heif_opener

RESULTS = Path(__file__).parent / "results" / "decode_memory.md"
MIB = 2**20
register_heif_opener()


def scene(size: tuple[int, int]) -> Image.Image:
    """Soft random colours with some grain, which give files of about the size of photographs."""
    random = np.random.default_rng(1)
    small = random.integers(0, 256, (size[1] // 40, size[0] // 40, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)).copy()
    grain = random.integers(0, 12, (512, 512, 1), dtype=np.uint8)
    for top in range(0, size[1], 512):
        for left in range(0, size[0], 512):
            part = image[top : top + 512, left : left + 512]
            np.minimum(part, 243, out=part)
            part += grain[: part.shape[0], : part.shape[1]]
    return Image.fromarray(image)


def kinds(whole: Image.Image) -> dict[str, Callable[[], bytes]]:
    """Name of a kind -> function that makes a file of it."""

    def saved(image: Image.Image, kind: str, **options: object) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    def alpha() -> Image.Image:
        image = whole.convert("RGBA")
        image.putalpha(200)
        return image

    def grey16() -> Image.Image:
        return Image.fromarray(np.asarray(whole.convert("L")).astype(np.uint16) * 257)

    return {
        "JPEG": lambda: saved(whole, "JPEG"),
        "JPEG, progressive": lambda: saved(whole, "JPEG", progressive=True),
        "JPEG, progressive, 4:4:4": lambda: saved(
            whole, "JPEG", progressive=True, subsampling=0, quality=95
        ),
        "JPEG, CMYK": lambda: saved(whole.convert("CMYK"), "JPEG"),
        "PNG": lambda: saved(whole, "PNG", compress_level=1),
        "PNG, alpha": lambda: saved(alpha(), "PNG", compress_level=1),
        "PNG, palette": lambda: saved(whole.quantize(64, dither=0), "PNG", compress_level=1),
        "PNG, 16-bit grey": lambda: saved(grey16(), "PNG", compress_level=1),
        "WebP": lambda: saved(whole, "WEBP", method=0),
        "WebP, lossless": lambda: saved(whole, "WEBP", lossless=True, method=0, quality=0),
        "GIF": lambda: saved(whole.quantize(64, dither=0), "GIF"),
        "BMP": lambda: saved(whole.convert("L"), "BMP"),
        "TIFF, LZW": lambda: saved(whole, "TIFF", compression="tiff_lzw"),
        "TIFF, CMYK": lambda: saved(whole.convert("CMYK"), "TIFF", compression="tiff_lzw"),
        "TIFF, 32-bit float": lambda: saved(whole.convert("F"), "TIFF", compression="tiff_lzw"),
        "HEIC": lambda: saved(whole, "HEIF", quality=40, enc_params={"preset": "ultrafast"}),
        "AVIF": lambda: saved(whole, "AVIF", speed=10, quality=40),
        "AVIF, 4:4:4": lambda: saved(whole, "AVIF", speed=10, quality=40, subsampling="4:4:4"),
        "AVIF, alpha": lambda: saved(alpha(), "AVIF", speed=10, quality=40),
        "JPEG XL": lambda: saved(whole, "JXL", effort=1),
        "JPEG XL, alpha": lambda: saved(alpha(), "JXL", effort=1),
        "JPEG XL, lossless": lambda: saved(whole, "JXL", effort=1, lossless=True),
    }


def peak() -> int:
    """The highest resident memory of this process so far, in bytes."""
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 (no allocation)
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def decode_one(path: Path) -> dict[str, object]:
    """Decode it as an indexer would; returns memory in bytes and seconds."""
    import consumers.indexing.app  # noqa: F401 (what an indexer has in memory)
    from adapters.embedder.spec import ModelSpec
    from adapters.errors import Rejected
    from imaging.decode import decode
    from imaging.decode_memory import memory_needed
    from imaging.sandbox.allocator import return_memory_promptly

    spec = ModelSpec(
        name="any",
        version="00000000",
        dimension=1,
        width=256,
        height=256,
        resize_mode="shortest_edge_center_crop",
        interpolation="bicubic",
        background="white",
        licence="-",
        min_score=0.0,
    )
    return_memory_promptly()
    data = path.read_bytes()
    decode(_tiny(), spec)
    before = peak()
    needed = memory_needed(data, spec)
    started = time.perf_counter()
    problem = ""
    try:
        decode(data, spec)
    except Rejected as error:
        problem = str(error)
    return {
        "file": len(data),
        "before": before,
        "peak": peak(),
        "needed": needed,
        "seconds": time.perf_counter() - started,
        "problem": problem,
    }


def _tiny() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


def main() -> None:
    """Measure all and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=2, default=(10_000, 8_000))
    parser.add_argument("--only", help="a part of a name")
    parser.add_argument("--decode", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.decode is not None:
        print(json.dumps(decode_one(chosen.decode)))
        return
    width, height = chosen.size
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, make in kinds(scene((width, height))).items():
            if chosen.only and chosen.only.lower() not in name.lower():
                continue
            path = Path(folder) / "picture"
            path.write_bytes(make())
            command = [sys.executable, "-m", "benchmarks.decode_memory", "--decode", str(path)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found = json.loads(done.stdout)
            took = (found["peak"] - found["before"]) / MIB
            rows.append(
                f"| {name} | {found['file'] / MIB:.0f} | {found['needed'] / MIB:.0f} | {took:.0f} "
                f"| {found['peak'] / MIB:.0f} | {found['seconds']:.1f} "
                f"| {'refused' if found['problem'] else ''} |"
            )
            print(rows[-1], found["problem"], flush=True)
    lines = [
        f"## {width} x {height}, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}",
        "",
        "| picture | file, MiB | expected, MiB | taken, MiB | peak of the process, MiB | s | |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
    ]
    if not chosen.only:
        RESULTS.write_text("# Memory that decoding takes\n\n" + "\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
