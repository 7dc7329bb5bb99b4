"""Indexers as processes, connected to their servers by a proxy that can be cut."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import numpy as np
from PIL import Image

from adapters.embedder.triton import TritonEmbedder
from adapters.index.port import Collection
from adapters.index.weaviate import WeaviateIndex
from adapters.log.kafka import KafkaEventLog
from adapters.log.port import Message
from schemas.codec import decode
from schemas.events import DeadLetter, ImageAdded
from schemas.topics import IMAGES, IMAGES_DLQ
from tests.conftest import ROOT, Servers

WHEN = datetime(2026, 1, 5, tzinfo=UTC)


class TcpProxy:
    """A TCP relay to one server; cut, it drops what is open and refuses what is new.

    `delay` in seconds holds up each piece of what the server answers.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.delay = 0.0

    async def mend(self) -> None:
        """Listen, on the same port each time."""
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Close all connections."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await asyncio.sleep(0.05)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, far_writer}
        try:
            await asyncio.gather(
                _pump(reader, far_writer), _pump(far_reader, writer, lambda: self.delay)
            )
        finally:
            for each in (writer, far_writer):
                self._open.discard(each)
                each.transport.abort()


async def _pump(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    delay: Callable[[], float] = lambda: 0.0,
) -> None:
    try:
        while data := await reader.read(1 << 16):
            await asyncio.sleep(delay())
            writer.write(data)
            await writer.drain()
        writer.transport.abort()
    except OSError:
        writer.transport.abort()


@dataclass
class IndexerProcess:
    """One `python -m consumers indexing`, which can be killed and restarted."""

    environment: dict[str, str]
    log: Path
    ready_file: Path
    module: tuple[str, ...] = ("consumers", "indexing")
    process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        """Start without waiting."""
        self.ready_file.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.module],
                cwd=ROOT,
                env={**os.environ, **self.environment, "READY_FILE": str(self.ready_file)},
                stdout=log,
                stderr=log,
            )

    async def start(self) -> None:
        """Start, and wait until it has joined its group."""
        self.launch()
        await eventually(self._ready, seconds=90, what=lambda: self.log.read_text()[-3000:])

    async def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        return self.ready_file.exists()

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    async def stop(self) -> int:
        """SIGTERM; its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait, 40)


@dataclass
class Workbench:
    """Images under one unique prefix, their topic, and the collection that should hold them."""

    servers: Servers
    folder: Path
    log: KafkaEventLog
    index: WeaviateIndex
    collection: Collection
    triton: TcpProxy
    weaviate: TcpProxy
    weaviate_grpc: TcpProxy
    prefix: str = field(default_factory=lambda: uuid4().hex[:8])
    indexers: list[IndexerProcess] = field(default_factory=list)
    expected: dict[str, str] = field(default_factory=dict)

    def indexer(self, **settings: object) -> IndexerProcess:
        """Another member of the group, connected through the proxies."""
        number = len(self.indexers)
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": self.servers.kafka,
            "TRITON_URL": f"http://127.0.0.1:{self.triton.port}",
            "WEAVIATE_URL": f"http://127.0.0.1:{self.weaviate.port}",
            "WEAVIATE_GRPC_PORT": str(self.weaviate_grpc.port),
            "RETRY_MAXIMUM": "0.5",
            **{name.upper(): str(value) for name, value in settings.items()},
        }
        process = IndexerProcess(
            environment, self.folder / f"indexer-{number}.log", self.folder / f"ready-{number}"
        )
        self.indexers.append(process)
        return process

    def put_image(self, name: str) -> tuple[str, bytes]:
        """Write an image with unique content; returns its id and bytes."""
        image_id = f"{self.prefix}/{name}.jpg"
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8]))
        buffer = io.BytesIO()
        pixels = rng.integers(0, 255, (6, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((320, 240)).save(buffer, "JPEG")
        return image_id, self.file(image_id, buffer.getvalue())

    def file(self, image_id: str, data: bytes) -> bytes:
        path = self.folder / image_id
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return data

    def added(self, image_id: str, data: bytes) -> Message:
        """The event for this content; it is expected in the index from now on."""
        event = ImageAdded(
            image_id=image_id,
            uri=(self.folder / image_id).as_uri(),
            sha256=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
            media_type="image/jpeg",
            modified_at=WHEN,
            added_at=datetime.now(UTC),
        )
        self.expected[image_id] = event.sha256
        return Message(image_id, event)

    def removed(self, image_id: str) -> Message:
        self.expected.pop(image_id, None)
        return Message(image_id, None)

    def put_images(self, count: int, name: str = "p") -> list[Message]:
        return [self.added(*self.put_image(f"{name}{number}")) for number in range(count)]

    async def publish(self, messages: Sequence[Message]) -> None:
        await self.log.publish(IMAGES, messages)

    async def indexed(self) -> dict[str, str]:
        """id -> hash of what the collection holds under our prefix."""
        return {
            image_id: sha256
            async for image_id, sha256 in self.index.stored(self.collection)
            if image_id.startswith(self.prefix)
        }

    async def settles(self, seconds: float = 60.0) -> None:
        """Wait until the collection holds exactly what is expected."""

        async def equal() -> bool:
            return await self.indexed() == self.expected

        await eventually(equal, seconds=seconds, what=self.log_tails)

    async def dead_letters(self) -> list[DeadLetter]:
        found = [decode(DeadLetter, r.value) async for r in self.log.read_all(IMAGES_DLQ)]
        return [letter for letter in found if letter.image_id.startswith(self.prefix)]

    def log_tails(self) -> str:
        """The last lines that each indexer logged."""
        return "\n".join(
            f"== {each.log.name}\n{each.log.read_text()[-2500:]}"
            for each in self.indexers
            if each.log.exists()
        )


@asynccontextmanager
async def workbench(servers: Servers, folder: Path) -> AsyncIterator[Workbench]:
    """A workbench whose indexers are killed at the end."""
    proxies = (
        TcpProxy(urlsplit(servers.triton_url).port or 0),
        TcpProxy(urlsplit(servers.weaviate_url).port or 0),
        TcpProxy(servers.weaviate_grpc_port),
    )
    for proxy in proxies:
        await proxy.mend()
    embedder = TritonEmbedder(servers.triton_url)
    index = WeaviateIndex(servers.weaviate_url, grpc_port=servers.weaviate_grpc_port)
    async with KafkaEventLog(servers.kafka) as log:
        collection = await index.ensure_collection(await embedder.spec("lite"))
        bench = Workbench(servers, folder, log, index, collection, *proxies)
        try:
            yield bench
        finally:
            for indexer in bench.indexers:
                indexer.kill()
            for proxy in proxies:
                await proxy.cut()
            await asyncio.gather(embedder.close(), index.close())


async def eventually(
    check: Callable[[], Awaitable[bool]],
    *,
    seconds: float,
    what: Callable[[], str],
) -> None:
    """Wait until `check` is true; the error contains `what()` if it never is."""
    deadline = time.monotonic() + seconds
    while not await check():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s\n{what()}")
        await asyncio.sleep(0.05 + random.random() * 0.05)
