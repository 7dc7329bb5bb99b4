"""Whether a collection holds what the log holds, before searches move to it."""

from __future__ import annotations

from collections.abc import Mapping

from adapters.bootstrap import Connections
from adapters.index.port import Collection
from consumers.repair.audit import Audit, audit
from schemas.events import ImageAdded
from stack.errors import StackError

IDS_AT_ONCE = 1000


async def check_complete(
    servers: Connections, collection: Collection, handled: Mapping[int, int], most: float
) -> None:
    """Return if the collection holds what the log holds up to the offsets `handled`, by partition.

    Later records are still in flight to every collection. An image with a dead letter of the
    collection's model counts as unreadable, unless the active collection holds it.

    Raises:
        StackError: more than the share `most` is missing, or has other content.
        Unavailable: a server does not answer.
    """
    found = await audit(
        servers.log, servers.index, collection, lambda part, offset: offset < handled.get(part, 0)
    )
    refused = await _given_up(servers, collection, found)
    lacking = [*found.missing, *found.stale, *refused]
    wanted = len(lacking) + found.agreed
    if len(lacking) > most * wanted:
        raise StackError(
            f"{len(lacking)} of {wanted} pictures of the log are not in {collection.name}, for "
            f"instance {', '.join(map(repr, lacking[:3]))}; the active model is not changed. See "
            "./image-search dlq list, or allow more: ./image-search models switch "
            f"{collection.model_name} --max-missing SHARE"
        )


async def _given_up(servers: Connections, collection: Collection, found: Audit) -> list[str]:
    """Images with a dead letter of this collection's model that the active collection has."""
    active = await servers.index.active()
    if active is None or active.name == collection.name:
        return []
    lost: list[str] = []
    for start in range(0, len(found.dead_lettered), IDS_AT_ONCE):
        ids = found.dead_lettered[start : start + IDS_AT_ONCE]
        held = await servers.index.hashes(active, ids)
        for image_id in ids:
            change = found.latest[image_id].change
            if isinstance(change, ImageAdded) and held.get(image_id) == change.sha256:
                lost.append(image_id)
    return lost
