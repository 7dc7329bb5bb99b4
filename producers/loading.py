"""Reads the compacted topic into states, with the help of other processes where it is long."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

from adapters.event_log import EventLog, LogRecord
from adapters.helpers import CORES, Helpers
from producers.state import State
from producers.tree import FileStat, Known, to_microseconds
from schemas.codec import InvalidEvent, decode_image_change, decode_key
from schemas.events import ImageAdded
from schemas.topics import IMAGES

logger = logging.getLogger(__name__)

CHUNK: Final = 1000
"""Records that are decoded together."""
MANY: Final = 5 * CHUNK
"""Records from which on others decode: starting a process takes as long as decoding this many."""
BEHIND: Final = 16
"""Chunks that a helper may be behind; this process decodes what goes beyond, rather than wait."""
AHEAD: Final = 100
"""Chunks that may wait for those before them, so that what is read ahead is bounded."""

Row = tuple[str, str, bytes | None, tuple[int, int] | None, bool]
"""What a record says: which source (what its ids start with), the id there, SHA-256, size and time
(None for a removal), whether the URI is current. Plain, as these pass between processes."""


class Decoded(NamedTuple):
    """What a chunk says: rows in its order, and (number in the chunk, reason) of what is wrong."""

    rows: list[Row]
    reasons: list[tuple[int, str]]


async def load(log: EventLog, places: Mapping[str, str], helpers: Helpers) -> dict[str, State]:
    """Read the compacted topic.

    Args:
        log: where `images` is.
        places: what the ids of a source start with ("" for those of no other) -> what their URIs
            start with; a picture published from another place is published again.
        helpers: who decodes, where there is much.

    Returns: a state for each place, whose ids are without what they start with there.

    Raises:
        Unavailable: the broker cannot answer now.
    """
    states = {prefix: State() for prefix in places}
    work = partial(decode, places=places)
    waiting: deque[tuple[list[LogRecord], asyncio.Future[Decoded]]] = deque()
    unreadable = 0

    def take(records: Sequence[LogRecord], decoded: Decoded) -> None:
        nonlocal unreadable
        unreadable += len(decoded.reasons)
        for number, reason in decoded.reasons:
            logger.warning("%s at %s: %s", IMAGES.name, records[number].position, reason)
        _apply(decoded.rows, states)

    try:
        async for first, chunk in _chunks(log):
            parts = [(record.key, record.value) for record in chunk]
            if first < MANY or CORES < 2:
                take(chunk, work(parts))
                continue
            decoding: asyncio.Future[Decoded]
            if sum(not future.done() for _, future in waiting) < BEHIND:
                decoding = asyncio.ensure_future(helpers.run_surely(work, parts))
            else:
                decoding = asyncio.get_running_loop().create_future()
                decoding.set_result(work(parts))
            waiting.append((chunk, decoding))
            await asyncio.sleep(0)  # reading alone may not let the event loop see what is done
            while waiting and (len(waiting) > AHEAD or waiting[0][1].done()):
                take(waiting[0][0], await waiting[0][1])
                waiting.popleft()
        for records, future in waiting:
            take(records, await future)
    finally:
        for _, future in waiting:
            future.cancel()
    total = sum(len(state) for state in states.values())
    logger.info("%s holds %d pictures (%d unreadable)", IMAGES.name, total, unreadable)
    return states


async def _chunks(log: EventLog) -> AsyncIterator[tuple[int, list[LogRecord]]]:
    """The topic, some records at a time, each time with how many there were before."""
    before, chunk = 0, []
    async for record in log.read_all(IMAGES):
        chunk.append(record)
        if len(chunk) == CHUNK:
            yield before, chunk
            before, chunk = before + CHUNK, []
    yield before, chunk


def decode(
    records: Sequence[tuple[bytes | None, bytes | None]], places: Mapping[str, str]
) -> Decoded:
    """What these records (key, value) say; `places` as for `load`."""
    decoded = Decoded([], [])
    for number, (key, value) in enumerate(records):
        try:
            whole_id = decode_key(key)
        except InvalidEvent as error:
            decoded.reasons.append((number, f"ignored: {error}"))
            continue
        first = whole_id.partition("/")[0] + "/"
        place = first if first in places else ""
        image_id = whole_id[len(place) :]
        try:
            change = decode_image_change(key, value)
        except InvalidEvent as error:
            # Its key exists and its content is unknown: whatever is there is published again.
            decoded.reasons.append((number, f"{whole_id} cannot be read: {error}"))
            decoded.rows.append((place, image_id, None, (-1, 0), False))
            continue
        if isinstance(change, ImageAdded):
            stat = change.size_bytes, to_microseconds(change.modified_at)
            current = change.uri.startswith(places[place])
            decoded.rows.append((place, image_id, bytes.fromhex(change.sha256), stat, current))
        else:
            decoded.rows.append((place, image_id, None, None, False))
    return decoded


def _apply(rows: Iterable[Row], states: Mapping[str, State]) -> None:
    for place, image_id, sha256, stat, current in rows:
        if stat is None:
            states[place].remove(image_id)
        else:
            states[place].put(image_id, Known(sha256, FileStat(*stat), current))
