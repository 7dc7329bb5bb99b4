"""Reads `feedback` with aiokafka in its own consumer group; prints each rating as a JSON line.

KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9092 GROUP=my-ratings python feedback_aiokafka.py

A new group starts at the beginning, an existing one at its committed offsets. An offset is
committed after the rating was handled, so none is lost; after a crash some are repeated, with the
same `event_id`.
"""

import asyncio
import json
import os
import signal

from aiokafka import AIOKafkaConsumer, TopicPartition


async def main() -> None:
    """Read until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    consumer = AIOKafkaConsumer(
        "feedback",
        bootstrap_servers=os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092"),
        group_id=os.environ.get("GROUP", "my-ratings"),
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        while not stop.is_set():
            read: dict[TopicPartition, list] = await consumer.getmany(timeout_ms=500)
            for records in read.values():
                for record in records:
                    handle(record.value)
            if read:
                await consumer.commit({at: rs[-1].offset + 1 for at, rs in read.items()})
    finally:
        await consumer.stop()


def handle(value: bytes) -> None:
    """Your work goes here. Invalid records are skipped, as a retry would not help."""
    try:
        event = json.loads(value)
        # Fields are only added within a major version; another one may mean something else.
        if event["schema_version"].partition(".")[0] != "1":
            raise ValueError(f"version {event['schema_version']}")
        line = {name: event[name] for name in ("event_id", "search_id", "rating", "model_name")}
    except (ValueError, KeyError, TypeError) as error:
        print(json.dumps({"unreadable": str(error)}), flush=True)
    else:
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
