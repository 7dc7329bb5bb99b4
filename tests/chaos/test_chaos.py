"""Kill, slow down, unmount and lose things at random while pictures stream in.

Afterwards nothing may be wrong: folder, log, index and dead letters are compared as exact sets.

CHAOS_ROUNDS and CHAOS_SEED make it longer and repeatable (`make chaos`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from adapters.bootstrap import connections
from adapters.errors import AdapterError
from adapters.settings import ServerSettings
from consumers.repair.audit import Audit, audit
from consumers.repair.dead_letters import open_letters
from schemas.events import ImageAdded
from schemas.topics import IMAGES
from stack.record import RecordFile
from tests.conftest import ROOT, Servers, run_image_search, servers_of, stack_environment

KILLED = ("indexer-1", "triton", "weaviate", "kafka", "watcher", "indexer-2")
VICTIMS = (
    *KILLED,
    "another indexer",
    "slow triton with rebalances",
    "vanishing mount",
    "lost weaviate folder",
)
ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "4"))
IMAGES_PER_ROUND = int(os.environ.get("CHAOS_PICTURES", "60"))
SETTLE_SECONDS = 600.0
"""After the last loss of Weaviate's folder every picture has to be embedded once more."""

pytestmark = pytest.mark.timeout(600 + 60 * ROUNDS)


@dataclass
class Disk:
    """A file system mounted below the watched folder; its files outlive the mount.

    Without permission to mount, it is a folder, and the whole watched folder vanishes instead.
    """

    folder: Path
    mount_point: Path
    mountable: bool = False

    def attach(self) -> None:
        done = subprocess.run(
            ["mount", "--bind", str(self.folder), str(self.mount_point)],
            capture_output=True,
            check=False,
        )
        self.mountable = done.returncode == 0
        if not self.mountable:
            self.folder = self.mount_point

    def vanish(self) -> None:
        if self.mountable:
            subprocess.run(["umount", "--lazy", str(self.mount_point)], check=True)
        else:
            root = self.mount_point.parent
            root.rename(root.with_name("away"))
            self.folder = root.with_name("away") / self.mount_point.name

    def come_back(self) -> None:
        if self.mountable:
            self.attach()
        else:
            root = self.mount_point.parent
            root.with_name("away").rename(root)
            self.folder = self.mount_point


