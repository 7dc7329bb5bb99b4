"""Taking feedback: acknowledged only once Kafka has it."""

from __future__ import annotations

import asyncio

from adapters.errors import Unavailable
from adapters.log.port import EventLog, Message
from gateway.auth.privacy import Privacy
from gateway.auth.receipts import Receipts
from gateway.http.api_models import FeedbackRequest, FeedbackResponse
from schemas.events import FeedbackGiven
from schemas.topics import FEEDBACK


class Feedback:
    """Checks the receipt and appends the rating to the log."""

    def __init__(
        self, receipts: Receipts, log: EventLog, privacy: Privacy, *, timeout: float
    ) -> None:
        """`timeout` in seconds, for Kafka to take one rating."""
        self._receipts = receipts
        self._log = log
        self._privacy = privacy
        self._timeout = timeout

    async def give(self, body: FeedbackRequest, client: str | None) -> FeedbackResponse:
        """Store a rating durably, under this client's name.

        Raises:
            InvalidReceipt: the receipt was not signed here, or has expired.
            Unavailable: Kafka did not take it; it may be sent again.
        """
        receipt = self._receipts.check(body.jwt)
        event = FeedbackGiven(
            search_id=receipt.search_id,
            rating=body.user_feedback,
            image_name=body.image_name,
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
            raise Unavailable("Kafka did not take the feedback in time") from error
        return FeedbackResponse(search_id=receipt.search_id)
