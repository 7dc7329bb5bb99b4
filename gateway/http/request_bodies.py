"""Parsing a search request from JSON, or from a form that contains an image."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Final

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from gateway.http.api_models import SearchRequest
from gateway.http.problems import Problem

FORM: Final = "multipart/form-data"
PLAIN_FIELDS: Final = ("text", "image_name", "cut_off", "cursor")
"""Fields of a form that are plain text; all others are JSON."""
MAX_FIELDS: Final = 64
# Replaces the form's image during validation, so that the image need not be encoded in Base64.
_PLACEHOLDER: Final = "AAAA"

OPTIONS: Final = tuple(
    name for name in SearchRequest.model_fields if name not in ("text", "image_name", "terms")
)
"""Fields of the form, the image included."""


def request_body() -> dict[str, Any]:
    """The description of the body in the OpenAPI document."""
    reference = "#/components/schemas/{model}"
    known = SearchRequest.model_json_schema(ref_template=reference)["properties"]
    form = {
        "type": "object",
        "required": ["image"],
        "additionalProperties": False,
        "properties": {
            **{name: known[name] for name in OPTIONS},
            "image": {"type": "string", "format": "binary", "description": "A picture."},
        },
    }
    encoded = {
        name: {"contentType": "application/json"}
        for name in OPTIONS
        if name not in ("image", "include", *PLAIN_FIELDS)
    }
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": reference.format(model="SearchRequest")}},
                FORM: {"schema": form, "encoding": encoded},
            },
        }
    }


async def search_request(request: Request) -> SearchRequest:
    """The request's body.

    Raises:
        RequestValidationError: a field is wrong.
        Problem: 400 for invalid JSON, 415 for another media type.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == FORM:
        return await _from_form(request)
    # A missing media type means JSON, as many small clients send none.
    if media_type not in ("", "application/json") and not media_type.endswith("+json"):
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Send application/json or {FORM}, not {media_type}."
        )
    body = await request.body()
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Problem(HTTPStatus.BAD_REQUEST, f"The body is not valid JSON: {error}.") from error
    return _validate(value)


async def _from_form(request: Request) -> SearchRequest:
    async with request.form(max_files=1, max_fields=MAX_FIELDS) as form:
        values: dict[str, Any] = {}
        image: bytes | None = None
        for name, value in form.multi_items():
            if name not in OPTIONS:
                raise _invalid(name, "is not a field of this form")
            if isinstance(value, UploadFile):
                if name != "image":
                    raise _invalid(name, "must not be a file")
                image = await value.read()
                values[name] = _PLACEHOLDER
            elif name == "include" and not value.startswith("["):
                # Repeated for each property, as is usual for lists in forms.
                values.setdefault(name, []).append(value)
            elif name in values:
                raise _invalid(name, "is given twice")
            elif name in PLAIN_FIELDS:
                values[name] = value
            elif name == "image":
                raise _invalid(name, "must be a file")
            else:
                values[name] = _json(value, name)
    if image is None:
        raise _invalid("image", "the form must contain a picture")
    return _validate(values).model_copy(update={"image": image})


def _json(text: str, field: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _invalid(field, f"must be JSON: {error}") from error


def _validate(value: Any) -> SearchRequest:
    try:
        return SearchRequest.model_validate(value)
    except ValidationError as error:
        raise RequestValidationError(
            [{**each, "loc": ("body", *each["loc"])} for each in error.errors(include_url=False)]
        ) from error


def _invalid(field: str, message: str) -> RequestValidationError:
    return RequestValidationError([{"type": "value_error", "loc": ("body", field), "msg": message}])
