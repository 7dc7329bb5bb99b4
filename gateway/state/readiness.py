"""Whether a search can be answered now, and what is missing if not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from adapters.embedder.port import Embedder
from adapters.errors import AdapterError
from adapters.index.port import Collection, ImageIndex
from adapters.log.port import EventLog
from gateway.errors import NotReady
from gateway.search.query import QueryEmbedder
from gateway.search.service import Search


@dataclass(frozen=True, slots=True)
class ActiveCollection:
    """The collection that answers searches, and how many images it holds."""

    collection: Collection
    images: int


class Readiness:
    """Checks every server that a search or a rating needs."""

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

    async def check(self) -> ActiveCollection:
        """The collection that answers searches.

        Raises:
            NotReady: parts are missing; it names them and the reasons.
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
                    return ActiveCollection(collection, await self._index.count(collection))
            except AdapterError as error:
                missing["model"] = str(error)
        raise NotReady(missing)
