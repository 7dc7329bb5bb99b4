"""Reports files that can never be published in `images.dlq`: once, not at every start."""

from __future__ import annotations

import logging

from adapters.log.dead_letter import dead_letter
from adapters.log.port import EventLog, Message
from adapters.retry import until_available
from schemas.codec import InvalidEvent, decode
from schemas.events import DeadLetter
from schemas.topics import IMAGES, IMAGES_DLQ

logger = logging.getLogger(__name__)


def escape_path(path: str) -> str:
    r"""The path with bytes that are not UTF-8 escaped, as in `caf\xe9.jpg`."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class RefusalReporter:
    """Publishes a dead letter per refused file, unless the topic already has the same one."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._reported: set[tuple[str, str, str]] | None = None

    async def report(self, path: str, error_class: str, reason: str) -> None:
        """Log the refusal and publish it, unless the same one was published before."""
        image_id = escape_path(path)
        if self._reported is None:
            self._reported = await until_available(self._read, what=f"read {IMAGES_DLQ.name}")
        report = (image_id, error_class, reason)
        if report in self._reported:
            return
        logger.error("refused %s: %s: %s", image_id, error_class, reason)
        letter = dead_letter(
            image_id=image_id,
            error_class=error_class,
            reason=reason,
            attempts=1,
            # No position: the file was refused before it became a record.
            source_topic=IMAGES.name,
        )
        await until_available(
            lambda: self._log.publish(IMAGES_DLQ, [Message(key=image_id, event=letter)]),
            what=f"publish to {IMAGES_DLQ.name}",
        )
        self._reported.add(report)

    async def _read(self) -> set[tuple[str, str, str]]:
        reported = set()
        async for record in self._log.read_all(IMAGES_DLQ):
            if record.value is None:  # settled by `dlq retry` or `dlq drop`
                continue
            try:
                letter = decode(DeadLetter, record.value)
            except InvalidEvent as error:
                logger.warning("ignoring a record of %s: %s", IMAGES_DLQ.name, error)
                continue
            reported.add((letter.image_id, letter.error_class, letter.reason))
        return reported
