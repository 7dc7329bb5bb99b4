"""Pictures indexed per second, end to end, against the best bare loop on the same machine.

    ./image-search up --detach --servers-only
    python -m benchmarks.indexing_throughput --pictures 2000 --rounds 3

A bare loop has no servers: one process decodes the same files in a pool on every core, while the
same ONNX model runs on the decoded pixels. Of several thread counts the best is used. Rounds
alternate, so that other load on the machine affects both alike.
With `--against FOLDER...` the indexers of other checkouts (which must run in the same environment)
take turns with this one, and nothing else is measured: old against new.

The profile shows the processor time of each process, in seconds for 1,000 pictures.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
from PIL import Image

from adapters.bootstrap import connect_admin, connections
from adapters.embedder.spec import ModelSpec
from adapters.log.port import Message
from adapters.provision import create_topic
from adapters.retry import until_available
from benchmarks.bare_indexing import overlapped, sequential
from benchmarks.families import family, proportional_bytes
from benchmarks.intervals import interval
from cli.servers import server_settings
from schemas.events import ImageAdded
from schemas.topics import IMAGES
from stack.record import RecordFile
from stack.settings import StackSettings

ROOT = Path(__file__).parents[1]
JOIN_SECONDS = 12.0
"""Time in which indexers start and share the partitions."""


@dataclass(frozen=True)
class Run:
    """One run: images per second, peak memory of an indexer in MB, processor seconds by process."""

    rate: float
    peak: float
    spent: Mapping[str, float]


def make_images(folder: Path, count: int, size: tuple[int, int], distinct: int) -> list[Path]:
    """Photographs of this size, crops of the samples; no two files have the same bytes.

    After `distinct` crops the same ones are repeated, each with a number appended, which decoders
    ignore: each content is inferred once, and making thousands of large crops would take long.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sources = [Image.open(p).convert("RGB") for p in sorted((ROOT / "images/photos").glob("*.jpg"))]
    paths = []
    for number in range(count):
        path = folder / f"{number:05}.jpg"
        paths.append(path)
        if path.exists():
            continue
        if number >= distinct:
            path.write_bytes(paths[number % distinct].read_bytes() + str(number).encode())
            continue
        chance = random.Random(number)
        source = sources[number % len(sources)]
        scale = chance.uniform(0.5, 0.95)
        width, height = int(source.width * scale), int(source.height * scale)
        left = chance.randrange(source.width - width)
        top = chance.randrange(source.height - height)
        crop = source.crop((left, top, left + width, top + height))
        crop.resize(size, Image.Resampling.BICUBIC).save(path, quality=88)
    return paths


def messages(paths: list[Path], run: str) -> list[Message]:
    """The event of each picture, under ids of this run."""
    found = []
    for path in paths:
        data = path.read_bytes()
        event = ImageAdded(
            image_id=f"{run}/{path.name}",
            uri=path.as_uri(),
            sha256=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
            media_type="image/jpeg",
            modified_at=datetime.now(UTC),
            added_at=datetime.now(UTC),
        )
        found.append(Message(event.image_id, event))
    return found


