"""The FastAPI application, joined from its parts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware

from adapters.embedder.port import Embedder
from adapters.index.port import ImageIndex
from adapters.log.port import EventLog
from adapters.settings import GatewaySettings
from analytics.engine import Bounds
from gateway.auth.access import Access, ApiKeys, OpenIdConnect
from gateway.auth.cursors import Cursors
from gateway.auth.privacy import Privacy
from gateway.auth.receipts import Receipt, Receipts, receipt_secret
from gateway.http import docs_page, problems, sign_in
from gateway.http import request_bodies as bodies
from gateway.http import static as page
from gateway.http.api_models import (
    FeedbackRequest,
    FeedbackResponse,
    HealthBody,
    SearchResponse,
    search_response,
)
from gateway.http.gate import Gate, RateLimit
from gateway.http.hosts import HostGuard
from gateway.http.limits import BodyLimit, Deadline, extend
from gateway.images.files import Pictures, Served
from gateway.images.thumbnails import Thumbnails
from gateway.images.uploads import Uploads
from gateway.lake_queries import CONCURRENT
from gateway.routes import analytics, contract, metrics, openapi, state
from gateway.routes import images as library
from gateway.routes.feedback import Feedback
from gateway.routes.health import Health
from gateway.search.duplicates import Duplicates
from gateway.search.events import SearchEvents
from gateway.search.query import QueryEmbedder
from gateway.search.service import Search
from imaging.decoders import Decoders
from imaging.sandbox.pool import Sandbox
from schemas.events import now

logger = logging.getLogger(__name__)

PROBLEM = problems.DOCUMENT
UPLOADS = "/api/v1/images"
DECODING_SHARE = 0.75
"""Of a request's time: what decoding one picture may take of it."""


def create_app(
    settings: GatewaySettings,
    embedder: Embedder,
    index: ImageIndex,
    log: EventLog,
    backlog: state.Backlog | None = None,
) -> FastAPI:
    """The gateway on these servers; nothing is contacted before it starts.

    Without a `backlog` the state does not tell how many pictures are waiting.
    """
    secret = receipt_secret(settings)
    receipts = Receipts(secret, lifetime_seconds=settings.jwt_lifetime)
    events = SearchEvents(log, capacity=settings.event_buffer)
    decoders = _decoders(settings)
    queries = QueryEmbedder(embedder, index, decoders, text_cache=settings.text_cache)
    cursors = Cursors(secret)
    privacy = Privacy(settings, secret)
    search = Search(
        queries,
        index,
        events,
        cursors,
        privacy,
        duplicate_score=settings.duplicate_score,
        patience=settings.outage_patience,
    )
    health = Health(search, queries, embedder, index, log)
    feedback = Feedback(receipts, log, privacy, timeout=settings.request_timeout)
    ratings = metrics.Ratings(log, embedder, index, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        events.start()
        tasks = [
            asyncio.create_task(search.keep_warm(), name="warm-up"),
            asyncio.create_task(ratings.keep_fresh(), name="ratings"),
        ]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        decoders.close()
        if uploads is not None:
            await uploads.close()
        await events.stop()

    app = FastAPI(
        title="Image search",
        version="1",
        description="Find pictures by describing them, and say how good the answer was.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses={
            400: PROBLEM,
            401: PROBLEM,
            403: PROBLEM,
            413: PROBLEM,
            422: PROBLEM,
            429: PROBLEM,
            500: PROBLEM,
            503: PROBLEM,
        },
    )
    app.state.activities = [events.activity]
    problems.install(app)
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_body_bytes,
        other={UPLOADS: settings.max_upload_bytes},
    )
    app.add_middleware(
        Deadline, seconds=settings.request_timeout, other={UPLOADS: settings.upload_timeout}
    )
    _add_api(app, search, receipts, feedback, health, privacy)
    app.include_router(
        analytics.router(settings.lake_url, Bounds.of(settings, connections=CONCURRENT))
    )
    app.include_router(contract.router())
    metrics.add_route(app, ratings)
    _add_gate(app, settings)
    status = state.State(
        search,
        index,
        log,
        backlog,
        uploads=settings.uploads,
        max_upload_bytes=settings.max_upload_bytes,
        watcher_status_file=settings.watcher_status_file,
    )
    state.add_routes(app, status)
    uploads: Uploads | None = None
    if settings.uploads:
        uploads = Uploads(
            settings.images_dir,
            decoders,
            max_bytes=settings.max_upload_bytes,
            workers=settings.picture_workers,
            reserved=[source.name for source in settings.images_sources],
            ignore_defaults=settings.ignore_defaults,
        )
    images = Pictures(
        settings,
        Served(search.presence, status.failed_images),
        max_bytes=settings.max_image_bytes,
    )
    library.add_routes(
        app,
        images=images,
        search=search,
        duplicates=Duplicates(index, cursors, near_score=settings.duplicate_score),
        thumbnails=Thumbnails(
            images,
            settings.thumbnails_dir,
            decoders,
            max_bytes=settings.thumbnails_bytes,
            max_image_bytes=settings.max_image_bytes,
            readers=settings.picture_workers,
        ),
        uploads=uploads,
    )
    page.add_routes(app)
    docs_page.add_routes(app)
    # Last, and so before anything else: what is not meant for this host reaches no other part.
    app.add_middleware(HostGuard, allowed=settings.allowed_hosts)
    return app


