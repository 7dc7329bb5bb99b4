"""What the ratings say of the active model, for Prometheus at `/metrics`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

from fastapi import FastAPI, Response
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from adapters.embedder.port import Embedder
from adapters.errors import AdapterError
from adapters.index.port import ImageIndex
from adapters.log.port import EventLog
from adapters.settings import AdviceSettings
from models.advice import Advice, advise

logger = logging.getLogger(__name__)
PREFIX = "image_search_ratings"


class Ratings(Collector):
    """Works the advice out now and then, and tells the last one when asked."""

    def __init__(
        self, log: EventLog, embedder: Embedder, index: ImageIndex, settings: AdviceSettings
    ) -> None:
        self._log = log
        self._embedder = embedder
        self._index = index
        self._settings = settings
        self._last: Advice | None = None

    async def keep_fresh(self) -> None:
        """Never ends; what cannot be worked out now is worked out the next time."""
        while True:
            try:
                await self.refresh()
            except AdapterError as error:
                # Old advice may name a model that is gone: better none.
                self._last = None
                logger.warning("the ratings cannot be looked at: %s", error)
            await asyncio.sleep(self._settings.advice_refresh)

    async def refresh(self) -> None:
        """Work it out; raises as `advise`."""
        self._last = await advise(self._log, self._embedder, self._index, self._settings)

    def collect(self) -> Iterator[Metric]:
        """The mean, the count, whether it is low, and by how much a candidate would be better."""
        last = self._last
        if last is None or last.model is None:
            return
        for name, text, value in (
            ("count", "Ratings of the active model in the window", float(last.ratings)),
            ("mean", "Their mean, 1 to 10", last.mean),
            ("low", "1 while the mean is below the threshold", float(last.low)),
        ):
            if value is not None:
                gauge = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=["model"])
                gauge.add_metric([last.model], value)
                yield gauge
        if last.candidate and last.candidate_ndcg is not None and last.active_ndcg is not None:
            gain = GaugeMetricFamily(
                f"{PREFIX}_candidate_ndcg_gain",
                "By how much this loaded model's nDCG is higher on the rated queries",
                labels=["model", "candidate"],
            )
            gain.add_metric([last.model, last.candidate], last.candidate_ndcg - last.active_ndcg)
            yield gain


def add_route(app: FastAPI, ratings: Ratings) -> None:
    """`GET /metrics`, in Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(ratings)

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
