"""Whether a search can be answered, and what is missing if not."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from adapters.embedder.port import Embedder
from adapters.errors import AdapterError
from adapters.index.port import ImageIndex
from adapters.log.port import EventLog
from gateway.http.api_models import HealthBody
from gateway.http.problems import Problem
from gateway.search.query import QueryEmbedder
from gateway.search.service import Search


class Health:
    """Asks every server that a search or a feedback needs."""

    def __init__(
        self,
        search: Search,
        queries: QueryEmbedder,
        embedder: Embedder,
        index: ImageIndex,
        log: EventLog,
    ) -> None:
        self._search = search
        self._queries = queries
        self._embedder = embedder
        self._index = index
        self._log = log

    async def check(self) -> HealthBody:
        """The state of a system that works.

        Raises:
            Problem: 503, with the missing parts in `missing`.
        """
        weaviate, kafka = await asyncio.gather(self._index.is_ready(), self._log.is_ready())
        missing = {
            name: "does not answer"
            for name, ready in (("weaviate", weaviate), ("kafka", kafka))
            if not ready
        }
        if weaviate:
            try:
                collection = await self._search.active()
                await self._queries.check_model(collection)
                if not await self._embedder.is_ready(collection.model_name):
                    missing["triton"] = f"the model {collection.model_name} is not ready"
                elif not self._search.warm:
                    missing["model"] = f"{collection.model_name} is being warmed up"
                elif not missing:
                    return HealthBody(
                        model_name=collection.model_name,
                        model_version=collection.model_version,
                        collection=collection.name,
                        images=await self._index.count(collection),
                    )
            except AdapterError as error:
                missing["model"] = str(error)
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "; ".join(f"{name}: {why}" for name, why in missing.items()),
            missing=missing,
            headers={"Retry-After": "2"},
        )
