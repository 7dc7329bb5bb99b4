"""Reads the compacted topic into states: what is known when the watcher starts."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Annotated, Final, NotRequired

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from adapters.log.port import EventLog, LogRecord
from producers.folder.tree import UNKNOWN, Known, ListedStat, to_microseconds
from producers.known_images import State
from schemas.codec import SUPPORTED_MAJOR, InvalidEvent, decode_image_change, decode_key
from schemas.events import ImageAdded, ImageId, Sha256
from schemas.topics import IMAGES

logger = logging.getLogger(__name__)


class _Facts(TypedDict):
    """Of an `ImageAdded`, what a file is compared with.

    To make whole events of a million records, and throw most of each away, takes three times as
    long, at every start.
    """

    schema_version: Annotated[str, Field(pattern=rf"^{SUPPORTED_MAJOR}\.\d+$")]
    image_id: ImageId
    uri: Annotated[str, Field(min_length=1)]
    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=0)]
    modified_at: NotRequired[AwareDatetime | None]
    mount: NotRequired[str | None]


_FACTS: Final = TypeAdapter(_Facts)


async def load(log: EventLog, places: Mapping[str, str]) -> dict[str, State]:
    """Read the compacted topic.

    Args:
        log: where `images` is.
        places: what the ids of a source start with ("" for those of no other) -> what their URIs
            start with; a picture published from another place is published again.

    Returns: a state for each place, whose ids are without what they start with there.

    Raises:
        Unavailable: the broker cannot answer now.
    """
    states = {prefix: State() for prefix in places}
    unreadable = 0
    async for record in log.read_all(IMAGES):
        try:
            whole_id = decode_key(record.key)
        except InvalidEvent as error:
            unreadable += 1
            logger.warning("%s at %s: ignored: %s", IMAGES.name, record.position, error)
            continue
        first = whole_id.partition("/")[0] + "/"
        place = first if first in places else ""
        state, image_id = states[place], whole_id[len(place) :]
        if record.value is None:
            state.remove(image_id)
            continue
        try:
            state.put(image_id, _known(record, record.value, whole_id, places[place]))
        except InvalidEvent as error:
            unreadable += 1
            logger.warning(
                "%s at %s: %s cannot be read: %s", IMAGES.name, record.position, whole_id, error
            )
            # Its key exists and its content is unknown: whatever is there is published again.
            state.put(image_id, UNKNOWN)
    total = sum(len(state) for state in states.values())
    logger.info("%s holds %d pictures (%d unreadable)", IMAGES.name, total, unreadable)
    return states


def _known(record: LogRecord, value: bytes, whole_id: str, uri_prefix: str) -> Known:
    """What the record says of its picture.

    Raises:
        InvalidEvent: nothing that could be relied on.
    """
    try:
        facts = _FACTS.validate_json(value)
    except ValidationError as error:
        # The codec knows best what to call it.
        decode_image_change(record.key, value)
        raise InvalidEvent(f"{ImageAdded.__name__}: {error}") from error
    if facts["image_id"] != whole_id:
        decode_image_change(record.key, value)
    modified_at = facts.get("modified_at")
    modified_us = None if modified_at is None else to_microseconds(modified_at)
    mount = facts.get("mount")
    return Known(
        bytes.fromhex(facts["sha256"]),
        ListedStat(facts["size_bytes"], modified_us),
        facts["uri"].startswith(uri_prefix),
        # The same few names a million times.
        sys.intern(mount) if mount else None,
    )
