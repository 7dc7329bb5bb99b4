"""The analytics page and its figures, read from the event lake."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from pydantic import BeforeValidator

from analytics.dashboard import DrillDown, dashboard, searches
from analytics.report import ASSETS, WEB
from analytics.views import EventFilters
from gateway.http.connection import while_connected
from gateway.http.static import StaticPage, headers
from gateway.search.filters import date_as_text
from gateway.state.lake_queries import LakeQueries

MAX_TEXT_IN_URL: Final = 4_000
"""Characters of a query in an address: fewer than a query may have, but what servers accept."""


def _utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


Moment = Annotated[datetime, BeforeValidator(date_as_text)]
Since = Annotated[
    Moment | None, Query(description="Only events from this time on; UTC if it has no offset.")
]
Until = Annotated[Moment | None, Query(description="Only events before this time.")]
Model = Annotated[str | None, Query(max_length=200, description="Only events of this model.")]


def router(queries: LakeQueries) -> APIRouter:
    """The routes; nothing is read from the lake before the first request."""
    routes = APIRouter(tags=["analytics"])

    @routes.get("/api/v1/analytics/dashboard", summary="The figures of the analytics page")
    async def numbers(
        request: Request, since: Since = None, until: Until = None, model: Model = None
    ) -> dict[str, Any]:
        filters = _filters(since, until, model)
        answer = queries.result(
            ("dashboard", filters),
            lambda lake, limits, cancellation: dashboard(
                lake, filters, limits=limits, cancellation=cancellation
            ),
        )
        return await while_connected(request, answer)

    @routes.get("/api/v1/analytics/searches", summary="The searches that a figure counts")
    async def drill_down(
        request: Request,
        since: Since = None,
        until: Until = None,
        model: Model = None,
        text: Annotated[str | None, Query(max_length=MAX_TEXT_IN_URL)] = None,
        kind: Annotated[str | None, Query(max_length=20)] = None,
        rating: Annotated[int | None, Query(ge=1, le=10)] = None,
        place: Annotated[
            int | None,
            Query(ge=1, le=1000, description="Position of a rated picture in the answer."),
        ] = None,
        score_from: Annotated[float | None, Query(ge=-1, le=1, allow_inf_nan=False)] = None,
        score_below: Annotated[float | None, Query(ge=-1, le=2, allow_inf_nan=False)] = None,
        without_result: bool = False,
        weak: Annotated[
            bool, Query(description="Only searches without matches, or with weak ones.")
        ] = False,
        rated: bool = False,
        rated_images: Annotated[
            int | None, Query(ge=0, le=1000, description="Number of rated pictures in the answer.")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
    ) -> dict[str, Any]:
        filters = _filters(since, until, model)
        wanted = DrillDown(
            text=text,
            kind=kind,
            rating=rating,
            position=place,
            score_from=score_from,
            score_below=score_below,
            without_result=without_result,
            weak=weak,
            rated=rated,
            rated_images=rated_images,
        )
        answer = queries.result(
            ("searches", filters, wanted, limit),
            lambda lake, limits, cancellation: searches(
                lake, filters, wanted, limit=limit, limits=limits, cancellation=cancellation
            ),
        )
        return {"searches": await while_connected(request, answer)}

    files = {name: WEB / file for name, (file, _) in ASSETS.items()}
    page = StaticPage(WEB / "index.html", files, headers())
    page.add_to(routes, "/analytics", "/analytics")
    return routes


def _filters(since: datetime | None, until: datetime | None, model: str | None) -> EventFilters:
    return EventFilters(_utc(since), _utc(until), model or None)
