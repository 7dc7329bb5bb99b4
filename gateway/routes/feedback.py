"""Rating the answer to a search; the shapes of request and response never change."""

from __future__ import annotations

from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, BeforeValidator, Field

from gateway.auth.privacy import Privacy
from gateway.auth.receipts import longest_token
from gateway.feedback import FeedbackRecorder
from gateway.http import problems
from gateway.http.api_models import MAX_NAME, MAX_QUERY, ImageName, RequestBody
from gateway.http.gate import caller_of
from gateway.search.filters import whole

MAX_TOKEN: Final = longest_token(MAX_QUERY + 2 * MAX_NAME)
"""Bytes of the longest receipt: of the query, the first image's name and the model's."""


class FeedbackRequest(RequestBody):
    """A rating of the answer to a search, or of one picture in it."""

    user_feedback: Annotated[
        int,
        Field(strict=True, ge=1, le=10, description="1 (useless) to 10 (exactly right)."),
        BeforeValidator(whole),
    ]
    jwt: Annotated[
        str, Field(min_length=1, max_length=MAX_TOKEN, description="The receipt of the search.")
    ]
    image_name: Annotated[
        ImageName | None,
        Field(description="The rated picture; if absent, the whole answer is rated."),
    ] = None


class FeedbackResponse(BaseModel):
    """The feedback is stored."""

    status: str = "stored"
    search_id: UUID


def router(feedback: FeedbackRecorder, privacy: Privacy) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["feedback"])

    @routes.post(
        "/api/v1/create-feedback",
        summary="Rate the answer to a search",
        responses={401: problems.DOCUMENT},
    )
    async def create_feedback(request: Request, body: FeedbackRequest) -> FeedbackResponse:
        client = privacy.client(caller_of(request.scope))
        search_id = await feedback.record(body.jwt, body.user_feedback, body.image_name, client)
        return FeedbackResponse(search_id=search_id)

    return routes
