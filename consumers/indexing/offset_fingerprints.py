"""The offset that each partition of `images` is read from, and whether the log is still the same.

An offset alone does not show that: a log that lost its end and grew again holds other records at
the same offset. So each offset is committed with a fingerprint, a digest of the record before it,
and a new owner of the partition compares the fingerprint with the log.

The committed metadata is the version of the facts that are read from an image, a colon, and the
fingerprint. A partition that an earlier version has read is read again from its beginning, which
updates the index.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, NamedTuple

from adapters.errors import Unavailable
from adapters.index.facts import FACTS_VERSION
from adapters.log.port import Committed, EventLog, LogRecord, Position
from schemas.topics import IMAGES

FINGERPRINT_BYTES: Final = 16
_SEPARATOR: Final = ":"


class StartOffsets(NamedTuple):
    """The start offsets, and which partitions are read from their beginning and why."""

    offsets: Mapping[int, int]
    """Partition -> the offset to read from."""
    unknown: frozenset[int]
    """Nothing was committed, or the committed offset belongs to a log that no longer exists."""
    outdated: frozenset[int] = frozenset()
    """They were read by a version that reads fewer facts from an image."""


class OffsetFingerprints:
    """The fingerprints that are committed with the offsets of `images`."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._fingerprints: dict[Position, str] = {}

    async def start_offsets(
        self, committed: Mapping[int, Committed], partitions: Sequence[int]
    ) -> StartOffsets:
        """The start offsets of these partitions, given what their group has committed.

        Raises:
            Unavailable: the log cannot be read now.
        """
        bounds = await self._log.bounds(IMAGES)
        offsets: dict[int, int] = {}
        unknown: set[int] = set()
        outdated: set[int] = set()
        for number in partitions:
            if number not in bounds:
                raise Unavailable(f"{IMAGES.name}-{number} is not known yet")
            first, end = bounds[number]
            found = committed.get(number)
            offsets[number] = first
            if found is None or not await self._is_of_this_log(number, found, end):
                unknown.add(number)
            elif _facts_version(found) < FACTS_VERSION:
                outdated.add(number)
            else:
                offsets[number] = found.offset
        return StartOffsets(offsets, frozenset(unknown), frozenset(outdated))

    async def _is_of_this_log(self, number: int, committed: Committed, end: int) -> bool:
        if end < committed.offset:
            return False
        known = committed.metadata.rpartition(_SEPARATOR)[2]
        if not known or committed.offset == 0:
            return True  # Earlier versions committed no fingerprint.
        last = committed.offset - 1
        reading: Any = self._log.read_all(IMAGES, {number: last})
        async with aclosing(reading):
            async for record in reading:
                # If the record was compacted away, there is nothing to compare.
                return bool(record.position.offset != last or fingerprint(record) == known)
        return True

    def clear(self) -> None:
        """Forget the fingerprints of an earlier assignment."""
        self._fingerprints.clear()

    def remember(self, batches: Iterable[Sequence[LogRecord]]) -> None:
        """Remember the fingerprint of the last record of each batch, which is of one partition."""
        for batch in batches:
            number, offset = batch[-1].position
            self._fingerprints[Position(number, offset + 1)] = fingerprint(batch[-1])

    def with_fingerprints(self, next_offsets: Mapping[int, int]) -> dict[int, Committed]:
        """These next offsets with their fingerprints; forgets those of earlier offsets."""
        for position in list(self._fingerprints):
            if position.offset < next_offsets.get(position.partition, 0):
                del self._fingerprints[position]
        return {
            number: Committed(
                offset, _metadata(self._fingerprints.get(Position(number, offset), ""))
            )
            for number, offset in next_offsets.items()
        }


def _metadata(fingerprint: str) -> str:
    return f"{FACTS_VERSION}{_SEPARATOR}{fingerprint}"


def _facts_version(committed: Committed) -> int:
    version = committed.metadata.partition(_SEPARATOR)[0]
    return int(version) if _SEPARATOR in committed.metadata and version.isdecimal() else 0


def fingerprint(record: LogRecord) -> str:
    """A digest that differs for any other record at the same offset."""
    content = repr((record.timestamp_ms, record.key, record.value))
    return hashlib.blake2b(content.encode(), digest_size=FINGERPRINT_BYTES).hexdigest()
