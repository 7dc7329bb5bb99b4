"""An hour of mixed load with outages, in which no process may grow.

    make soak            # SOAK_MINUTES=60

A separate system (its own ports, state and pictures) is kept busy: pictures are added, changed and
removed, some of them hostile; clients search, upload, rate, and send files that are no pictures;
members join and leave the group of indexers; servers are killed, or stopped for some seconds. Our
own processes are never killed. Memory, threads, sockets and open files of each process are sampled,
checked, and plotted.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil
from PIL import Image

from benchmarks.soak_plot import plot
from benchmarks.soak_samples import Sample, growths, sample, table, write
from stack.record import RecordFile
from tests.conftest import ROOT, run_image_search, stack_environment
from tests.support.corpus_cases import INDEXED, cases

SAMPLE_SECONDS = 10.0
MAX_IMAGES = 600
WORDS = ("cat", "tennis", "a red car", "bird on a branch", "fruit", "mountains", "猫", "", "?")
EXPECTED = frozenset({200, 201, 304, 404, 409, 413, 415, 422, 429, 503, 504})
"""Answers that a busy system with hostile clients may give; 500 is not among them."""


@dataclass
class Soak:
    """The running system, and counts of what was done."""

    environment: dict[str, str]
    chance: random.Random
    samples: list[Sample] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    answers: Counter[int] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)

    @property
    def images(self) -> Path:
        return Path(self.environment["IMAGES_DIR"])

    @property
    def run(self) -> Path:
        return Path(self.environment["STATE_DIR"]) / "run"

    def process(self, name: str) -> psutil.Process | None:
        record = RecordFile(self.run).read()
        for row in record.processes if record else []:
            if row.name == name and row.pid is not None and psutil.pid_exists(row.pid):
                return psutil.Process(row.pid)
        return None

    def jpeg(self, edge: int = 320) -> bytes:
        buffer = io.BytesIO()
        pixels = np.frombuffer(self.chance.randbytes(8 * 6 * 3), np.uint8).reshape(6, 8, 3)
        Image.fromarray(pixels).resize((edge, edge * 3 // 4)).save(buffer, "JPEG")
        return buffer.getvalue()


async def change_images(soak: Soak) -> None:
    """Add some pictures, change one, and remove the oldest."""
    for _ in range(6):
        number = soak.done["pictures written"]
        path = soak.images / f"folder-{number % 5}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(soak.jpeg())
        soak.written.append(path)
        soak.done["pictures written"] += 1
    soak.chance.choice(soak.written).write_bytes(soak.jpeg())
    while len(soak.written) > MAX_IMAGES:
        soak.written.pop(0).unlink(missing_ok=True)
        soak.done["pictures removed"] += 1


async def add_hostile_file(soak: Soak) -> None:
    """Add a hostile file with some random bytes."""
    case = soak.chance.choice(HOSTILE)
    data = bytearray(case.data)
    for _ in range(3):
        if data:
            data[soak.chance.randrange(len(data))] = soak.chance.randrange(256)
    path = soak.images / "hostile" / f"{soak.done['hostile files']}-{case.name}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(data))
    soak.written.append(path)
    soak.done["hostile files"] += 1


HOSTILE = [case for case in cases() if case.outcome != INDEXED] + list(cases())


async def join_and_leave(soak: Soak) -> None:
    """Let one more indexer join the group for some seconds."""
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{soak.environment['KAFKA_PORT']}",
        "WEAVIATE_URL": f"http://127.0.0.1:{soak.environment['WEAVIATE_PORT']}",
        "WEAVIATE_GRPC_PORT": soak.environment["WEAVIATE_GRPC_PORT"],
        "TRITON_URL": f"http://127.0.0.1:{soak.environment['TRITON_PORT']}",
        "IMAGES_DIR": soak.environment["IMAGES_DIR"],
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "consumers",
        "indexing",
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await asyncio.sleep(soak.chance.uniform(6.0, 15.0))
    finally:
        process.terminate()
        await process.wait()
    soak.done["rebalances"] += 2


async def interrupt_server(soak: Soak) -> None:
    """Kill a server, or stop it for some seconds."""
    kinds = ("kill kafka", "kill weaviate", "kill triton", "stop triton", "stop weaviate")
    kind = kinds[soak.done["outages"] % len(kinds)]
    how, name = kind.split()
    if (process := soak.process(name)) is None:
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        if how == "kill":
            process.kill()
        else:
            everything = [process, *process.children(recursive=True)]
            try:
                for each in everything:
                    each.suspend()
                await asyncio.sleep(6.0)
            finally:
                for each in everything:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        each.resume()
    soak.done["outages"] += 1
    soak.done[kind] += 1


async def send_search(soak: Soak, client: httpx.AsyncClient) -> None:
    """Send one valid or invalid request."""
    image = base64.b64encode(soak.jpeg(soak.chance.choice((64, 640, 1600)))).decode()
    word = soak.chance.choice(WORDS)
    bodies: list[object] = [
        {"text": word},
        {"text": f"{word} {soak.chance.randrange(10**6)}", "limit": 100},
        {"image": image},
        {"terms": [{"text": word or "x", "weight": 2}, {"image": image, "weight": -1}]},
        {"terms": [{"image": image}] * 16},
        {"image": base64.b64encode(soak.chance.randbytes(2000)).decode()},
        {"image": base64.b64encode(bytes(soak.chance.choice(HOSTILE).data)).decode()},
        {"text": word, "filters": {"folder": "folder-1/"}},
        [],
    ]
    body = soak.chance.choice(bodies)
    answer = await send(soak, client.post("/api/v1/search-image", json=body))
    if answer is not None and answer.status_code == 200:
        found = answer.json()
        rating = {"user_feedback": soak.chance.randint(1, 10), "jwt": found["jwt"]}
        await send(soak, client.post("/api/v1/create-feedback", json=rating))
        for match in found["matches"][:2]:
            await send(soak, client.get(f"/thumbnails/{match['image_name']}"))


async def view_pages(soak: Soak, client: httpx.AsyncClient) -> None:
    """Send the requests of the pages, and an upload."""
    for path in ("/api/v1/state", "/api/v1/analytics/dashboard", "/metrics", "/"):
        await send(soak, client.get(path))
    name = f"{soak.done['answers']}.jpg"
    files = {"image": (name, soak.jpeg(), "image/jpeg")}
    answer = await send(soak, client.post("/api/v1/images", files=files))
    if answer is not None and answer.status_code == 201:
        soak.written.append(soak.images / answer.json()["image_name"])


async def send(soak: Soak, request: Awaitable[httpx.Response]) -> httpx.Response | None:
    """The answer, which is counted; None if there is none."""
    try:
        answer = await request
    except httpx.HTTPError as error:
        soak.unexpected.append(f"{type(error).__name__}: {error}")
        return None
    soak.done["answers"] += 1
    soak.answers[answer.status_code] += 1
    if answer.status_code not in EXPECTED:
        soak.unexpected.append(
            f"{answer.status_code} {answer.request.url.path} {answer.text[:200]}"
        )
    return answer


async def repeated(action: Callable[[], Awaitable[None]], seconds: float, until: float) -> None:
    """Repeat the action with this pause until this time of `time.monotonic()`."""
    while time.monotonic() < until:
        await action()
        await asyncio.sleep(seconds)


async def watch(soak: Soak, started: float, until: float) -> None:
    while time.monotonic() < until:
        soak.samples += await asyncio.to_thread(sample, soak.run, started)
        await asyncio.sleep(SAMPLE_SECONDS)


async def measure(soak: Soak, minutes: float) -> None:
    """Keep the system busy for this long."""
    started = time.monotonic()
    until = started + minutes * 60
    address = f"http://127.0.0.1:{soak.environment['GATEWAY_PORT']}"
    client = httpx.AsyncClient(base_url=address, timeout=60)
    async with client, asyncio.TaskGroup() as group:
        group.create_task(watch(soak, started, until))
        for action, pause in (
            (lambda: change_images(soak), 3.0),
            (lambda: add_hostile_file(soak), 5.0),
            (lambda: join_and_leave(soak), 45.0),
            (lambda: interrupt_server(soak), 100.0),
            (lambda: view_pages(soak, client), 20.0),
            (lambda: send_search(soak, client), 0.5),
            (lambda: send_search(soak, client), 0.5),
        ):
            group.create_task(repeated(action, pause, until))


def report(soak: Soak, minutes: float) -> tuple[str, bool]:
    """The result in Markdown, and whether it is good."""
    found = growths(soak.samples)
    flat = all(each.is_flat for each in found) and not soak.unexpected
    lines = [
        f"`make soak`, {minutes:g} minutes, {platform.machine()}, {os.cpu_count()} cores.",
        "",
        "Medians of the second and of the last quarter of the run, children included:",
        "",
        table(found, soak.samples),
        "",
        "Done: " + ", ".join(f"{count} {what}" for what, count in sorted(soak.done.items())) + ".",
        "Answers: " + ", ".join(f"{c} of {s}" for s, c in sorted(soak.answers.items())) + ".",
        f"Unexpected answers: {len(soak.unexpected)}.",
        *(f"- {each}" for each in soak.unexpected[:20]),
    ]
    return "\n".join(lines), flat


def main() -> None:
    """Run, write `soak.csv` and `soak.png` into the folder, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=20261127)
    parser.add_argument("--to", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        images, state = Path(folder, "images"), Path(folder, "state")
        images.mkdir()
        environment = stack_environment(state, images)
        run_image_search(environment, "up", "--detach", "--indexers", "2")
        soak = Soak(environment, random.Random(arguments.seed))
        try:
            asyncio.run(measure(soak, arguments.minutes))
            status = run_image_search(environment, "status", "--json", check=False).stdout
        finally:
            run_image_search(environment, "down")
    write(arguments.to / "soak.csv", soak.samples)
    plot(soak.samples, arguments.to / "soak.png")
    text, flat = report(soak, arguments.minutes)
    print(text)
    rows = json.loads(status).get("processes", [])
    print("\nrestarts: " + ", ".join(f"{row['name']} {row.get('restarts', 0)}" for row in rows))
    sys.exit(0 if flat else 1)


if __name__ == "__main__":
    main()
