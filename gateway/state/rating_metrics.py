"""The ratings of the active model as metrics for Prometheus."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from adapters.embedder.port import Embedder
from adapters.errors import AdapterError
from adapters.index.port import ImageIndex
from adapters.log.port import EventLog
from gateway.ttl_cache import TtlCache
from models.advice import Advice, advise
from models.settings import AdviceSettings

logger = logging.getLogger(__name__)
PREFIX = "image_search_ratings"


class RatingMetrics(Collector):
    """Computes the advice at intervals, and exposes the last one as metrics."""

    def __init__(
        self, log: EventLog, embedder: Embedder, index: ImageIndex, settings: AdviceSettings
    ) -> None:
        self._log = log
        self._embedder = embedder
        self._index = index
        self._settings = settings
        self._last: Advice | None = None
        self._newest = TtlCache(self._advise)

    async def keep_fresh(self) -> None:
        """Compute the advice at intervals until cancelled. A failure is logged and retried."""
        while True:
            try:
                await self.refresh()
            except AdapterError as error:
                # Old advice may name a model that is gone: expose none.
                self._last = None
                logger.warning("the ratings cannot be read: %s", error)
            await asyncio.sleep(self._settings.advice_refresh)

    async def refresh(self) -> None:
        """Compute the advice now; raises as `advise`."""
        self._last = await self._advise()

    async def newest(self) -> Advice:
        """The advice, which may be some seconds old; raises as `advise`."""
        return await self._newest.get()

    async def _advise(self) -> Advice:
        return await advise(self._log, self._embedder, self._index, self._settings)

    def collect(self) -> Iterator[Metric]:
        """Count and mean of the ratings, whether it is low, and a candidate's gain in nDCG."""
        last = self._last
        if last is None or last.model is None:
            return
        for name, text, value in (
            ("count", "Ratings of the active model in the window", float(last.ratings)),
            ("mean", "Mean of these ratings, 1 to 10", last.mean),
            ("low", "1 if this mean is below the threshold, else 0", float(last.low)),
        ):
            if value is not None:
                gauge = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=["model"])
                gauge.add_metric([last.model], value)
                yield gauge
        if last.candidate and last.candidate_ndcg is not None and last.active_ndcg is not None:
            gain = GaugeMetricFamily(
                f"{PREFIX}_candidate_ndcg_gain",
                "nDCG of this loaded model on the rated queries, less that of the active one",
                labels=["model", "candidate"],
            )
            gain.add_metric([last.model, last.candidate], last.candidate_ndcg - last.active_ndcg)
            yield gain
