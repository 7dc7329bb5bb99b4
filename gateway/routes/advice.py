"""How the active model is rated, and which loaded model would have done better."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from gateway.state.rating_metrics import RatingMetrics


class AdviceBody(BaseModel):
    """The ratings of the active model within `ADVICE_WINDOW`."""

    model: Annotated[str | None, Field(description="The active model; null if there is none.")]
    ratings: Annotated[int, Field(description="Number of its ratings.")]
    mean: Annotated[float | None, Field(description="Mean of its ratings, 1 to 10.")]
    threshold: Annotated[float, Field(description="A lower mean is low (`ADVICE_THRESHOLD`).")]
    low: Annotated[
        bool,
        Field(description="The mean is low, and there are at least `ADVICE_RATINGS` ratings."),
    ]
    candidate: Annotated[
        str | None,
        Field(description="The loaded model with the best nDCG, if better than the active one's."),
    ]
    active_ndcg: float | None
    candidate_ndcg: float | None


def router(ratings: RatingMetrics) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["health"])

    @routes.get("/api/v1/advice", summary="How the active model is rated, and which is better")
    async def advice() -> AdviceBody:
        return AdviceBody.model_validate((await ratings.newest()).as_json())

    return routes
