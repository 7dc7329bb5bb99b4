"""The minimum work of a watcher's restart, as a process: read the topic and scan the tree.

`python benchmarks/bare_watcher.py FOLDER BROKER [--compare]`; with `--compare` the events are
parsed into a map, and every file is compared with it by size and time.
"""

import asyncio
import json
import os
import sys

from aiokafka import AIOKafkaConsumer


def scan(root: str) -> int:
    """Count the files by `os.scandir` alone."""
    count = 0
    pending = [root]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    count += 1
    return count


async def read(broker: str, known: dict[str, tuple[int, str]] | None) -> int:
    """Count the records of `images` from the beginning to the end as it is now; fill `known`."""
    consumer = AIOKafkaConsumer(
        "images", bootstrap_servers=broker, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        ends = await consumer.end_offsets(consumer.assignment())
        left = {partition for partition, end in ends.items() if end}
        count = 0
        while left:
            for records in (await consumer.getmany(*left, timeout_ms=1000)).values():
                count += len(records)
                if known is not None:
                    for record in records:
                        event = json.loads(record.value)
                        known[event["image_id"]] = event["size_bytes"], event["modified_at"]
            left = {p for p in left if await consumer.position(p) < ends[p]}
        return count
    finally:
        await consumer.stop()


def compare(root: str, known: dict[str, tuple[int, str]]) -> int:
    """Count the files whose size equals the known size, and whose time is known."""
    same = 0
    pending = [""]
    while pending:
        directory = pending.pop()
        with os.scandir(f"{root}/{directory}") as entries:
            for entry in entries:
                path = f"{directory}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path + "/")
                    continue
                status = entry.stat(follow_symlinks=False)
                size, modified = known[path]
                same += size == status.st_size and bool(status.st_mtime_ns and modified)
    return same


if __name__ == "__main__":
    into: dict[str, tuple[int, str]] | None = {} if "--compare" in sys.argv else None
    records = asyncio.run(read(sys.argv[2], into))
    print(scan(sys.argv[1]) if into is None else compare(sys.argv[1], into), records)
