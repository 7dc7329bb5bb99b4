"""Pictures without a query: the newest ones, and the folders they are in."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError, create_model

from adapters.index.port import DETAILS, EVERYTHING, STORED
from gateway.auth.receipts import longest_token
from gateway.http.api_models import CURSOR_FORM, MAX_NAME, Detail
from gateway.search.filters import Filters
from gateway.search.listing import Listing
from gateway.state.folders import Folders

MAX_LISTING_CURSOR = longest_token(MAX_NAME + 40)
"""Bytes of the longest cursor: of a name and a time."""
MAX_FILTERS = 2_000
"""Characters of JSON; those of a search in its body may be longer."""


class _Listed(BaseModel):
    image_name: str
    added_at: datetime


if TYPE_CHECKING:

    class _ListedWithDetails(_Listed):
        def __init__(self, *, image_name: str, added_at: datetime, **details: Any) -> None: ...

else:
    _ListedWithDetails = create_model(
        "_ListedWithDetails",
        __base__=_Listed,
        **{name: (STORED[name] | None, None) for name in DETAILS if name != "added_at"},
    )


class ListedImageBody(_ListedWithDetails):
    """One picture. Properties listed in `include` are present, null if it does not have them."""


class ImagesResponse(BaseModel):
    """Pictures, those that were added last first."""

    images: list[ListedImageBody]
    next_cursor: Annotated[
        str | None, Field(description="Cursor of the next page; null on the last one.")
    ]


class FolderBody(BaseModel):
    """A folder, and how many pictures are in it or below it."""

    folder: Annotated[str, Field(description="As the filter `folder` of a search takes it.")]
    images: int


class FoldersResponse(BaseModel):
    """Folders of one level, those with the most pictures first."""

    root: Annotated[str, Field(description="Name of the watched folder.")]
    images: Annotated[int, Field(description="Number of indexed pictures.")]
    folders: list[FolderBody]
    elsewhere: Annotated[int, Field(description="Pictures that are in none of these folders.")]
    exact: Annotated[
        bool, Field(description="Whether all pictures were counted, and not a sample of them.")
    ]


def router(listing: Listing, folders: Folders, *, root: str) -> APIRouter:
    """The routes; `root` is the name of the watched folder."""
    routes = APIRouter(tags=["pictures"])

    @routes.get(
        "/api/v1/images",
        summary="Pictures without a query, the newest first",
        response_model_exclude_unset=True,
    )
    async def list_images(
        order: Annotated[
            Literal["newest"], Query(description="`newest`: those that were added last first.")
        ] = "newest",
        limit: Annotated[int, Query(ge=1, le=1000, description="Maximum number of pictures.")] = 30,
        filters: Annotated[
            str | None,
            Query(
                max_length=MAX_FILTERS,
                description='The filters of a search, as JSON: `{"folder": "holiday"}`.',
            ),
        ] = None,
        include: Annotated[
            list[Detail],
            Query(max_length=len(DETAILS), description="Properties to return, besides `added_at`."),
        ] = [],  # noqa: B006  # FastAPI copies it
        cursor: Annotated[
            str | None,
            Query(min_length=1, max_length=MAX_LISTING_CURSOR, pattern=CURSOR_FORM),
        ] = None,
    ) -> ImagesResponse:
        chosen = _filters(filters)
        page = await listing.newest(
            limit,
            where=chosen.where() if chosen else EVERYTHING,
            filters={"order": order, **(chosen.flat() if chosen else {})},
            details=tuple(name for name in dict.fromkeys(include) if name != "added_at"),
            cursor=cursor,
        )
        return ImagesResponse(
            images=[
                ListedImageBody(image_name=image.image_id, added_at=image.added_at, **image.details)
                for image in page.images
            ],
            next_cursor=page.next_cursor,
        )

    @routes.get("/api/v1/folders", summary="The folders with the most pictures")
    async def list_folders(
        limit: Annotated[int, Query(ge=1, le=100, description="Maximum number of folders.")] = 20,
    ) -> FoldersResponse:
        counts = (await folders.counts()).first(limit)
        return FoldersResponse(
            root=root,
            images=counts.images,
            folders=[FolderBody(folder=each.folder, images=each.images) for each in counts.folders],
            elsewhere=counts.elsewhere,
            exact=counts.exact,
        )

    return routes


def _filters(text: str | None) -> Filters | None:
    """The filters that a parameter holds as JSON."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        problem = {"type": "value_error", "msg": f"must be JSON: {error}"}
        raise RequestValidationError([{**problem, "loc": ("query", "filters")}]) from error
    try:
        return Filters.model_validate(value)
    except ValidationError as error:
        raise RequestValidationError(
            [
                {**each, "loc": ("query", "filters", *each["loc"])}
                for each in error.errors(include_url=False)
            ]
        ) from error
