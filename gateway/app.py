"""The FastAPI application, joined from its parts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

from fastapi import FastAPI, Request, Response
from starlette.responses import FileResponse

from adapters.ports import Embedder, EventLog, ImageIndex
from adapters.retry import until_available
from adapters.settings import GatewaySettings
from gateway import analytics, pictures, problems
from gateway.events import SearchEvents
from gateway.feedback import Feedback
from gateway.health import Health
from gateway.http_models import (
    FeedbackRequest,
    FeedbackResponse,
    HealthBody,
    MatchBody,
    SearchRequest,
    SearchResponse,
)
from gateway.limits import BodyLimit
from gateway.problems import Problem
from gateway.query import QueryEmbedder
from gateway.search import Search
from gateway.tokens import Receipt, Receipts, load_or_create_secret
from schemas.events import now

logger = logging.getLogger(__name__)

WEB = Path(__file__).with_name("web")
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
PAGE_FILES = {
    "app.js": "text/javascript; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
PROBLEM = {"description": "A problem document (RFC 9457)", "content": {problems.MEDIA_TYPE: {}}}


def create_app(
    settings: GatewaySettings, embedder: Embedder, index: ImageIndex, log: EventLog
) -> FastAPI:
    """The gateway on these servers; nothing is contacted before it starts."""
    secret = (
        settings.jwt_secret.get_secret_value()
        if settings.jwt_secret
        else load_or_create_secret(settings.jwt_secret_file)
    )
    receipts = Receipts(secret, lifetime_seconds=settings.jwt_lifetime)
    events = SearchEvents(log, capacity=settings.event_buffer)
    queries = QueryEmbedder(embedder, index, max_pixels=settings.max_pixels)
    search = Search(queries, index, events)
    health = Health(search, queries, embedder, index, log)
    feedback = Feedback(receipts, log, timeout=settings.request_timeout)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        events.start()
        warming = asyncio.create_task(until_available(search.warm_up, what="warm-up"))
        yield
        warming.cancel()
        await asyncio.gather(warming, return_exceptions=True)
        await events.stop()

    app = FastAPI(
        title="Image search",
        version="1",
        description="Find pictures by describing them, and say how good the answer was.",
        lifespan=lifespan,
        responses={
            400: PROBLEM,
            413: PROBLEM,
            422: PROBLEM,
            500: PROBLEM,
            503: PROBLEM,
        },
    )
    problems.install(app)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    _add_deadline(app, settings.request_timeout)
    _add_api(app, search, receipts, feedback, health)
    app.include_router(analytics.router(settings.lake_url))
    _add_files(app, settings.images_dir)
    return app


def _add_deadline(app: FastAPI, seconds: float) -> None:
    @app.middleware("http")
    async def deadline(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        try:
            async with asyncio.timeout(seconds):
                return await call_next(request)
        except TimeoutError:
            return problems.response(
                Problem(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    f"no answer within {seconds:g} s",
                    headers={"Retry-After": "2"},
                )
            )


def _add_api(
    app: FastAPI, search: Search, receipts: Receipts, feedback: Feedback, health: Health
) -> None:
    @app.post("/api/v1/search-image", tags=["search"], summary="Find pictures by text or picture")
    async def search_image(body: SearchRequest) -> SearchResponse:
        answer = await search.answer(body.as_terms(), limit=body.limit, min_score=body.min_score)
        top = answer.matches[0] if answer.matches else None
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
        return SearchResponse(
            text=answer.query,
            model_name=answer.collection.model_name,
            matches=[
                MatchBody(image_name=match.image_id, score=match.score) for match in answer.matches
            ],
            jwt=token,
        )

    @app.post(
        "/api/v1/create-feedback",
        tags=["feedback"],
        summary="Rate the answer to a search",
        responses={401: PROBLEM},
    )
    async def create_feedback(body: FeedbackRequest) -> FeedbackResponse:
        return await feedback.give(body)

    @app.get("/api/v1/healthcheck", tags=["health"], summary="Can a search be answered?")
    async def healthcheck() -> HealthBody:
        return await health.check()


def _add_files(app: FastAPI, images: Path) -> None:
    @app.get("/images/{name:path}", tags=["pictures"], summary="A picture", response_model=None)
    async def image(name: str) -> Response:
        return await asyncio.to_thread(pictures.response, images, name)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(WEB / "index.html", headers=PAGE_HEADERS)

    @app.get("/web/{name}", include_in_schema=False)
    async def page_file(name: str) -> Response:
        if name not in PAGE_FILES:
            raise Problem(HTTPStatus.NOT_FOUND, "There is no such file.")
        return FileResponse(WEB / name, media_type=PAGE_FILES[name], headers=PAGE_HEADERS)
