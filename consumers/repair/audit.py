"""Compare the compacted `images` topic with a collection, and repair the differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from adapters.index.port import Collection, ImageIndex
from adapters.log.dead_letter_reader import Letter, read_letters
from adapters.log.port import EventLog, Message, Position
from consumers.repair.dead_letters import is_about
from consumers.repair.republish import LatestRecord, latest_records, republish
from schemas.events import ImageAdded

HasRead = Callable[[int, int], bool]
"""(partition, offset) -> whether the collection's consumer group has handled that record."""


@dataclass(slots=True)
class Audit:
    """Image ids by finding: `missing`, `stale` and `orphaned` need repair, the others do not."""

    missing: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    orphaned: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    dead_lettered: list[str] = field(default_factory=list)
    agreed: int = 0
    latest: Mapping[str, LatestRecord] = field(default_factory=dict, repr=False)

    @property
    def is_clean(self) -> bool:
        """Whether topic and collection agree, apart from records that are still to be indexed."""
        return not (self.missing or self.stale or self.orphaned)


async def audit(
    log: EventLog, index: ImageIndex, collection: Collection, has_read: HasRead
) -> Audit:
    """Compare the topic with the collection.

    `has_read` must answer from offsets fetched before this call: records that the group reads
    during the audit then count as waiting, never as wrong.
    """
    stored = {image_id: sha256 async for image_id, sha256 in index.stored(collection)}
    latest = await latest_records(log)
    refused: dict[str, list[Letter]] = {}
    for letter in await read_letters(log):
        if letter.event.model_name in (None, collection.model_name):
            refused.setdefault(letter.event.image_id, []).append(letter)
    result = Audit(latest=latest)
    for image_id in sorted(latest.keys() | stored.keys()):
        found = latest.get(image_id)
        if found is not None and not has_read(found.position.partition, found.position.offset):
            result.waiting.append(image_id)
        else:
            _judge(result, image_id, found, stored.get(image_id), refused.get(image_id, ()))
    return result


def _judge(
    result: Audit,
    image_id: str,
    found: LatestRecord | None,
    stored: str | None,
    letters: Sequence[Letter],
) -> None:
    wanted = found.change.sha256 if found and isinstance(found.change, ImageAdded) else None
    poison = found is not None and any(is_about(each, found) for each in letters)
    if wanted is None:
        if stored is not None:
            result.orphaned.append(image_id)
    elif poison and stored is None:
        result.dead_lettered.append(image_id)
    elif stored is None:
        result.missing.append(image_id)
    elif stored != wanted:
        result.stale.append(image_id)
    else:
        result.agreed += 1


async def repair(log: EventLog, result: Audit) -> int:
    """Publish the newest event of each missing or stale image again, and a removal of each orphan.

    The indexers then repair the collection in log order, as for any other record.

    Returns:
        The number of records published.
    """
    messages = [result.latest[image_id].message() for image_id in result.missing + result.stale]
    messages += [Message(image_id, None) for image_id in result.orphaned]
    seen: dict[str, Position] = {key: found.position for key, found in result.latest.items()}
    await republish(log, messages, seen)
    return len(messages)
