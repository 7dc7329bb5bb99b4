"""The schemas of topics and events, for programs that read the topics themselves."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path

from gateway.http import problems
from gateway.http.problems import Problem
from schemas import asyncapi, json_schema

Name = Annotated[str, Path(pattern=r"^[a-z.]{1,100}$")]
Major = Annotated[str, Path(pattern=r"^\d{1,9}$")]


# Generated from the code that writes the events, once, at the first request.
_document = functools.cache(asyncapi.document)
_schemas = functools.cache(json_schema.generate)


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["events"])

    @routes.get("/api/v1/asyncapi.json", summary="The topics and events (AsyncAPI 3)")
    async def contract() -> dict[str, Any]:
        return _document()

    @routes.get(
        "/api/v1/schemas/{major}/{topic}.json",
        summary="The JSON Schema of a topic's events",
        responses={404: problems.DOCUMENT},
    )
    async def schema(major: Major, topic: Name) -> Mapping[str, Any]:
        try:
            return _schemas()[f"{major}/{topic}.json"]
        except KeyError:
            raise Problem(
                HTTPStatus.NOT_FOUND, f"There is no topic {topic} in version {major}."
            ) from None

    return routes
