"""Groups of images that are alike."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from gateway.http.api_models import CURSOR_FORM, MAX_CURSOR
from gateway.search.duplicates import Duplicates, Kind
from gateway.search.service import Search


class DuplicateBody(BaseModel):
    """A member of a group; `score` is its cosine with the first one, 1 for equal content."""

    image_name: str
    score: float


class DuplicatesResponse(BaseModel):
    """Groups of two or more pictures. A page may have few groups, or none, and not be the last."""

    kind: Kind
    model_name: str
    groups: list[list[DuplicateBody]]
    examined: Annotated[int, Field(description="Number of pictures that this request examined.")]
    next_cursor: Annotated[
        str | None, Field(description="Cursor of the next page; null on the last one.")
    ]


def router(search: Search, duplicates: Duplicates) -> APIRouter:
    """The route; `search` says which collection is active."""
    routes = APIRouter(tags=["pictures"])

    @routes.get("/api/v1/duplicates", summary="Groups of duplicate pictures")
    async def list_duplicates(
        kind: Annotated[
            Kind, Query(description="`exact`: equal content; `near`: similar vectors.")
        ] = "exact",
        limit: Annotated[int, Query(ge=1, le=100, description="Maximum number of groups.")] = 20,
        min_score: Annotated[
            float | None,
            Query(gt=0, le=1, allow_inf_nan=False, description="For `near`: the minimum cosine."),
        ] = None,
        cursor: Annotated[
            str | None, Query(min_length=1, max_length=MAX_CURSOR, pattern=CURSOR_FORM)
        ] = None,
    ) -> DuplicatesResponse:
        collection = await search.active()
        page = await duplicates.page(
            collection, kind, limit=limit, min_score=min_score, cursor=cursor
        )
        return DuplicatesResponse(
            kind=kind,
            model_name=collection.model_name,
            groups=[
                [DuplicateBody(image_name=each.image_id, score=each.score) for each in group]
                for group in page.groups
            ],
            examined=page.examined,
            next_cursor=page.next_cursor,
        )

    return routes
