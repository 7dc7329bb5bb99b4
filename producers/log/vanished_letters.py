"""Settles the dead letters of images whose files an indexer could not find.

An indexer writes a dead letter of class `Vanished` when a file is missing, its folder exists and
the log holds no newer record of it. The watcher knows which files exist, so it settles the letter:
because the image has changed or was removed since, or by publishing it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from adapters.log.dead_letter_reader import VANISHED, Letter, OpenLetters, settling
from adapters.log.port import EventLog, Message
from adapters.retry import until_available
from imaging.sources.source import Source
from producers.log.known_images import KnownImages
from schemas.codec import InvalidEvent, decode_image_change
from schemas.events import ImageAdded
from schemas.topics import IMAGES_DLQ

logger = logging.getLogger(__name__)

SETTLE_SECONDS: Final = 30.0


def _if_vanished(letter: Letter) -> Letter | None:
    return letter if letter.event.error_class == VANISHED else None


class VanishedLetters:
    """The open letters of class `Vanished` of one source.

    Args:
        log: where `images.dlq` is.
        sources: all sources except the main folder.
        id_prefix: prefix of the ids of this source; empty for the main folder.
    """

    def __init__(self, log: EventLog, sources: Sequence[Source], id_prefix: str) -> None:
        self._log = log
        self._letters: OpenLetters[Letter] = OpenLetters(log, _if_vanished)
        self._others = {source.prefix for source in sources if source.prefix != id_prefix}
        self._prefix = id_prefix

    async def keep_settling(self, state: KnownImages) -> None:
        """Settle periodically: a letter may arrive long after its file is back."""
        while True:
            await asyncio.sleep(SETTLE_SECONDS)
            await self.settle(state)

    async def settle(self, state: KnownImages) -> list[str]:
        """Settle the letters of images that have changed or were removed since.

        Returns:
            Paths of the images that are unchanged. They are to be examined and, if they exist,
            published again; `settle_published` then settles their letters.
        """
        letters = await self._open()
        settled, left = list[Letter](), list[str]()
        for letter in letters:
            path = letter.event.image_id.removeprefix(self._prefix)
            known = state.get(path)
            # Unknown content: the image should be published again, but could not be read.
            if known is None or known.sha256 not in (None, _sha256(letter)):
                settled.append(letter)
            else:
                left.append(path)
        await self._publish([settling(letter, "overtaken") for letter in settled])
        return left

    async def settle_published(self, paths: Sequence[str], state: KnownImages) -> None:
        """Settle the letters of these images, unless they could not be found again."""
        wanted = set()
        for path in paths:
            known = state.get(path)
            if known is not None and known.sha256 is not None:
                wanted.add(self._prefix + path)
        letters = [each for each in await self._open() if each.event.image_id in wanted]
        for letter in letters:
            logger.info("%s exists again: published again", letter.event.image_id)
        await self._publish([settling(letter, "retried") for letter in letters])

    async def _open(self) -> list[Letter]:
        found = await until_available(self._letters.current, what=f"read {IMAGES_DLQ.name}")
        return [each for each in found.values() if self._concerns(each.event.image_id)]

    def _concerns(self, image_id: str) -> bool:
        first = image_id.partition("/")[0] + "/"
        return image_id.startswith(self._prefix) and first not in self._others

    async def _publish(self, messages: Sequence[Message]) -> None:
        if messages:
            await until_available(
                lambda: self._log.publish(IMAGES_DLQ, messages),
                what=f"publish to {IMAGES_DLQ.name}",
            )


def _sha256(letter: Letter) -> bytes | None:
    """SHA-256 of the content that was not found; None if the letter does not state it."""
    try:
        change = decode_image_change(letter.event.original_key, letter.event.original_value)
    except InvalidEvent:
        return None
    return bytes.fromhex(change.sha256) if isinstance(change, ImageAdded) else None
