"""A Kafka broker and a watcher as processes of a test's own, to be killed and started again."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from adapters.errors import Unavailable
from adapters.log.kafka import KafkaEventLog
from adapters.provision import provision_topics
from adapters.retry import until_available
from adapters.settings import ServerSettings
from schemas.codec import decode, decode_image_change
from schemas.events import DeadLetter, ImageAdded
from schemas.topics import IMAGES, IMAGES_DLQ, TOPICS
from stack.install.preparation import Cache
from stack.processes import kafka as kafka_spec
from stack.settings import StackSettings
from stack.tcp_ports import free_ports

ROOT = Path(__file__).parents[2]


class Broker:
    """One Kafka node with its own data folder."""

    def __init__(self, state: Path) -> None:
        port, controller = free_ports(2)
        settings = StackSettings(
            state_dir=state,
            kafka_port=port,
            kafka_controller_port=controller,
            kafka_heap="256m",
        )
        settings.logs.mkdir(parents=True, exist_ok=True)
        self._spec = kafka_spec(settings, Cache(settings.cache, print))
        self.address = f"127.0.0.1:{port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, again on what it left; returns when it answers and the topics exist."""
        if self._spec.prepare is not None:
            self._spec.prepare()
        with self._spec.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._spec.command, stdout=log, stderr=log, start_new_session=True
            )
        asyncio.run(self._wait())

    async def _wait(self) -> None:
        settings = ServerSettings(kafka_bootstrap_servers=self.address)
        await until_available(
            lambda: provision_topics(settings), what="Kafka", maximum=0.5, give_up_after=60
        )

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal and wait for the end."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(60)
            self.process = None

    def empty(self) -> None:
        """Delete and create all topics."""
        asyncio.run(self._empty())

    async def _empty(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.address)
        await admin.start()
        try:
            await admin.delete_topics([topic.name for topic in TOPICS])
            while set(await admin.list_topics()) & {topic.name for topic in TOPICS}:
                await asyncio.sleep(0.05)
        finally:
            await admin.close()
        await self._wait()


@contextmanager
def running_broker(state: Path) -> Iterator[Broker]:
    """A broker while the block runs."""
    broker = Broker(state)
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


class WatcherProcess:
    """`python -m producers` on a folder."""

    def __init__(
        self,
        broker: str,
        root: Path,
        state: Path,
        *,
        within: Sequence[str] = (),
        **settings: object,
    ) -> None:
        """`within` is a command that runs the one after it, in surroundings of its making."""
        self._within = within
        self.status_file = state / "watcher.json"
        self.ready_file = state / "watcher.ready"
        self.log = state / "watcher.log"
        self._environment = {
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": broker,
            "IMAGES_DIR": str(root),
            "READY_FILE": str(self.ready_file),
            "STATUS_FILE": str(self.status_file),
            **{name.upper(): str(value) for name, value in settings.items()},
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, scanned: bool = True) -> None:
        """Start it; returns when it has compared the whole folder once."""
        self.status_file.unlink(missing_ok=True)
        self.ready_file.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._within, sys.executable, "-m", "producers"],
                cwd=ROOT,
                env=self._environment,
                stderr=log,
            )
        if scanned:
            self.wait_for(lambda status: status.get("last_reconcile") is not None)

    def status(self) -> dict[str, Any]:
        """Its status file's content; empty if there is none yet."""
        try:
            answer: dict[str, Any] = json.loads(self.status_file.read_text())
        except FileNotFoundError:
            return {}
        return answer

    def wait_for(self, wanted: Any, seconds: float = 120.0) -> dict[str, Any]:
        """The first status that `wanted` accepts."""
        deadline = time.monotonic() + seconds
        while not wanted(status := self.status()):
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            assert time.monotonic() < deadline, f"{status}\n{self.log.read_text()[-4000:]}"
            time.sleep(0.05)
        return status

    def send(self, number: int) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait: the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(30)
        self.process = None
        return status

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self.process is not None:
            self.stop(signal.SIGKILL)


@contextmanager
def running_watcher(
    broker: str,
    root: Path,
    state: Path,
    *,
    scanned: bool = True,
    within: Sequence[str] = (),
    **settings: object,
) -> Iterator[WatcherProcess]:
    """A watcher while the block runs, killed at its end if it still runs."""
    watcher = WatcherProcess(broker, root, state, within=within, **settings)
    try:
        watcher.start(scanned=scanned)
        yield watcher
    finally:
        watcher.kill()


def history(broker: str) -> list[tuple[str, str | None]]:
    """(id, hash or None for a removal) of every record of `images`, read with a plain client."""

    async def read() -> list[tuple[str, str | None]]:
        async with KafkaEventLog(broker) as log:
            found: list[tuple[str, str | None]] = []
            async for record in log.read_all(IMAGES):
                change = decode_image_change(record.key, record.value)
                sha256 = change.sha256 if isinstance(change, ImageAdded) else None
                found.append((change.image_id, sha256))
            return found

    return asyncio.run(until_available(read, what="read", maximum=0.5, give_up_after=60))


def letters(broker: str) -> list[DeadLetter]:
    """Everything in `images.dlq`."""

    async def read() -> list[DeadLetter]:
        async with KafkaEventLog(broker) as log:
            return [decode(DeadLetter, r.value) async for r in log.read_all(IMAGES_DLQ) if r.value]

    return asyncio.run(until_available(read, what="read", maximum=0.5, give_up_after=60))


def view(broker: str) -> dict[str, str]:
    """The images in the compacted topic: id -> hash."""
    latest = dict(history(broker))
    return {image_id: sha256 for image_id, sha256 in latest.items() if sha256 is not None}


def on_disk(root: Path) -> dict[str, str]:
    """The images on disk: id -> hash of each .jpg, except links, hidden and temporary names."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*.jpg")
        if path.is_file()
        and not path.is_symlink()
        and not any(part.startswith((".", "~")) for part in path.relative_to(root).parts)
    }


def shows(broker: str, expected: dict[str, str], seconds: float = 90.0) -> None:
    """Wait until the topic's view equals `expected`."""
    deadline = time.monotonic() + seconds
    while (seen := view(broker)) != expected:
        if time.monotonic() > deadline:
            missing = {key for key in expected if seen.get(key) != expected[key]}
            invented = seen.keys() - expected.keys()
            raise AssertionError(
                f"missing or wrong: {sorted(missing)[:20]} ({len(missing)}); "
                f"invented: {sorted(invented)[:20]} ({len(invented)})"
            )
        time.sleep(0.1)


def outage_errors() -> tuple[type[Exception], ...]:
    """Errors that a client may see while the broker is away."""
    return (KafkaError, Unavailable, OSError)
