"""Rating the answer to a search."""

from __future__ import annotations

from fastapi import APIRouter, Request

from gateway.auth.privacy import Privacy
from gateway.feedback import FeedbackRecorder
from gateway.http import problems
from gateway.http.api_models import FeedbackRequest, FeedbackResponse
from gateway.http.gate import caller_of


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
