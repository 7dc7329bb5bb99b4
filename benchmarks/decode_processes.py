"""Pictures read and decoded per second, in threads and in worker processes.

    python -m benchmarks.decode_processes --rounds 9 > benchmarks/results/decode_processes.md

Both decode the same pictures with as many workers, and as many in flight, as an indexer. Rounds
alternate, so that other load on the machine affects both alike. The result is the median over the
rounds of processes / threads, with its 95 % interval (bootstrap). `--candidates` adds loky and
pebble, if they are installed, under the same conditions; they can send pixels only as pickles.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import psutil
from PIL import Image

from adapters.embedder.spec import ModelSpec
from benchmarks.intervals import interval
from consumers.indexing.decoding import Decoder
from consumers.indexing.reading import Limits
from consumers.indexing.settings import IndexingSettings
from consumers.indexing.worker_task import read_and_decode
from schemas.events import ImageAdded, now

ROOT = Path(__file__).parents[1]
SPEC = ModelSpec(
    name="clip",
    version="0" * 8,
    dimension=512,
    width=224,
    height=224,
    resize_mode="shortest_edge_center_crop",
    licence="MIT",
)
LIMITS = Limits(200_000_000, 178_956_970)
IN_FLIGHT = 96
EVERYTHING = 1 << 40


class Pool(Protocol):
    """A pool that decodes."""

    async def decode(self, event: ImageAdded) -> object:
        """The picture."""

    def close(self) -> None:
        """End it."""


def work(event: ImageAdded) -> object:
    """The work of one thread, or of one process of a candidate."""
    return read_and_decode(event, None, SPEC, LIMITS, memory=EVERYTHING)


class Threads:
    """Decoding in threads, as before decision 13."""

    def __init__(self, workers: int) -> None:
        self._pool = ThreadPoolExecutor(workers)

    async def decode(self, event: ImageAdded) -> object:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, event)

    def close(self) -> None:
        self._pool.shutdown()


class Processes:
    """Decoding in our worker processes."""

    def __init__(self, workers: int) -> None:
        self._pool = ThreadPoolExecutor(1)
        self.decoder = Decoder(SPEC, IndexingSettings(decode_workers=workers), self._pool)

    async def decode(self, event: ImageAdded) -> object:
        return await self.decoder.decode(event)

    def close(self) -> None:
        self.decoder.close()
        self._pool.shutdown()


class Loky:
    """Decoding in loky's executor."""

    def __init__(self, workers: int) -> None:
        from loky import ProcessPoolExecutor

        self._pool = ProcessPoolExecutor(workers)

    async def decode(self, event: ImageAdded) -> object:
        return await asyncio.wrap_future(self._pool.submit(work, event))

    def close(self) -> None:
        self._pool.shutdown()


class Pebble:
    """Decoding in pebble's pool."""

    def __init__(self, workers: int) -> None:
        from pebble import ProcessPool

        context = multiprocessing.get_context("forkserver")
        self._pool = ProcessPool(max_workers=workers, context=context)

    async def decode(self, event: ImageAdded) -> object:
        return await asyncio.wrap_future(self._pool.schedule(work, args=(event,), timeout=30))

    def close(self) -> None:
        self._pool.stop()
        self._pool.join()


def events_of(paths: Sequence[Path]) -> list[ImageAdded]:
    """The events that a watcher would publish for these files."""
    found = []
    for path in paths:
        data = path.read_bytes()
        found.append(
            ImageAdded(
                image_id=path.name,
                uri=path.as_uri(),
                sha256=hashlib.sha256(data).hexdigest(),
                size_bytes=len(data),
                media_type="image/jpeg",
                modified_at=now(),
                added_at=now(),
            )
        )
    return found


