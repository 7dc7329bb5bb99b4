"""Pictures that indexing could not find: what became of them, and another try if they are back.

An indexer writes a dead letter of the class `Vanished` when a file is not there, its folder is,
and the log holds nothing newer of it. The watcher knows what is there, so the watcher settles such
a letter: with the next version of the picture, with its removal, or by publishing it again.
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
from producers.known_images import State
from schemas.codec import InvalidEvent, decode_image_change
from schemas.events import ImageAdded
from schemas.topics import IMAGES_DLQ

logger = logging.getLogger(__name__)

SETTLE_SECONDS: Final = 30.0


def _of_vanished(letter: Letter) -> Letter | None:
    return letter if letter.event.error_class == VANISHED else None


class Vanished:
    """The open letters of this class, of one source.

    Args:
        log: where `images.dlq` is.
        sources: all sources but the main folder.
        id_prefix: what the ids of this source's pictures start with; empty for the main folder.
    """

    def __init__(self, log: EventLog, sources: Sequence[Source], id_prefix: str) -> None:
        self._log = log
        self._letters: OpenLetters[Letter] = OpenLetters(log, _of_vanished)
        self._others = {source.prefix for source in sources if source.prefix != id_prefix}
        self._prefix = id_prefix

    async def keep_settling(self, state: State) -> None:
        """Settle again and again, as a letter may come long after what it is about."""
        while True:
            await asyncio.sleep(SETTLE_SECONDS)
            await self.settle(state)

    async def settle(self, state: State) -> list[str]:
        """Settle what can be settled.

        Returns:
            Paths of the pictures that are known just as they were when they were not found: to be
            looked at and, if they are there, published again. Their letters are settled by `again`.
        """
        letters = await self._open()
        overtaken, left = list[Letter](), list[str]()
        for letter in letters:
            path = letter.event.image_id.removeprefix(self._prefix)
            known = state.get(path)
            # Content that is not known just now was to be published again, and could not be read.
            if known is None or known.sha256 not in (None, _sha256(letter)):
                overtaken.append(letter)
            else:
                left.append(path)
        await self._publish([settling(letter, "overtaken") for letter in overtaken])
        return left

    async def again(self, paths: Sequence[str], state: State) -> None:
        """Settle the letters of these pictures, but for those that were not there once more."""
        wanted = set()
        for path in paths:
            known = state.get(path)
            if known is not None and known.sha256 is not None:
                wanted.add(self._prefix + path)
        letters = [each for each in await self._open() if each.event.image_id in wanted]
        for letter in letters:
            logger.info("%s is there again: published once more", letter.event.image_id)
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
    """The content that was not found; None where the letter does not say."""
    try:
        change = decode_image_change(letter.event.original_key, letter.event.original_value)
    except InvalidEvent:
        return None
    return bytes.fromhex(change.sha256) if isinstance(change, ImageAdded) else None
