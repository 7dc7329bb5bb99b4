"""Whether the log holds a newer record of an image than a given one."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from adapters.log.port import EventLog, LogRecord, Position
from schemas.topics import IMAGES

HASH_BYTES: Final = 8
"""Size of each key's hash. Among ten million keys, the probability of a collision is 3 in a
million."""


class NewerRecords:
    """Keeps the keys and offsets of the newer records of each partition, 16 bytes per record.

    The first call reads a partition from the given record to its end; later calls read only what
    was written since. Records before the given one are dropped, so a consumer that has caught up
    keeps almost nothing.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._partitions: dict[int, _PartitionTail] = {}

    async def find_superseded(self, records: Sequence[LogRecord]) -> set[Position]:
        """The positions of those records whose key has a newer record in `images`.

        A record that is missing from the log while later ones are present was compacted away, which
        happens to superseded records only.

        Raises:
            Unavailable: the log cannot be read now.
        """
        if not records:
            return set()
        lowest: dict[int, int] = {}
        for record in records:
            number, offset = record.position
            lowest[number] = min(offset, lowest.get(number, offset))
        for number, first in lowest.items():
            known = self._partitions.get(number)
            if known is None or first < known.first:
                self._partitions[number] = _PartitionTail(first)
            else:
                known.forget_before(first)
        start = {number: self._partitions[number].next for number in lowest}
        async for found in self._log.read_all(IMAGES, start):
            self._partitions[found.position.partition].add(found)
        return {
            record.position
            for record in records
            if self._partitions[record.position.partition].has_newer(record)
        }


class _PartitionTail:
    def __init__(self, first: int) -> None:
        self.first = first
        self.next = first
        self._hashes = array("Q")
        self._offsets = array("q")

    def add(self, record: LogRecord) -> None:
        self._hashes.append(_hash(record.key))
        self._offsets.append(record.position.offset)
        self.next = record.position.offset + 1

    def forget_before(self, first: int) -> None:
        hashes, offsets = self._arrays()
        start = int(np.searchsorted(offsets, first))
        self.first = first
        self.next = max(self.next, first)
        self._hashes, self._offsets = (
            array("Q", hashes[start:].tobytes()),
            array("q", offsets[start:].tobytes()),
        )

    def has_newer(self, record: LogRecord) -> bool:
        hashes, offsets = self._arrays()
        ours = offsets[hashes == np.uint64(_hash(record.key))]
        ours = ours[ours >= record.position.offset]
        if not len(ours):
            return self.next > record.position.offset
        return bool(ours[-1] > record.position.offset)

    def _arrays(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        # Views of the arrays, which cannot grow while a view exists.
        return np.frombuffer(self._hashes, np.uint64), np.frombuffer(self._offsets, np.int64)


def _hash(key: bytes | None) -> int:
    return int.from_bytes(hashlib.blake2b(key or b"", digest_size=HASH_BYTES).digest(), "little")
