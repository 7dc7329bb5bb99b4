"""Recording ratings: a rating is acknowledged once Kafka has stored it."""

from __future__ import annotations

import asyncio
from uuid import UUID

from adapters.errors import Unavailable
from adapters.log.port import EventLog, Message
from gateway.auth.privacy import Privacy
from gateway.auth.receipts import Receipts
from schemas.events import FeedbackGiven
from schemas.topics import FEEDBACK


class FeedbackRecorder:
    """Checks the receipt of a search and appends the rating to the log."""

    def __init__(
        self, receipts: Receipts, log: EventLog, privacy: Privacy, *, timeout: float
    ) -> None:
        """`timeout` in seconds, for Kafka to acknowledge one rating."""
        self._receipts = receipts
        self._log = log
        self._privacy = privacy
        self._timeout = timeout

    async def record(
        self, token: str, rating: int, image_id: str | None, client: str | None
    ) -> UUID:
        """Store a rating of a search, or of one image in its answer, durably.

        Args:
            token: the search's receipt.
            rating: 1 to 10.
            image_id: the image that is rated; None for the whole answer.
            client: the sender's name in events.

        Returns:
            The id of the rated search.

        Raises:
            InvalidReceipt: the receipt was not signed here, or has expired.
            Unavailable: Kafka did not acknowledge it; it may be sent again.
        """
        receipt = self._receipts.check(token)
        event = FeedbackGiven(
            search_id=receipt.search_id,
            rating=rating,
            image_name=image_id,
            text=receipt.text,
            model_name=receipt.model_name,
            top_image=receipt.top_image,
            top_score=receipt.top_score,
            searched_at=receipt.issued_at,
        )
        event = self._privacy.recorded(event, client)
        try:
            async with asyncio.timeout(self._timeout):
                await self._log.publish(FEEDBACK, [Message(str(receipt.search_id), event)])
        except TimeoutError as error:
            raise Unavailable("Kafka did not acknowledge the feedback in time") from error
        return receipt.search_id
