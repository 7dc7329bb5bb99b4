"""Routes about the pictures themselves: duplicates, uploads, thumbnails, files."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import FastAPI, File, Form, Header, Query, Response, UploadFile
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from starlette.responses import FileResponse

from gateway.errors import NotAllowed
from gateway.http import path_names as names
from gateway.http import problems
from gateway.http.api_models import MAX_CURSOR
from gateway.http.image_responses import HEADERS, image_response
from gateway.images.files import ImageFiles
from gateway.images.thumbnails import Size, Thumbnails
from gateway.images.uploads import Uploads
from gateway.search.duplicates import Duplicates, Kind
from gateway.search.filters import valid_unicode
from gateway.search.service import Search

PICTURE = {"description": "The picture", "content": {"image/*": {}}}


class DuplicateBody(BaseModel):
    """A member of a group; `score` is its cosine with the first one, 1 for equal content."""

    image_name: str
    score: float


class DuplicatesResponse(BaseModel):
    """Groups of two or more. A page may have few, or none, and still not be the last."""

    kind: Kind
    model_name: str
    groups: list[list[DuplicateBody]]
    examined: Annotated[int, Field(description="So many pictures this request looked at.")]
    next_cursor: Annotated[str | None, Field(description="Null on the last page.")]


class UploadResponse(BaseModel):
    """A picture in the watched folder. `wait_for` of a search takes its name and hash."""

    status: Literal["stored", "unchanged"]
    image_name: str
    sha256: str
    size_bytes: int
    media_type: str


def _number(value: object) -> object:
    # A query's values are texts, which a literal number does not equal.
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


SizeField = Annotated[Size, BeforeValidator(_number), Query(description="Longest edge, in pixels.")]
FolderField = Annotated[
    str,
    Form(
        max_length=2000, description="Below the watched folder, which `/` is; made where missing."
    ),
]
NameField = Annotated[
    str | None, Form(max_length=1000, description="Instead of the file's own name.")
]


def add_routes(
    app: FastAPI,
    *,
    images: ImageFiles,
    search: Search,
    duplicates: Duplicates,
    thumbnails: Thumbnails,
    uploads: Uploads | None,
) -> None:
    """Add them; `uploads` is None where nothing may be uploaded."""

    @app.get("/api/v1/duplicates", tags=["pictures"], summary="Pictures that are there twice")
    async def list_duplicates(
        kind: Annotated[
            Kind, Query(description="`exact`: equal content. `near`: vectors that are close.")
        ] = "exact",
        limit: Annotated[int, Query(ge=1, le=100, description="At most this many groups.")] = 20,
        min_score: Annotated[
            float | None,
            Query(gt=0, le=1, allow_inf_nan=False, description="For `near`: the least cosine."),
        ] = None,
        cursor: Annotated[str | None, Query(min_length=1, max_length=MAX_CURSOR)] = None,
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

    @app.post(
        "/api/v1/images",
        tags=["pictures"],
        summary="Add a picture to the watched folder",
        status_code=HTTPStatus.CREATED,
        responses={
            200: {"model": UploadResponse, "description": "Exactly this picture was there before"},
            403: problems.DOCUMENT,
            409: problems.DOCUMENT,
            507: problems.DOCUMENT,
        },
    )
    async def upload(
        response: Response,
        image: Annotated[UploadFile, File(description="A picture.")],
        folder: FolderField = "uploads",
        name: NameField = None,
        overwrite: Annotated[bool, Form(description="Replace another picture of its name.")] = (
            False
        ),
    ) -> UploadResponse:
        if uploads is None:
            raise NotAllowed("Uploads are switched off.")
        stored = await uploads.store(
            image.file, name=name or image.filename or "", folder=folder, overwrite=overwrite
        )
        if not stored.created:
            response.status_code = HTTPStatus.OK
        return UploadResponse(
            status="stored" if stored.created else "unchanged",
            image_name=stored.image_id,
            sha256=stored.sha256,
            size_bytes=stored.size_bytes,
            media_type=stored.media_type,
        )

    @app.get(
        f"/thumbnails/{{name:{names.KIND}}}",
        tags=["pictures"],
        summary="A small version of a picture",
        response_class=Response,
        responses={
            200: {"description": "The thumbnail", "content": {"image/jpeg": {}}},
            304: {"description": "It is the one of `If-None-Match`"},
            404: problems.DOCUMENT,
        },
    )
    async def thumbnail(
        name: Annotated[str, AfterValidator(valid_unicode)],
        size: SizeField = 256,
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:
        thumbnail = await thumbnails.find(name, size)
        headers = {**HEADERS, "ETag": f'"{thumbnail.tag}"'}
        if if_none_match is not None and thumbnail.tag in if_none_match:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        file = await thumbnails.file(thumbnail)
        return FileResponse(file, media_type="image/jpeg", headers=headers)

    @app.get(
        f"/images/{{name:{names.KIND}}}",
        tags=["pictures"],
        summary="A picture",
        response_class=Response,
        responses={200: PICTURE, 404: problems.DOCUMENT},
    )
    async def picture(name: str) -> Response:
        return image_response(await images.locate(name), images.transfers)
