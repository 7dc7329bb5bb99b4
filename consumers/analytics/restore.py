"""Restore to the log the searches and ratings that only the lake still holds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Final

from adapters.log.port import EventLog, Message
from analytics.columns import event_of
from analytics.epochs import epoch_of
from analytics.lake import Lake, LakePartition
from consumers.analytics.alignment import RESTORE_FOLDER
from schemas.codec import InvalidEvent, decode
from schemas.topics import PERSONAL, Topic

logger = logging.getLogger(__name__)

BATCH_EVENTS: Final = 1000


async def restore_lost(log: EventLog, lake: Lake) -> dict[str, int]:
    """Restore each topic that has lost events; returns topic -> number of events restored.

    It can be interrupted and repeated: events that the log already holds are skipped. Events keep
    their ids, so the lake does not file them a second time.

    Raises:
        Unavailable: the log or the lake does not answer.
    """
    done: dict[str, int] = {}
    names = await asyncio.to_thread(lake.storage.names, RESTORE_FOLDER)
    lost = {name.partition("~")[0] for name in names}
    for topic in PERSONAL:
        if topic.name in lost:
            done[topic.name] = await _restore(log, lake, topic)
            logger.warning("%s: %d events restored from the lake", topic.name, done[topic.name])
            if not await _is_filed(log, lake, topic):
                # Another loss now would go unnoticed, so keep the marker and check again later.
                lost.discard(topic.name)
    for name in names:
        if name.partition("~")[0] in lost or name.partition("~")[0] not in done:
            await asyncio.to_thread(lake.storage.remove, f"{RESTORE_FOLDER}/{name}")
    return done


async def _is_filed(log: EventLog, lake: Lake, topic: Topic) -> bool:
    """Whether the lake has reached the end of the log."""
    generation = await asyncio.to_thread(lake.current)
    for number, (_, end) in (await log.bounds(topic)).items():
        partition = LakePartition(topic.name, number)
        filed = await asyncio.to_thread(generation.end, partition)
        epoch = await asyncio.to_thread(epoch_of, generation, partition)
        if epoch.in_log(filed.offset) < end:
            return False
    return True


async def _restore(log: EventLog, lake: Lake, topic: Topic) -> int:
    present: set[str] = set()
    async for record in log.read_all(topic):
        try:
            present.add(str(decode(topic.event, record.value).event_id))
        except InvalidEvent:
            continue
    count = 0
    batches = _missing(lake, topic, present)
    while batch := await asyncio.to_thread(next, batches, None):
        await log.publish(topic, batch)
        count += len(batch)
    return count


def _missing(lake: Lake, topic: Topic, present: set[str]) -> Iterator[list[Message]]:
    """Batches of the events that the log lacks, in the order they were filed. Blocks."""
    batch: list[Message] = []
    forgotten = lake.forgotten()
    for file in lake.current().snapshot(topic.name):
        for row in forgotten.without(lake.storage.read_table(file.path)).to_pylist():
            if row["invalid"] is not None or row["key"] is None or row["event_id"] in present:
                continue
            present.add(row["event_id"])
            batch.append(Message(row["key"], event_of(topic, row)))
            if len(batch) == BATCH_EVENTS:
                yield batch
                batch = []
    if batch:
        yield batch
