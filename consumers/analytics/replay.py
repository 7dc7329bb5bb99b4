"""Export the events of a topic as JSON lines, for other tools."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from adapters.log.port import EventLog, LogRecord
from schemas.topics import Topic


async def replay(
    log: EventLog,
    topic: Topic,
    start: int | datetime | None = None,
    end: int | datetime | None = None,
) -> AsyncIterator[str]:
    """One line per record from `start` up to, not including, `end`: offsets, or Kafka timestamps.

    A line is `{"topic", "partition", "offset", "logged_at", "key", "event"}`. The event of a
    tombstone is null; a value that is not JSON is in `value_base64` instead of `event`.

    Raises:
        Unavailable: the broker cannot be read now.
    """
    async for record in log.read_all(topic, start):
        if _before(record, end):
            yield json.dumps(_record_as_json(topic, record), ensure_ascii=False)


def _before(record: LogRecord, end: int | datetime | None) -> bool:
    if end is None:
        return True
    if isinstance(end, datetime):
        return record.timestamp_ms < end.timestamp() * 1000
    return record.position.offset < end


def _record_as_json(topic: Topic, record: LogRecord) -> dict[str, Any]:
    line: dict[str, Any] = {
        "topic": topic.name,
        "partition": record.position.partition,
        "offset": record.position.offset,
        "logged_at": record.timestamp_ms,
        "key": None if record.key is None else record.key.decode(errors="replace"),
    }
    try:
        line["event"] = None if record.value is None else json.loads(record.value)
    except ValueError:
        line["value_base64"] = base64.b64encode(record.value or b"").decode()
    return line
