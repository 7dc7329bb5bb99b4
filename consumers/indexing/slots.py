"""A bounded number of slots, each owned by a lease while it is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Slot:
    """One taken slot. Giving it back more than once has no effect."""

    __slots__ = ("_lease",)

    def __init__(self, lease: Lease) -> None:
        self._lease: Lease | None = lease

    def give_back(self) -> None:
        """Free the slot."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.end(self)


class Lease:
    """Slots taken for one piece of work."""

    def __init__(self, semaphore: asyncio.Semaphore) -> None:
        self._semaphore = semaphore
        self._taken: set[Slot] = set()

    def __len__(self) -> int:
        """How many are taken."""
        return len(self._taken)

    async def take(self) -> Slot:
        """Wait for a free slot."""
        await self._semaphore.acquire()
        slot = Slot(self)
        self._taken.add(slot)
        return slot

    def end(self, slot: Slot) -> None:
        """Called by the slot when it is given back."""
        self._taken.discard(slot)
        self._semaphore.release()

    def end_all(self) -> None:
        """Give back all slots that are still taken."""
        for slot in list(self._taken):
            slot.give_back()


class Slots:
    """`count` slots, taken within a lease; the end of the lease gives back all that it still holds.

    So no slot can be lost, neither by a task that is cancelled before it starts nor with an item
    that is left in a queue.
    """

    def __init__(self, count: int) -> None:
        self._semaphore = asyncio.Semaphore(count)
        self._leases: set[Lease] = set()

    @property
    def taken(self) -> int:
        """How many are taken now."""
        return sum(len(lease) for lease in self._leases)

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        """A lease for this block. A task that may take slots must not outlive the block."""
        lease = Lease(self._semaphore)
        self._leases.add(lease)
        try:
            yield lease
        finally:
            lease.end_all()
            self._leases.discard(lease)
