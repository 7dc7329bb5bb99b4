"""Whether a search can be answered."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from gateway.state.readiness import Readiness


class HealthBody(BaseModel):
    """A search can be answered."""

    status: str = "ok"
    model_name: str
    model_version: str
    collection: str
    images: int


def router(readiness: Readiness) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["health"])

    @routes.get("/api/v1/healthcheck", summary="Whether searches can be answered")
    async def healthcheck() -> HealthBody:
        ready = await readiness.check()
        return HealthBody(
            model_name=ready.collection.model_name,
            model_version=ready.collection.model_version,
            collection=ready.collection.name,
            images=ready.images,
        )

    return routes
