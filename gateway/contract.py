"""The contract of the events, for those who read the topics themselves."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path

from gateway import problems
from gateway.problems import Problem
from schemas import asyncapi, json_schema

Name = Annotated[str, Path(pattern=r"^[a-z.]{1,100}$")]
Major = Annotated[str, Path(pattern=r"^\d{1,9}$")]


def router() -> APIRouter:
    """The routes; the documents are made once, from the code that writes the events."""
    routes = APIRouter(tags=["events"])
    document = asyncapi.document()
    schemas = json_schema.generate()

    @routes.get("/api/v1/asyncapi.json", summary="The topics and events (AsyncAPI 3)")
    async def contract() -> dict[str, Any]:
        return document

    @routes.get(
        "/api/v1/schemas/{major}/{topic}.json",
        summary="The JSON Schema of a topic's events",
        responses={404: problems.DOCUMENT},
    )
    async def schema(major: Major, topic: Name) -> Mapping[str, Any]:
        try:
            return schemas[f"{major}/{topic}.json"]
        except KeyError:
            raise Problem(
                HTTPStatus.NOT_FOUND, f"There is no topic {topic} in version {major}."
            ) from None

    return routes