def processor_seconds(processes: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """User and system time of the processes and their descendants so far."""
    spent = {}
    for name, pids in processes.items():
        times = [each.cpu_times() for pid in pids for each in family(psutil.Process(pid))]
        spent[name] = sum(each.user + each.system for each in times)
    return spent


def server_processes() -> dict[str, list[int]]:
    """The servers that the stack runs here."""
    record = RecordFile(StackSettings().state / "run").read()
    rows = record.processes if record else ()
    return {row.name: [row.pid] for row in rows if row.pid is not None}


async def end_to_end(
    paths: list[Path], indexers: int, model: str = "lite", code: Path = ROOT
) -> Run:
    """From the first event to the last commit, with the indexer of the checkout `code`."""
    settings = server_settings()
    # One client of the administration, so that its start does not affect what is measured.
    async with connections(settings) as servers, connect_admin(settings) as admin:
        spec = await servers.embedder.spec(model)
        collection = await servers.index.ensure_collection(spec)
        group = collection.group
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
            "WEAVIATE_URL": settings.weaviate_url,
            "WEAVIATE_GRPC_PORT": str(settings.weaviate_grpc_port),
            "TRITON_URL": settings.triton_url,
            "MODEL_NAME": model,
        }

        total = sum(end for _, end in (await servers.log.bounds(IMAGES)).values())

        async def caught_up() -> bool:
            offsets = await admin.list_consumer_group_offsets(group)
            return sum(max(0, meta.offset) for meta in offsets.values()) >= total

        # A new process for each round: a former one has the vectors in its cache.
        records, warm = messages(paths, "throughput"), messages(paths[:1], "warm")
        await servers.index.delete(collection, [message.key for message in records + warm])
        processes = await asyncio.to_thread(launch, indexers, environment, code)
        try:
            await asyncio.sleep(JOIN_SECONDS)
            await servers.log.publish(IMAGES, warm)
            total += len(warm)
            await until(caught_up)
            running = {**server_processes(), "indexers": [each.pid for each in processes]}
            before, started = processor_seconds(running), time.perf_counter()
            await servers.log.publish(IMAGES, records)
            total += len(records)
            peak = await until(caught_up, processes)
            took = time.perf_counter() - started
            after = processor_seconds(running)
            stored = {image_id async for image_id, _ in servers.index.stored(collection)}
            assert stored.issuperset(message.key for message in records)
            spent = {name: after[name] - before[name] for name in running}
            return Run(len(paths) / took, peak / 1e6, spent)
        finally:
            # Otherwise the next watcher would find thousands of pictures gone at once.
            gone = [Message(message.key, None) for message in records + warm]
            await servers.log.publish(IMAGES, gone)
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(60)


def launch(count: int, environment: dict[str, str], code: Path) -> list[subprocess.Popen[bytes]]:
    """Start `count` indexers."""
    return [
        subprocess.Popen(
            [sys.executable, "-m", "consumers", "indexing"],
            cwd=code,
            env={**os.environ, **environment},
            stderr=subprocess.DEVNULL,
        )
        for _ in range(count)
    ]


async def until(
    check: Callable[[], Awaitable[bool]], watched: Sequence[subprocess.Popen[bytes]] = ()
) -> float:
    """Wait until `check` is true; the highest memory of a watched process with its children
    meanwhile, in bytes (proportional set size)."""
    peak = 0.0
    while not await check():
        peak = max([peak, *(proportional_bytes(psutil.Process(each.pid)) for each in watched)])
        await asyncio.sleep(0.2)
    return peak


async def empty_topic() -> None:
    """Make the topic of images anew, without the group's offsets.

    A version that finds offsets of an earlier one may read the whole topic again.
    """
    settings = server_settings()
    async with connections(settings) as servers:
        spec = await servers.embedder.spec("lite")
        collection = await servers.index.ensure_collection(spec)
        # Members that have just ended may still be counted for a moment.
        await until_available(
            lambda: servers.groups.delete(collection.group), what="delete the group"
        )
    async with connect_admin(settings) as admin:
        await admin.delete_topics([IMAGES.name])

        async def is_gone() -> bool:
            return IMAGES.name not in await admin.list_topics()

        await until(is_gone)
    await create_topic(settings, IMAGES)


