"""Reads the compacted topic `images` when the watcher starts."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Annotated, Final, NotRequired

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from adapters.log.port import EventLog, LogRecord
from producers.known_image import UNKNOWN, KnownImage, ListedStat, to_microseconds
from producers.log.known_images import KnownImages
from schemas.codec import SUPPORTED_MAJOR, InvalidEvent, decode_image_change, decode_key
from schemas.events import ImageAdded, ImageId, Sha256
from schemas.topics import IMAGES

logger = logging.getLogger(__name__)


class _Facts(TypedDict):
    """The fields of an `ImageAdded` that a file is compared with.

    Building whole events from a million records, at every start, takes three times as long.
    """

    schema_version: Annotated[str, Field(pattern=rf"^{SUPPORTED_MAJOR}\.\d+$")]
    image_id: ImageId
    uri: Annotated[str, Field(min_length=1)]
    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=0)]
    modified_at: NotRequired[AwareDatetime | None]
    mount: NotRequired[str | None]


_FACTS: Final = TypeAdapter(_Facts)


async def load(log: EventLog, uri_prefixes: Mapping[str, str]) -> dict[str, KnownImages]:
    """Read the compacted topic.

    Args:
        log: where `images` is.
        uri_prefixes: id prefix of a source ("" for the main folder) -> prefix of its URIs. An
            image with another URI prefix is published again.

    Returns: id prefix -> the known images of that source, by path (id without the prefix).

    Raises:
        Unavailable: the broker cannot answer now.
    """
    states = {prefix: KnownImages() for prefix in uri_prefixes}
    unreadable = 0
    async for record in log.read_all(IMAGES):
        try:
            image_id = decode_key(record.key)
        except InvalidEvent as error:
            unreadable += 1
            logger.warning("%s at %s: ignored: %s", IMAGES.name, record.position, error)
            continue
        first = image_id.partition("/")[0] + "/"
        id_prefix = first if first in uri_prefixes else ""
        state, path = states[id_prefix], image_id[len(id_prefix) :]
        if record.value is None:
            state.remove(path)
            continue
        try:
            state.put(path, _known(record, record.value, image_id, uri_prefixes[id_prefix]))
        except InvalidEvent as error:
            unreadable += 1
            logger.warning(
                "%s at %s: %s cannot be read: %s", IMAGES.name, record.position, image_id, error
            )
            # The key exists, but its content is unknown: the image is published again if it exists.
            state.put(path, UNKNOWN)
    total = sum(len(state) for state in states.values())
    logger.info("%s holds %d pictures (%d unreadable)", IMAGES.name, total, unreadable)
    return states


def _known(record: LogRecord, value: bytes, image_id: str, uri_prefix: str) -> KnownImage:
    """The known image that a record describes.

    Raises:
        InvalidEvent: the record is not a valid event.
    """
    try:
        facts = _FACTS.validate_json(value)
    except ValidationError as error:
        # The codec's error has the better message.
        decode_image_change(record.key, value)
        raise InvalidEvent(f"{ImageAdded.__name__}: {error}") from error
    if facts["image_id"] != image_id:
        decode_image_change(record.key, value)
    modified_at = facts.get("modified_at")
    modified_us = None if modified_at is None else to_microseconds(modified_at)
    mount = facts.get("mount")
    return KnownImage(
        bytes.fromhex(facts["sha256"]),
        ListedStat(facts["size_bytes"], modified_us),
        facts["uri"].startswith(uri_prefix),
        # There are few distinct names, each occurring many times.
        sys.intern(mount) if mount else None,
    )
