"""Searching."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from gateway.auth.privacy import Privacy
from gateway.auth.receipts import Receipt, Receipts
from gateway.http import problems
from gateway.http import request_bodies as bodies
from gateway.http.api_models import SearchResponse, search_response
from gateway.http.gate import caller_of
from gateway.http.limits import extend
from gateway.search.service import Answer, Search
from schemas.events import now


class _Direct(APIRoute):
    """A route that FastAPI only documents: its function takes the request and returns the response.

    FastAPI's own handling would add a hundredth to the time of a search, although there is nothing
    for it to resolve, validate or serialize.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self.endpoint


def router(search: Search, receipts: Receipts, privacy: Privacy) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["search"], route_class=_Direct)

    @routes.post(
        "/api/v1/search-image",
        summary="Find pictures by text or picture",
        response_model=SearchResponse,
        responses={409: problems.DOCUMENT, 415: problems.DOCUMENT},
        openapi_extra=bodies.request_body(),
    )
    async def search_image(request: Request) -> Response:
        body = await bodies.search_request(request)
        if body.wait_for is not None:
            wanted = body.wait_for
            extend(request.scope, wanted.timeout_s)
            await search.image_lookup.until_indexed(
                wanted.image_name, wanted.sha256, timeout=wanted.timeout_s
            )
        client = privacy.client(caller_of(request.scope))
        answer = await search.answer(body.question(), client)
        found = search_response(body, answer, receipts.sign(_receipt(answer)))
        # Optional fields that were not selected are absent rather than null, as in version 1.0.
        return Response(found.model_dump_json(exclude_unset=True), media_type="application/json")

    return routes


def _receipt(answer: Answer) -> Receipt:
    top = answer.matches[0].match if answer.matches else None
    return Receipt(
        search_id=answer.search_id,
        text=answer.query,
        model_name=answer.collection.model_name,
        top_image=top.image_id if top else None,
        top_score=top.score if top else None,
        issued_at=now(),
    )