def _decoders(settings: GatewaySettings) -> Decoders:
    """What decodes for queries, thumbnails and uploads, within one bound for all of them."""
    sandbox = Sandbox(
        settings.picture_workers,
        memory_bytes=settings.decode_memory_bytes * 3 // 2,
        # So that whoever asks is told that it was the picture, rather than that time was over.
        seconds=min(settings.decode_seconds, DECODING_SHARE * settings.request_timeout),
        once=True,
    )
    return Decoders(sandbox, max_pixels=settings.max_pixels)


def _add_gate(app: FastAPI, settings: GatewaySettings) -> None:
    """Who may ask, how often, and from which pages; outermost, so that refusing costs little."""
    keys = [key.get_secret_value() for key in settings.api_keys]
    access = Access(
        ApiKeys(keys) if keys else None,
        OpenIdConnect(settings.oidc_issuer, settings.oidc_audience)
        if settings.oidc_issuer and settings.oidc_audience
        else None,
    )
    limit = RateLimit(settings.rate_limit, settings.rate_burst) if settings.rate_limit else None
    app.add_middleware(Gate, access=access, limit=limit, origins=settings.cors_origins)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "If-None-Match"],
            expose_headers=["ETag", "Retry-After", "WWW-Authenticate"],
            max_age=600,
        )
    if not access.open:
        sign_in.add_routes(app, access)
    openapi.complete(app, secured=not access.open)


class _Direct(APIRoute):
    """A route that FastAPI only documents: it takes the request and makes the response itself.

    What FastAPI does for a route that has nothing to be solved, validated or serialized still
    takes a hundredth of a search's time.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self.endpoint


def _add_api(
    app: FastAPI,
    search: Search,
    receipts: Receipts,
    feedback: Feedback,
    health: Health,
    privacy: Privacy,
) -> None:
    async def search_image(request: Request) -> Response:
        body = await bodies.search_request(request)
        if body.wait_for is not None:
            wanted = body.wait_for
            extend(request.scope, wanted.timeout_s)
            await search.presence.until_indexed(
                wanted.image_name, wanted.sha256, timeout=wanted.timeout_s
            )
        answer = await search.answer(body.question(), privacy.client(request.scope))
        top = answer.matches[0].match if answer.matches else None
        token = receipts.sign(
            Receipt(
                search_id=answer.search_id,
                text=answer.query,
                model_name=answer.collection.model_name,
                top_image=top.image_id if top else None,
                top_score=top.score if top else None,
                issued_at=now(),
            )
        )
        found = search_response(body, answer, token)
        # What was not asked for is absent rather than null: the shape of 1.0 stays as it is.
        return Response(found.model_dump_json(exclude_unset=True), media_type="application/json")

    app.router.add_api_route(
        "/api/v1/search-image",
        search_image,
        methods=["POST"],
        route_class_override=_Direct,
        tags=["search"],
        summary="Find pictures by text or picture",
        response_model=SearchResponse,
        responses={409: PROBLEM, 415: PROBLEM},
        openapi_extra=bodies.request_body(),
    )

    @app.post(
        "/api/v1/create-feedback",
        tags=["feedback"],
        summary="Rate the answer to a search",
        responses={401: PROBLEM},
    )
    async def create_feedback(request: Request, body: FeedbackRequest) -> FeedbackResponse:
        return await feedback.give(body, privacy.client(request.scope))

    @app.get("/api/v1/healthcheck", tags=["health"], summary="Can a search be answered?")
    async def healthcheck() -> HealthBody:
        return await health.check()
