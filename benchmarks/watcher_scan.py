"""First scan, restart and memory of the watcher on many small files, against bare loops.

`python -m benchmarks.watcher_scan --files 100000` starts a broker of its own, and appends a table
to `benchmarks/results/watcher_scan.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psutil

from adapters.log.kafka import KafkaEventLog
from benchmarks.bare_watcher import scan
from schemas.topics import IMAGES
from tests.support.watcher_processes import WatcherProcess, running_broker

ROUNDS = 3
RESULTS = Path(__file__).parent / "results" / "watcher_scan.md"


def make(root: Path, files: int, size: int) -> None:
    """Make files of random content, 1,000 in each folder, with yesterday's date."""
    block = random.Random(1).randbytes(size)
    yesterday = time.time() - 86400
    for number in range(files):
        folder = root / f"{number // 1000:04}"
        if number % 1000 == 0:
            folder.mkdir(parents=True)
        path = folder / f"{number}.jpg"
        path.write_bytes(number.to_bytes(8, "big") + block[8:])
        os.utime(path, (yesterday, yesterday))
    os.sync()  # Files of yesterday would be on the disk already.


def scan_stat_hash(root: Path) -> int:
    """The bare loop: scan, stat and hash each file."""
    count = 0
    pending = [str(root)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                    continue
                entry.stat(follow_symlinks=False)
                with open(entry.path, "rb") as file:  # noqa: PTH123 (the least overhead)
                    hashlib.sha256(file.read()).digest()
                count += 1
    return count


def scan_stat(root: Path) -> int:
    """A scan with the stat call that finds changes."""
    count = 0
    pending = [str(root)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    entry.stat(follow_symlinks=False)
                    count += 1
    return count


def read_topic(broker: str) -> int:
    """All records of `images`, undecoded."""

    async def read() -> int:
        async with KafkaEventLog(broker) as log:
            return len([None async for _ in log.read_all(IMAGES)])

    return asyncio.run(read())


def bare_restart(root: Path, broker: str, files: int, *options: str) -> None:
    """Run the minimum work as a process of its own."""
    script = str(Path(__file__).with_name("bare_watcher.py"))
    command = [sys.executable, script, str(root), broker, *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.split() == [str(files), str(files)], done.stdout


def timed(work: Callable[[], object]) -> float:
    """Seconds that the work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def peak_mib(watcher: WatcherProcess) -> float:
    """Highest resident memory so far, in MiB."""
    assert watcher.process is not None
    status = Path(f"/proc/{watcher.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measure(files: int, size: int, work: Path) -> list[tuple[str, str]]:
    """The rows of the table."""
    root, state = work / "images", work / "state"
    root.mkdir()
    state.mkdir()
    make(root, files, size)
    assert scan_stat_hash(root) == files  # and warms the cache for both
    bare = min(timed(lambda: scan_stat_hash(root)) for _ in range(2))
    with running_broker(work / "broker") as broker:
        watcher = WatcherProcess(broker.address, root, state)
        try:
            started = time.perf_counter()
            watcher.start(scanned=False)
            watcher.wait_for(lambda s: s.get("last_reconcile") is not None, 3600)
            first, first_peak = time.perf_counter() - started, peak_mib(watcher)
            first_cpu = sum(psutil.Process(watcher.process.pid).cpu_times()[:2])  # type: ignore[union-attr]
            assert watcher.status()["published"] == files, watcher.status()
            assert watcher.stop() == 0

            bare_scan = min(timed(lambda: scan(str(root))) for _ in range(3))
            stat = min(timed(lambda: scan_stat(root)) for _ in range(3))
            topic = min(timed(lambda: read_topic(broker.address)) for _ in range(2))
            bare_restarts, comparing, restarts = [], [], []
            for _ in range(ROUNDS):
                bare_restarts.append(timed(lambda: bare_restart(root, broker.address, files)))
                comparing.append(
                    timed(lambda: bare_restart(root, broker.address, files, "--compare"))
                )
                started = time.perf_counter()
                watcher.start(scanned=False)
                watcher.wait_for(lambda s: s.get("last_reconcile") is not None, 3600)
                restarts.append(time.perf_counter() - started)
                again_peak = peak_mib(watcher)
                assert watcher.status()["published"] == 0
                resident = psutil.Process(watcher.process.pid).memory_info().rss / 2**20  # type: ignore[union-attr]
                assert watcher.stop() == 0
            bare_again, again = statistics.median(bare_restarts), statistics.median(restarts)
            bare_compared = statistics.median(comparing)
        finally:
            watcher.kill()
    return [
        ("bare loop: scan, stat, hash", f"{bare:.2f} s ({files / bare:,.0f} files/s)"),
        (
            "first scan, process start to all published",
            f"{first:.2f} s ({files / first:,.0f} files/s), {bare / first:.2f} of the bare loop",
        ),
        ("first scan: processor time of the watcher", f"{first_cpu:.1f} s"),
        ("first scan: peak resident memory", f"{first_peak:.0f} MiB"),
        ("bare `os.scandir` scan", f"{bare_scan:.2f} s"),
        ("the same with `stat`", f"{stat:.2f} s"),
        ("reading the topic, undecoded", f"{topic:.2f} s"),
        ("bare process: scan, topic undecoded", f"{bare_again:.2f} s"),
        ("bare process: topic parsed into a map, files compared with it", f"{bare_compared:.2f} s"),
        (
            "restart with nothing changed, process start to compared",
            f"{again:.2f} s, {again / bare_again:.2f} and {again / bare_compared:.2f} times these",
        ),
        ("restart: peak / then resident memory", f"{again_peak:.0f} / {resident:.0f} MiB"),
    ]


def main() -> None:
    """Measure and append to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--bytes", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(options.files, options.bytes, Path(folder))
    lines = [
        f"## {options.files:,} files of {options.bytes:,} bytes, "
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "",
        "| what | measured |",
        "|---|---|",
        *(f"| {what} | {measured} |" for what, measured in rows),
        "",
    ]
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        print(*lines, sep="\n", file=file)
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
