"""A publication that was given up: nothing of it lives on, nor is written behind newer records."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from adapters.errors import Unavailable
from adapters.log.kafka import KafkaEventLog
from adapters.log.port import Message
from schemas.topics import IMAGES
from stack.record import RecordFile
from tests.conftest import Servers


@pytest.fixture
async def broker(servers: Servers) -> AsyncIterator[psutil.Process]:
    record = RecordFile(Path(servers.environment["STATE_DIR"]) / "run").read()
    assert record is not None
    (row,) = [row for row in record.processes if row.name == "kafka"]
    process = psutil.Process(row.pid)
    try:
        yield process
    finally:
        process.resume()


async def history(servers: Servers, key: str) -> list[bytes | None]:
    async with KafkaEventLog(servers.kafka) as log:
        return [r.value async for r in log.read_all(IMAGES) if r.key == key.encode()]


def sockets(port: int) -> int:
    """Connections of this process to the broker."""
    return sum(
        1
        for each in psutil.Process().net_connections("tcp")
        if each.raddr and each.raddr.port == port and each.status != psutil.CONN_TIME_WAIT
    )


@pytest.mark.parametrize("count", [1, 200], ids=["one by one", "in bulk"])
async def test_an_old_batch_is_never_written_after_a_newer_one(
    servers: Servers, broker: psutil.Process, count: int
) -> None:
    """The broker stands still with the old batch in its socket, and goes on."""
    port = int(servers.kafka.rpartition(":")[2])
    prefix = uuid4().hex
    async with KafkaEventLog(servers.kafka, timeout=3.0) as log:
        keys = [f"{prefix}-{n}" for n in range(count)]
        await log.publish(IMAGES, [Message(key, b"first") for key in keys])
        broker.suspend()
        tasks, before = asyncio.all_tasks(), sockets(port)
        assert before > 0
        with pytest.raises(Unavailable):
            await log.publish(IMAGES, [Message(key, b"old") for key in keys])
        assert {task for task in asyncio.all_tasks() if task not in tasks} == set()
        assert sockets(port) == 0
        broker.resume()
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(Unavailable):
                    await log.publish(IMAGES, [Message(key, b"new") for key in keys])
                    break
        await asyncio.sleep(2.0)
    for key in (keys[0], keys[-1]):
        assert (await history(servers, key))[-1] == b"new"
    async with KafkaEventLog(servers.kafka) as log:
        await log.publish(IMAGES, [Message(key, None) for key in keys])


async def test_a_cancelled_publication_writes_nothing(
    servers: Servers, broker: psutil.Process
) -> None:
    port = int(servers.kafka.rpartition(":")[2])
    key = uuid4().hex
    async with KafkaEventLog(servers.kafka, timeout=30.0) as log:
        await log.publish(IMAGES, [Message(key, b"first")])
        broker.suspend()
        work = asyncio.create_task(log.publish(IMAGES, [Message(key, b"old")]))
        await asyncio.sleep(0.5)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        assert sockets(port) == 0
        broker.resume()
        await log.publish(IMAGES, [Message(key, b"new")])
        await asyncio.sleep(1.0)
    assert (await history(servers, key))[-1] == b"new"
    async with KafkaEventLog(servers.kafka) as log:
        await log.publish(IMAGES, [Message(key, None)])
