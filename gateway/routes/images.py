"""Image files: uploads, thumbnails, and the images themselves."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, File, Form, Header, Path, Query, Response, UploadFile
from pydantic import AfterValidator, BaseModel, BeforeValidator
from starlette.responses import FileResponse

from gateway.errors import NotAllowed
from gateway.http import path_names, problems
from gateway.http.api_models import MAX_NAME
from gateway.http.image_responses import HEADERS, image_response
from gateway.images.files import ImageFiles
from gateway.images.thumbnails import Size, Thumbnails
from gateway.images.uploads import Uploads
from gateway.search.filters import valid_unicode

IMAGE = {"description": "The picture", "content": {"image/*": {}}}


class UploadResponse(BaseModel):
    """A picture in the watched folder. `image_name` and `sha256` can be used in `wait_for`."""

    status: Literal["stored", "unchanged"]
    image_name: str
    sha256: str
    size_bytes: int
    media_type: str


def _number(value: object) -> object:
    # The values of a query string are texts, which do not equal the numbers of a `Literal`.
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


PathName = Annotated[str, Path(json_schema_extra={"maxLength": MAX_NAME})]
"""Not checked: no picture has a longer name, so it is answered with 404, as unknown ones are."""
SizeField = Annotated[Size, BeforeValidator(_number), Query(description="Longest edge, in pixels.")]
FolderField = Annotated[
    str,
    Form(
        max_length=2000,
        description="Folder below the watched one, which is `/`; created if it is missing.",
    ),
]
NameField = Annotated[
    str | None, Form(max_length=1000, description="Name to store it under; by default the file's.")
]


def router(images: ImageFiles, thumbnails: Thumbnails, uploads: Uploads | None) -> APIRouter:
    """The routes; `uploads` is None where nothing may be uploaded."""
    routes = APIRouter(tags=["pictures"])

    @routes.post(
        "/api/v1/images",
        summary="Add a picture to the watched folder",
        status_code=HTTPStatus.CREATED,
        responses={
            200: {"model": UploadResponse, "description": "The same picture was stored before"},
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
        overwrite: Annotated[
            bool, Form(description="Replace an existing picture of the same name.")
        ] = (False),
    ) -> UploadResponse:
        if uploads is None:
            raise NotAllowed("Uploads are disabled.")
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

    @routes.get(
        f"/thumbnails/{{name:{path_names.CONVERTOR}}}",
        summary="The thumbnail of a picture",
        response_class=Response,
        responses={
            200: {"description": "The thumbnail", "content": {"image/jpeg": {}}},
            304: {"description": "The thumbnail matches `If-None-Match`"},
            404: problems.DOCUMENT,
        },
    )
    async def thumbnail(
        name: Annotated[PathName, AfterValidator(valid_unicode)],
        size: SizeField = 256,
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:
        thumbnail = await thumbnails.find(name, size)
        headers = {**HEADERS, "ETag": f'"{thumbnail.tag}"'}
        if if_none_match is not None and thumbnail.tag in if_none_match:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        file = await thumbnails.file(thumbnail)
        return FileResponse(file, media_type="image/jpeg", headers=headers)

    @routes.get(
        f"/images/{{name:{path_names.CONVERTOR}}}",
        summary="A picture",
        operation_id="picture_images__name__get",
        response_class=Response,
        responses={200: IMAGE, 404: problems.DOCUMENT},
    )
    async def image(name: PathName) -> Response:
        return image_response(await images.locate(name), images.transfers)

    return routes
