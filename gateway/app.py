"""The FastAPI application, assembled from services, routes and middleware."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import APIRouter, FastAPI
from starlette.middleware.cors import CORSMiddleware

from adapters.embedder.port import Embedder
from adapters.index.port import ImageIndex
from adapters.log.port import EventLog
from gateway.auth.access import Access
from gateway.http import methods, openapi, problems
from gateway.http.gate import Gate, RateLimit
from gateway.http.hosts import HostGuard
from gateway.http.limits import BodyLimit, Deadline
from gateway.routes import (
    advice,
    analytics,
    contract,
    duplicates,
    feedback,
    health,
    images,
    listing,
    metrics,
    pages,
    search,
    sign_in,
    state,
)
from gateway.services import Services
from gateway.settings import GatewaySettings
from gateway.state.system_state import Backlog

UPLOADS: Final = ("POST", "/api/v1/images")


def create_app(
    settings: GatewaySettings,
    embedder: Embedder,
    index: ImageIndex,
    log: EventLog,
    backlog: Backlog | None = None,
) -> FastAPI:
    """The gateway as a client of these servers; it contacts none of them before it starts.

    Without a `backlog` the state does not include how many images are waiting.
    """
    services = Services(settings, embedder, index, log, backlog)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with services.running():
            yield

    app = FastAPI(
        title="Image search",
        version="1",
        description="Find pictures by describing them, and rate the answers.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=dict.fromkeys((400, 401, 403, 413, 422, 429, 500, 503), problems.DOCUMENT),
    )
    app.state.activities = [services.search_events.activity]
    problems.install(app)
    for router in _routers(services, settings):
        methods.add_head(router)
        app.include_router(router)
    openapi.complete(app, secured=not services.access.open)
    _add_middleware(app, settings, services.access)
    return app


def _routers(services: Services, settings: GatewaySettings) -> Iterator[APIRouter]:
    """All routes, in the order of the OpenAPI document."""
    yield search.router(services.search, services.receipts, services.privacy)
    yield feedback.router(services.feedback, services.privacy)
    yield health.router(services.readiness)
    yield analytics.router(services.lake)
    yield contract.router()
    yield metrics.router(services.rating_metrics)
    if not services.access.open:
        yield sign_in.router(services.access)
    yield state.router(
        services.state, uploads=settings.uploads, max_upload_bytes=settings.max_upload_bytes
    )
    yield advice.router(services.rating_metrics)
    yield duplicates.router(services.search, services.duplicates)
    yield images.router(services.images, services.thumbnails, services.uploads)
    yield listing.router(
        services.listing, services.folders, root=settings.images_dir.absolute().name
    )
    yield pages.router()


def _add_middleware(app: FastAPI, settings: GatewaySettings, access: Access) -> None:
    """Add the middleware, the innermost first."""
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_body_bytes,
        other={UPLOADS: settings.max_upload_bytes},
    )
    app.add_middleware(
        Deadline, seconds=settings.request_timeout, other={UPLOADS: settings.upload_timeout}
    )
    # The gate is outside of these, so that refusing a request costs little.
    limit = RateLimit(settings.rate_limit, settings.rate_burst) if settings.rate_limit else None
    app.add_middleware(Gate, access=access, limit=limit, origins=settings.cors_origins)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "If-None-Match"],
            expose_headers=["ETag", "Retry-After", "WWW-Authenticate"],
            max_age=600,
        )
    # Outermost: a request for another host reaches no other part.
    app.add_middleware(HostGuard, allowed=settings.allowed_hosts)
