"""Pictures indexed per second, end to end, against the best bare loop on the same machine.

    ./image-search up --detach --servers-only
    python -m benchmarks.indexing_throughput --pictures 2000 --rounds 3

A bare loop has no servers: one process that decodes the same files, in a pool on every core, while
the same ONNX model runs on what is decoded. The best of several thread counts is what counts.
The rounds alternate, so that a machine that is busy with other things is unfair to both alike.
With `--against FOLDER` the indexer of another checkout (the same environment must do for both)
takes turns with this one, and nothing else is measured: old against new.

The profile tells which process took the processors' time, in seconds for 1,000 pictures.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnxruntime
import psutil
from aiokafka.admin import AIOKafkaAdminClient
from PIL import Image

from adapters.connections import connections
from adapters.consumer_groups import delete_group
from adapters.event_log import Message
from adapters.model_spec import ModelSpec
from adapters.picture import decode
from adapters.provision import create_topic
from adapters.retry import until_available
from benchmarks.families import family, proportional_bytes
from benchmarks.intervals import interval
from cli.servers import server_settings
from schemas.events import ImageAdded
from schemas.topics import IMAGES
from stack.record import RecordFile
from stack.settings import StackSettings

ROOT = Path(__file__).parents[1]
BATCH = 32
JOIN_SECONDS = 12.0
"""In which indexers start and share the partitions."""


@dataclass(frozen=True)
class Run:
    """One run: images per second, peak memory of an indexer in MB, processor seconds by process."""

    rate: float
    peak: float
    spent: Mapping[str, float]


def make_pictures(folder: Path, count: int, size: tuple[int, int], distinct: int) -> list[Path]:
    """Photographs of this size, crops of the samples; no two files have the same bytes.

    After `distinct` crops the same come again, each with a number behind its end, where no decoder
    looks: content decides what is inferred, and cutting thousands of large ones would take long.
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


def session(threads: int) -> onnxruntime.InferenceSession:
    """The model as Triton runs it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        str(ROOT / "triton_models/lite_image/1/model.onnx"),
        options,
        providers=["CPUExecutionProvider"],
    )


def batches(paths: list[Path]) -> Iterator[list[Path]]:
    for start in range(0, len(paths), BATCH):
        yield paths[start : start + BATCH]


def sequential(paths: list[Path], spec: ModelSpec) -> float:
    """Read, decode, infer, one after the other; pictures per second."""
    model = session(os.cpu_count() or 1)
    started = time.perf_counter()
    for batch in batches(paths):
        pixels = np.stack([decode(path.read_bytes(), spec).pixels for path in batch])
        model.run(["EMBEDDING"], {model.get_inputs()[0].name: pixels})
    return len(paths) / (time.perf_counter() - started)


def overlapped(paths: list[Path], spec: ModelSpec, threads: int, workers: int) -> float:
    """Decode in a pool while the model runs; pictures per second."""
    model = session(threads)
    name = model.get_inputs()[0].name

    def one(path: Path) -> np.ndarray:
        pixels: np.ndarray = decode(path.read_bytes(), spec).pixels
        return pixels

    started = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        ahead: list[list[Future[np.ndarray]]] = []
        rest = batches(paths)
        for _ in range(3):
            if batch := next(rest, None):
                ahead.append([pool.submit(one, path) for path in batch])
        while ahead:
            pixels = np.stack([future.result() for future in ahead.pop(0)])
            if batch := next(rest, None):
                ahead.append([pool.submit(one, path) for path in batch])
            model.run(["EMBEDDING"], {name: pixels})
    return len(paths) / (time.perf_counter() - started)


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
    """User and system time that the processes and their descendants have taken so far."""
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
    async with connections(settings) as servers:
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
        # One client for all the asking, so that it takes nothing from what is measured.
        admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
        await admin.start()

        async def caught_up() -> bool:
            offsets = await admin.list_consumer_group_offsets(group)
            return sum(max(0, meta.offset) for meta in offsets.values()) >= total

        # A new process for each round: one that remembers would have nothing to infer.
        told, warm = messages(paths, "throughput"), messages(paths[:1], "warm")
        await servers.index.delete(collection, [message.key for message in told + warm])
        processes = await asyncio.to_thread(launch, indexers, environment, code)
        try:
            await asyncio.sleep(JOIN_SECONDS)
            await servers.log.publish(IMAGES, warm)
            total += len(warm)
            await until(caught_up)
            running = {**server_processes(), "indexers": [each.pid for each in processes]}
            before, started = processor_seconds(running), time.perf_counter()
            await servers.log.publish(IMAGES, told)
            total += len(told)
            peak = await until(caught_up, processes)
            took = time.perf_counter() - started
            after = processor_seconds(running)
            stored = {image_id async for image_id, _ in servers.index.stored(collection)}
            assert stored.issuperset(message.key for message in told)
            spent = {name: after[name] - before[name] for name in running}
            return Run(len(paths) / took, peak / 1e6, spent)
        finally:
            # Or the next watcher would find that thousands of pictures are gone at once.
            gone = [Message(message.key, None) for message in told + warm]
            await servers.log.publish(IMAGES, gone)
            await admin.close()
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(60)


def launch(count: int, environment: dict[str, str], code: Path) -> list[subprocess.Popen[bytes]]:
    """Start that many indexers."""
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
    """Wait until `check` holds; the most bytes that a watched process, its children included, took
    meanwhile (proportional set size)."""
    peak = 0.0
    while not await check():
        peak = max([peak, *(proportional_bytes(psutil.Process(each.pid)) for each in watched)])
        await asyncio.sleep(0.2)
    return peak


async def empty_topic() -> None:
    """Make the topic of pictures anew, without the group's offsets.

    A version that finds offsets of an earlier one may read the whole topic again.
    """
    settings = server_settings()
    servers = settings.kafka_bootstrap_servers
    async with connections(settings) as connected:
        spec = await connected.embedder.spec("lite")
        group = (await connected.index.ensure_collection(spec)).group
    # Members that have just ended may still be counted for a moment.
    await until_available(lambda: delete_group(servers, group), what="delete the group")
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()

    async def is_gone() -> bool:
        return IMAGES.name not in await admin.list_topics()

    try:
        await admin.delete_topics([IMAGES.name])
        await until(is_gone)
    finally:
        await admin.close()
    await create_topic(servers, IMAGES)


def compare(paths: list[Path], indexers: int, rounds: int, other: Path) -> None:
    """Let the indexers of both checkouts take turns, and print a table in Markdown."""
    runs: dict[str, list[Run]] = {"before": [], "now": []}
    codes = {"before": other, "now": ROOT}
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
    shares = [new.rate / old.rate for old, new in zip(runs["before"], runs["now"], strict=True)]
    low, high = interval(shares)
    print(f"\nnow / before: {statistics.median(shares):.3f} ({low:.3f} to {high:.3f} with 95 %)")


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
    parser.add_argument("--distinct", type=int, default=2000, help="crops that differ")
    parser.add_argument("--folder", type=Path, default=Path(".scratch/throughput"))
    parser.add_argument("--against", type=Path, help="another checkout: old against new")
    chosen = parser.parse_args()
    width, height = chosen.size
    folder = chosen.folder.resolve() / f"{width}x{height}"
    paths = make_pictures(folder, chosen.pictures, (width, height), chosen.distinct)
    if chosen.against:
        compare(paths, chosen.indexers, chosen.rounds, chosen.against.resolve())
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