@dataclass
class Stack:
    """A running system, and the images that its log should list."""

    servers: Servers
    images: Path
    state: Path
    disk: Disk
    chance: random.Random
    expected: dict[str, str] = field(default_factory=dict)
    poison: set[str] = field(default_factory=set)
    written: int = 0

    def settings(self) -> ServerSettings:
        return ServerSettings(
            kafka_bootstrap_servers=self.servers.kafka,
            weaviate_url=self.servers.weaviate_url,
            weaviate_grpc_port=self.servers.weaviate_grpc_port,
            triton_url=self.servers.triton_url,
        )

    def process(self, name: str) -> psutil.Process | None:
        """The process, if it is running; it may still be restarting."""
        record = RecordFile(self.state / "run").read()
        assert record is not None
        for row in record.processes:
            if row.name == name and row.pid is not None and psutil.pid_exists(row.pid):
                return psutil.Process(row.pid)
        return None

    def kill(self, name: str) -> None:
        """SIGKILL, if it runs."""
        if (process := self.process(name)) is not None:
            process.kill()

    def lose_weaviate(self) -> None:
        """Kill Weaviate and delete its data, as if its disk were replaced."""
        process = self.process("weaviate")
        if process is not None:
            process.kill()
            psutil.wait_procs([process], timeout=10)
        folder = self.state / "weaviate"
        # Renamed first, which is quick: its successor may start at any moment.
        lost = self.state / f"lost-weaviate-{self.written}"
        folder.rename(lost)
        shutil.rmtree(lost)

    def path(self, name: str) -> Path:
        """Where a picture is written; the disk can be written to while it is not mounted."""
        inside = name.removeprefix("disk/")
        return self.images / name if inside == name else self.disk.folder / inside

    def write(self, name: str, data: bytes) -> None:
        """Write under a hidden name, then rename, as careful programs do."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = path.with_name(f".{path.name}.part")
        hidden.write_bytes(data)
        hidden.rename(path)

    def burst(self, count: int) -> None:
        """Add, change and remove images, and add files that are not images."""
        for _ in range(count):
            dice = self.chance.random()
            if self.expected and dice < 0.1:
                name = self.chance.choice(sorted(self.expected))
                self.path(name).unlink()
                del self.expected[name]
                continue
            if self.expected and dice < 0.2:
                name = self.chance.choice(sorted(self.expected))
            else:
                folder = "disk" if self.written % 5 == 0 else f"folder-{self.written % 7}"
                name = f"{folder}/{self.written}.jpg"
            self.written += 1
            if dice > 0.97:
                name = f"poison/{self.written}.jpg"
                self.poison.add(name)
                self.write(name, f"no picture {self.written}".encode())
                continue
            data = self.random_jpeg()
            self.expected[name] = hashlib.sha256(data).hexdigest()
            self.write(name, data)

    def random_jpeg(self) -> bytes:
        buffer = io.BytesIO()
        pixels = np.frombuffer(self.chance.randbytes(8 * 6 * 3), np.uint8).reshape(6, 8, 3)
        Image.fromarray(pixels).resize((320, 240)).save(buffer, "JPEG")
        return buffer.getvalue()


@pytest.fixture
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    images, state = tmp_path_factory.mktemp("images"), tmp_path_factory.mktemp("chaos")
    disk = Disk(tmp_path_factory.mktemp("disk"), images / "disk")
    disk.mount_point.mkdir()
    disk.attach()
    seed = int(os.environ.get("CHAOS_SEED", str(random.SystemRandom().randrange(10**6))))
    print(f"CHAOS_SEED={seed} CHAOS_ROUNDS={ROUNDS}")
    environment = stack_environment(state, images)
    run_image_search(environment, "up", "--detach", "--indexers", "2")
    try:
        yield Stack(servers_of(environment), images, state, disk, random.Random(seed))
    finally:
        run_image_search(environment, "down")
        if disk.mountable:
            disk.vanish()


def rounds(chance: random.Random) -> Iterator[str]:
    """Victims in random order; each occurs once before any is repeated."""
    order: list[str] = []
    for _ in range(ROUNDS):
        if not order:
            order = chance.sample(VICTIMS, len(VICTIMS))
        yield order.pop()


async def test_nothing_is_lost_when_processes_are_killed_at_random(stack: Stack) -> None:
    await asyncio.to_thread(stack.burst, IMAGES_PER_ROUND)
    for number, victim in enumerate(rounds(stack.chance)):
        started = time.monotonic()
        writing = asyncio.create_task(asyncio.to_thread(stack.burst, IMAGES_PER_ROUND))
        await asyncio.sleep(stack.chance.uniform(0.0, 1.0))
        if victim == "another indexer":
            await come_and_go(stack)
        elif victim == "slow triton with rebalances":
            await slow_down(stack)
        elif victim == "vanishing mount":
            await vanish(stack, writing)
        elif victim == "lost weaviate folder":
            await asyncio.to_thread(stack.lose_weaviate)
        else:
            stack.kill(victim)
        await writing
        await asyncio.sleep(stack.chance.uniform(0.5, 4.0))
        print(f"round {number + 1}: {victim} ({time.monotonic() - started:.1f} s)")
    result = await settled(stack)
    print(
        f"{stack.written} written, {result.agreed} agree, {len(stack.poison)} poisonous: "
        "none missing, none stale, none orphaned"
    )


async def come_and_go(stack: Stack) -> None:
    """Another member joins the group, and leaves it again."""
    settings = stack.settings()
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "WEAVIATE_URL": settings.weaviate_url,
        "WEAVIATE_GRPC_PORT": str(settings.weaviate_grpc_port),
        "TRITON_URL": settings.triton_url,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "consumers",
        "indexing",
        cwd=ROOT,
        env={**os.environ, **environment},
        stderr=subprocess.DEVNULL,
    )
    await asyncio.sleep(stack.chance.uniform(3.0, 8.0))
    process.terminate()
    await asyncio.wait_for(process.wait(), 60)


async def slow_down(stack: Stack) -> None:
    """Triton runs for a twentieth of the time while members join the group and leave it."""
    rebalancing = asyncio.create_task(come_and_go(stack))
    while not rebalancing.done():
        if (process := stack.process("triton")) is None:
            await asyncio.sleep(0.1)
            continue
        with contextlib.suppress(psutil.NoSuchProcess):
            everything = [process, *process.children(recursive=True)]
            with contextlib.ExitStack() as resumed:
                for each in everything:
                    each.suspend()
                    resumed.callback(resume, each)
                await asyncio.sleep(0.95)
        await asyncio.sleep(0.05)
    await rebalancing


def resume(process: psutil.Process) -> None:
    """Resume a stopped process, unless it was killed meanwhile."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.resume()


async def vanish(stack: Stack, writing: asyncio.Task[None]) -> None:
    """Unmount the disk for some seconds; its files may change meanwhile."""
    if not stack.disk.mountable:
        await writing  # The folder that is written to is about to get another name.
    await asyncio.to_thread(stack.disk.vanish)
    try:
        await asyncio.sleep(stack.chance.uniform(2.0, 6.0))
    finally:
        await asyncio.to_thread(stack.disk.come_back)


async def settled(stack: Stack) -> Audit:
    """Wait until log, collection and folder agree, then check them completely."""
    deadline = time.monotonic() + SETTLE_SECONDS
    why: object = None
    while time.monotonic() < deadline:
        try:
            result, letters = await look(stack)
            why = verdict(stack, result, letters)
            if why is None:
                return result
        except (AdapterError, AssertionError) as error:
            why = error
        await asyncio.sleep(2)
    raise AssertionError(f"not settled after {SETTLE_SECONDS} s: {why}")


async def look(stack: Stack) -> tuple[Audit, set[str]]:
    settings = stack.settings()
    async with connections(settings) as servers:
        collection = await servers.index.active()
        assert collection is not None
        group = collection.group
        before = await servers.groups.progress(IMAGES, group)
        result = await audit(servers.log, servers.index, collection, before.has_read)
        return result, {letter.event.image_id for letter in await open_letters(servers.log)}


def verdict(stack: Stack, result: Audit, letters: set[str]) -> str | None:
    """The first difference from the expected state; empty if there is none."""
    reported = {
        image_id: found.change.sha256
        for image_id, found in result.latest.items()
        if isinstance(found.change, ImageAdded) and image_id not in stack.poison
    }
    if result.waiting:
        return f"{len(result.waiting)} waiting"
    if reported != stack.expected:
        differences = set(reported.items()) ^ set(stack.expected.items())
        return f"the log differs from the folder: {differences}"
    if not result.is_clean or result.agreed != len(stack.expected):
        return f"missing {result.missing}, stale {result.stale}, orphaned {result.orphaned}"
    if letters != stack.poison:
        return f"dead letters differ: {letters ^ stack.poison}"
    return None
