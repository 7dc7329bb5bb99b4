"""The time of what the page's first screen asks of Weaviate, by the size of the collection.

`.venv/bin/python -m benchmarks.first_screen` starts a Weaviate of its own with free ports, and
fills a collection of each size (`--sizes 20000 200000`; add 1000000 where there is time) with
random vectors of `--dimension` numbers. Then the collections take turns in each round, so that
other load on the machine affects all alike. Prints a table in Markdown; times in ms, and of each
question the ratio to the first size, of the same round, with its 95 % interval.

Half of the pictures are in the folder `large`, one in a thousand in `small`, and the others in a
hundred more folders; ten pictures at a time were added in the same instant.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from adapters.bootstrap import connect_index
from adapters.embedder.spec import ModelSpec
from adapters.index.port import DETAILS, Collection, ImageFilter, ImageIndex, ImageRecord
from adapters.settings import ServerSettings
from benchmarks.intervals import interval
from gateway.state.folders import Folders
from stack.install.preparation import Cache
from stack.processes import weaviate
from stack.settings import StackSettings
from stack.tcp_ports import free_ports

PAGE = 31
"""Pictures of a page, and one more that says whether there is another page."""
BATCH = 1000
WARM_UP = 3
START_SECONDS = 120.0
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
Question = Callable[[], Awaitable[object]]
Times = dict[str, dict[int, list[float]]]


@contextmanager
def running_weaviate(state: Path) -> Iterator[ServerSettings]:
    """The stack's Weaviate with ports and data of its own."""
    names = ("", "grpc_", "gossip_", "data_", "raft_", "raft_internal_")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    settings = StackSettings(
        state_dir=state, **{f"weaviate_{name}port": port for name, port in ports.items()}
    )
    settings.logs.mkdir(parents=True, exist_ok=True)
    spec = weaviate(settings, Cache(settings.cache, lambda text: print(text, file=sys.stderr)))
    with spec.log.open("ab") as log:
        process = subprocess.Popen(
            spec.command, env={**os.environ, **spec.environment}, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not asyncio.run(_is_ready(spec.ready)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"Weaviate did not start:\n{spec.log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield settings.server_settings()
    finally:
        process.terminate()
        process.wait(60)


async def _is_ready(probe: Callable[[], Awaitable[bool]]) -> bool:
    return await probe()


def name_of(number: int) -> str:
    """The name of a picture."""
    if number % 1000 == 1:
        return f"small/{number}.jpg"
    return f"large/{number}.jpg" if number % 2 == 0 else f"{number % 201 % 100:02}/{number}.jpg"


def records(numbers: Sequence[int], dimension: int) -> list[ImageRecord]:
    """Pictures of these numbers with random vectors."""
    vectors = np.random.default_rng(numbers[0]).standard_normal((len(numbers), dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [
        ImageRecord(
            image_id=name_of(number),
            uri=f"file:///{name_of(number)}",
            sha256=f"{number:064x}",
            media_type="image/jpeg",
            size_bytes=100_000 + number,
            width=4000,
            height=3000,
            modified_at=FIRST,
            added_at=FIRST + timedelta(seconds=number // 10),
            vector=vector.tolist(),
        )
        for number, vector in zip(numbers, vectors, strict=True)
    ]


async def fill(index: ImageIndex, size: int, dimension: int) -> Collection:
    """A collection of this many pictures, which were added in random order."""
    spec = ModelSpec(
        name=f"benchmark-{size}",
        version="0123456789ab",
        dimension=dimension,
        width=16,
        height=16,
        resize_mode="stretch",
        licence="Apache-2.0",
    )
    collection = await index.ensure_collection(spec)
    numbers = list(range(size))
    random.Random(1).shuffle(numbers)
    began = time.monotonic()
    for start in range(0, size, BATCH):
        refused = await index.upsert(collection, records(numbers[start : start + BATCH], dimension))
        assert not refused, refused
        done = min(start + BATCH, size)
        if done % 20_000 == 0 or done == size:
            spent = time.monotonic() - began
            print(f"{done} of {size} pictures after {spent:.0f} s", file=sys.stderr)
    return collection


def questions(index: ImageIndex, collection: Collection, size: int) -> dict[str, Question]:
    """What the page asks, of this collection."""
    details = [name for name in DETAILS if name != "added_at"]
    middle = (FIRST + timedelta(seconds=size // 20), "")

    async def active() -> Collection:
        return collection

    return {
        "newest pictures": lambda: index.newest(collection, PAGE, details=details),
        "a page in the middle": lambda: index.newest(
            collection, PAGE, before=middle, details=details
        ),
        "newest of a folder with half of them": lambda: index.newest(
            collection, PAGE, where=ImageFilter(folder="large/"), details=details
        ),
        "newest of a folder with a thousandth": lambda: index.newest(
            collection, PAGE, where=ImageFilter(folder="small/"), details=details
        ),
        # A new one each time, as it caches its answer.
        "folders": lambda: Folders(index, active).counts(),
        "count": lambda: index.count(collection),
    }


async def measure(
    settings: ServerSettings, sizes: Sequence[int], dimension: int, rounds: int
) -> Times:
    """Question -> size -> the time of each round in ms."""
    index = connect_index(settings)
    try:
        asked = {size: questions(index, await fill(index, size, dimension), size) for size in sizes}
        times: Times = {what: {size: [] for size in sizes} for what in asked[sizes[0]]}
        for number in range(WARM_UP + rounds):
            for what, of_size in times.items():
                for size in sizes[:: -1 if number % 2 else 1]:
                    started = time.perf_counter()
                    await asked[size][what]()
                    if number >= WARM_UP:
                        of_size[size].append((time.perf_counter() - started) * 1e3)
    finally:
        await index.close()
    return times


def report(times: Times, sizes: Sequence[int]) -> None:
    """Print the table."""
    heads = [f"{size:,}: p50 / p95 ms" for size in sizes]
    heads += [f"{size:,} / {sizes[0]:,}, with 95 %" for size in sizes[1:]]
    print(f"| question | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    for what, of_size in times.items():
        cells = [
            f"{statistics.median(each):.1f} / {statistics.quantiles(each, n=20)[-1]:.1f}"
            for each in of_size.values()
        ]
        for size in sizes[1:]:
            pairs = zip(of_size[size], of_size[sizes[0]], strict=True)
            ratios = [large / small for large, small in pairs]
            low, high = interval(ratios)
            cells.append(f"{statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})")
        print(f"| {what} | {' | '.join(cells)} |")


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument(
        "--state", type=Path, help="parent of the data; a temporary folder if unset"
    )
    arguments = parser.parse_args()
    sizes = sorted(set(arguments.sizes))
    with (
        tempfile.TemporaryDirectory(dir=arguments.state, prefix="first-screen-") as state,
        running_weaviate(Path(state)) as settings,
    ):
        times = asyncio.run(measure(settings, sizes, arguments.dimension, arguments.rounds))
    print(
        f"`.venv/bin/python -m benchmarks.first_screen {' '.join(sys.argv[1:])}`\n\n"
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load "
        f"average {os.getloadavg()[0]:.1f}, {arguments.dimension} dimensions, "
        f"{arguments.rounds} rounds.\n"
    )
    report(times, sizes)


if __name__ == "__main__":
    main()