def compare(paths: list[Path], indexers: int, rounds: int, others: Sequence[Path]) -> None:
    """Let the indexers of all checkouts take turns, and print a table in Markdown."""
    codes = {path.name: path for path in others} | {"now": ROOT}
    runs: dict[str, list[Run]] = {name: [] for name in codes}
    for number in range(rounds):
        for name in list(runs)[:: -1 if number % 2 else 1]:
            asyncio.run(empty_topic())
            runs[name].append(asyncio.run(end_to_end(paths, indexers, code=codes[name])))
    print("| what | images/s | rounds | peak memory, MB | processor seconds for 1,000 pictures |")
    print("|---|---|---|---|---|")
    for name, done in runs.items():
        rates = ", ".join(f"{run.rate:.1f}" for run in done)
        seconds = statistics.median(run.spent["indexers"] for run in done) / len(paths) * 1000
        cells = [
            f"end to end, {indexers} indexer(s), {name}",
            f"{statistics.median(run.rate for run in done):.1f}",
            rates,
            f"{max(run.peak for run in done):.0f}",
            f"{seconds:.1f}",
        ]
        print(f"| {' | '.join(cells)} |")
    print()
    for (old_name, old), (new_name, new) in itertools.combinations(runs.items(), 2):
        shares = [after.rate / before.rate for before, after in zip(old, new, strict=True)]
        low, high = interval(shares)
        median = statistics.median(shares)
        print(f"{new_name} / {old_name}: {median:.3f} ({low:.3f} to {high:.3f} with 95 %)")


async def spec_of() -> ModelSpec:
    """The served model."""
    async with connections(server_settings()) as servers:
        return await servers.embedder.spec("lite")


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--indexers", type=int, default=1)
    parser.add_argument("--size", type=int, nargs=2, default=(1000, 750), metavar="PIXELS")
    parser.add_argument("--distinct", type=int, default=2000, help="number of different crops")
    parser.add_argument("--folder", type=Path, default=Path(".scratch/throughput"))
    parser.add_argument(
        "--against", type=Path, nargs="+", help="other checkouts, the oldest first: old against new"
    )
    chosen = parser.parse_args()
    width, height = chosen.size
    folder = chosen.folder.resolve() / f"{width}x{height}"
    paths = make_images(folder, chosen.pictures, (width, height), chosen.distinct)
    if chosen.against:
        others = [path.resolve() for path in chosen.against]
        compare(paths, chosen.indexers, chosen.rounds, others)
        return
    spec = asyncio.run(spec_of())
    cores = os.cpu_count() or 1
    bare: dict[str, list[float]] = {}
    runs: list[Run] = []
    spent: dict[str, float] = {}
    for _ in range(chosen.rounds):
        bare.setdefault("sequential loop", []).append(sequential(paths, spec))
        for threads in sorted({1, cores}):
            name = f"pool of {cores}, model on {threads} thread(s)"
            before = time.process_time()
            bare.setdefault(name, []).append(overlapped(paths, spec, threads, cores))
            spent[name] = time.process_time() - before
        runs.append(asyncio.run(end_to_end(paths, chosen.indexers)))
    whole = [run.rate for run in runs]
    best = max(statistics.median(rates) for rates in bare.values())
    sequentially = statistics.median(bare["sequential loop"])
    print(f"{len(paths)} photographs of {width} x {height}, {cores} cores, ", end="")
    print(f"median of {chosen.rounds}\n")
    print("| what | images/s | rounds |\n|---|---|---|")
    for name, rates in [*bare.items(), (f"end to end, {chosen.indexers} indexer(s)", whole)]:
        rounds = ", ".join(f"{rate:.1f}" for rate in rates)
        print(f"| {name} | {statistics.median(rates):.1f} | {rounds} |")
    rate = statistics.median(whole)
    print(f"\nend to end / best bare loop: {rate / best:.2f}")
    print(f"end to end / sequential loop: {rate / sequentially:.2f}")
    print(f"peak memory of an indexer: {max(run.peak for run in runs):.0f} MB")
    print("\n| process | processor seconds for 1,000 pictures |\n|---|---|")
    for name, seconds in [*runs[-1].spent.items(), *spent.items()]:
        print(f"| {name} | {seconds / len(paths) * 1000:.1f} |")


if __name__ == "__main__":
    main()
