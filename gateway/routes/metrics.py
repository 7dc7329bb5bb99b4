"""`GET /metrics`, in Prometheus's text format."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry


def router(*collectors: Collector) -> APIRouter:
    """The route; it exposes the metrics of these collectors."""
    routes = APIRouter(include_in_schema=False)
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)

    @routes.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return routes