def corpora(folder: Path) -> dict[str, list[ImageAdded]]:
    """Name -> what is decoded in one round."""
    samples = sorted((ROOT / "images/photos").glob("*.jpg"))
    found = {"sample photographs": events_of(samples) * 8}
    for name, size, count, times in (
        ("JPEG 1000 x 750", (1000, 750), 60, 6),
        ("JPEG 12 megapixels", (4000, 3000), 16, 6),
    ):
        paths = []
        for number in range(count):
            path = folder / f"{size[0]}-{number}.jpg"
            image = Image.open(samples[number % len(samples)]).convert("RGB").resize(size)
            image.save(path, quality=88)
            paths.append(path)
        found[name] = events_of(paths) * times
    return found


async def rate(
    decode: Callable[[ImageAdded], Awaitable[object]], all_of: list[ImageAdded]
) -> float:
    """Pictures per second."""
    left = iter(all_of)

    async def some() -> None:
        for event in left:
            await decode(event)

    started = time.perf_counter()
    await asyncio.gather(*(some() for _ in range(IN_FLIGHT)))
    return len(all_of) / (time.perf_counter() - started)


async def latency(decode: Callable[[ImageAdded], Awaitable[object]], event: ImageAdded) -> float:
    """Median milliseconds of one picture alone."""
    times = []
    for _ in range(40):
        started = time.perf_counter()
        await decode(event)
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)


async def memory_of(processes: Processes) -> str:
    """Memory of the idle workers and of the process that they are forked from."""
    lines = []
    for child in psutil.Process().children(recursive=True):
        used = child.memory_full_info()
        worker = "worker" if child.pid in processes.decoder.sandbox.processes else "other"
        lines.append(f"{worker} {used.rss / 1e6:.0f} ({used.uss / 1e6:.0f} of its own)")
    return ", ".join(lines)


async def main(rounds: int, workers: int, candidates: bool) -> None:
    """Measure, and print a page in Markdown."""
    kinds: dict[str, Any] = {"threads": Threads, "processes": Processes}
    if candidates:
        kinds |= {"loky": Loky, "pebble": Pebble}
    with tempfile.TemporaryDirectory() as folder:
        images = corpora(Path(folder))
        pools: dict[str, Pool] = {name: kind(workers) for name, kind in kinds.items()}
        first = next(iter(images.values()))
        starts = {}
        for name, pool in pools.items():
            started = time.perf_counter()
            await pool.decode(first[0])
            starts[name] = time.perf_counter() - started
            await rate(pool.decode, first[:100])
        rates: dict[str, dict[str, list[float]]] = {
            corpus: {name: [] for name in pools} for corpus in images
        }
        names = list(pools)
        for number in range(rounds):
            for corpus, all_of in images.items():
                for name in names[number % len(names) :] + names[: number % len(names)]:
                    rates[corpus][name].append(await rate(pools[name].decode, all_of))
        one = {name: await latency(pool.decode, first[0]) for name, pool in pools.items()}
        processes = pools["processes"]
        assert isinstance(processes, Processes)
        memory = await memory_of(processes)
        for pool in pools.values():
            pool.close()
    print("# Decoding in processes\n")
    print(
        f"`python -m benchmarks.decode_processes --rounds {rounds} --workers {workers}`, "
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}: pictures per second, medians of {rounds} "
        "interleaved rounds.\n"
    )
    others = [name for name in names if name != "threads"]
    print(f"| pictures | threads | {' | '.join(f'{n} | of threads (95 %)' for n in others)} |")
    print(f"|---|---|{'---|---|' * len(others)}")
    for corpus, found in rates.items():
        cells = [corpus, f"{statistics.median(found['threads']):.1f}"]
        for name in others:
            shares = [a / b for a, b in zip(found[name], found["threads"], strict=True)]
            low, high = interval(shares)
            cells += [
                f"{statistics.median(found[name]):.1f}",
                f"{statistics.median(shares):.3f} ({low:.3f} to {high:.3f})",
            ]
        print(f"| {' | '.join(cells)} |")
    print("\n| | one alone, ms | first one, s |\n|---|---|---|")
    for name in names:
        print(f"| {name} | {one[name]:.2f} | {starts[name]:.2f} |")
    print(f"\nMemory of the processes when idle, MB: {memory}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--candidates", action="store_true")
    options = parser.parse_args()
    asyncio.run(main(options.rounds, options.workers, options.candidates))
