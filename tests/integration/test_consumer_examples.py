"""The examples of other consumers, as processes on real Kafka."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from uuid import uuid4

import pytest

from adapters.log.kafka import KafkaEventLog
from adapters.log.port import Message
from schemas.events import FeedbackGiven
from schemas.topics import FEEDBACK
from tests.conftest import ROOT
from tests.support.lake_events import Events
from tests.support.programs import needs_kcat
from tests.support.watcher_processes import running_broker

EXAMPLES = ROOT / "docs" / "examples"
COMMANDS = {
    "aiokafka": [sys.executable, "feedback_aiokafka.py"],
    "faststream": [sys.executable, "-m", "faststream", "run", "feedback_faststream:app"],
    "kcat": ["sh", "feedback_kcat.sh"],
}


@dataclass
class Reader:
    """One example at work, and what it has printed: the ratings' event ids."""

    command: list[str]
    environment: dict[str, str]
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *self.command,
            cwd=EXAMPLES,
            env={**os.environ, **self.environment},
            stdout=asyncio.subprocess.PIPE,
        )

    async def until(self, wanted: set[str], seconds: float = 120) -> list[str]:
        """The ids printed until all wanted ones were, in order."""
        assert self.process is not None
        assert self.process.stdout is not None
        found: list[str] = []
        async with asyncio.timeout(seconds):
            while not wanted <= set(found):
                line = await self.process.stdout.readline()
                assert line, f"{self.command} ended with {await self.process.wait()}"
                reported = json.loads(line) if line.startswith(b"{") else {}
                found += [reported["event_id"]] if "event_id" in reported else []
        return found

    async def end(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)
            await asyncio.wait_for(self.process.wait(), 30)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a broker whose topics hold this file's events alone."""
    with running_broker(tmp_path_factory.mktemp("broker")) as running:
        yield running.address


@pytest.fixture(params=["aiokafka", "faststream", pytest.param("kcat", marks=needs_kcat)])
async def reader(request: pytest.FixtureRequest, broker: str) -> AsyncIterator[Reader]:
    group = f"example-{request.param}-{uuid4().hex[:8]}"
    environment = {"KAFKA_BOOTSTRAP_SERVERS": broker, "GROUP": group}
    found = Reader(COMMANDS[request.param], environment)
    yield found
    await found.end(signal.SIGKILL)


async def publish(log: KafkaEventLog, events: Events, count: int) -> set[str]:
    """Ids of new ratings, once they are in Kafka."""
    messages: list[Message] = events.messages("feedback", count)
    await log.publish(FEEDBACK, messages)
    return {str(m.event.event_id) for m in messages if isinstance(m.event, FeedbackGiven)}


@pytest.mark.timeout(600)
async def test_a_new_consumer_group_reads_every_rating(broker: str, reader: Reader) -> None:
    events = Events(uuid4().int % 10**9)
    async with KafkaEventLog(broker) as log:
        first = await publish(log, events, 40)
        await reader.start()
        found = await reader.until(first)
        assert len(found) == len(set(found))
        live = await publish(log, events, 10)
        await reader.until(live)

        # It continues where it stopped, and reads nothing of that again. (kcat sometimes takes
        # half a minute to leave its group, and commits by time.)
        if "feedback_kcat.sh" not in reader.command:
            await reader.end(signal.SIGTERM)
            missed = await publish(log, events, 10)
            await reader.start()
            later = await reader.until(missed)
            assert not set(later) & (first | live)

        # Killed, it may repeat some and leaves none out.
        await reader.end(signal.SIGKILL)
        missed = await publish(log, events, 10)
        await reader.start()
        await reader.until(missed)
