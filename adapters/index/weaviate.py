"""`ImageIndex` on Weaviate: one collection per model version, an alias on the active one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Final, cast
from urllib.parse import urlsplit

import weaviate
from weaviate.classes.init import AdditionalConfig, Auth, Timeout

from adapters.embedder.spec import ModelSpec
from adapters.errors import Rejected, Unavailable
from adapters.index import collections as weaviate_collections
from adapters.index import queries as weaviate_queries
from adapters.index import writes as weaviate_writes
from adapters.index.port import (
    EVERYTHING,
    MAX_RESULTS,
    Collection,
    ImageFilter,
    ImageRecord,
    KnownVector,
    ListedImage,
    Match,
    StoredImage,
)
from adapters.index.weaviate_errors import weaviate_errors
from adapters.naming import ACTIVE_ALIAS, collection_name, object_id

logger = logging.getLogger(__name__)

READY_TIMEOUT_SECONDS: Final = 2.0
PAGE: Final = 1000

CACHE_SECONDS: Final = 10.0
WRITE_CACHE_SECONDS: Final = 1.0
"""A write relies on a collection's description that was read at most this long ago."""


class WeaviateIndex:
    """See `adapters.index.port.ImageIndex`. Connects at its first use."""

    def __init__(
        self,
        url: str,
        *,
        grpc_host: str | None = None,
        grpc_port: int = 50051,
        api_key: str | None = None,
    ) -> None:
        address = urlsplit(url)
        secure = address.scheme == "https"
        host = address.hostname or "127.0.0.1"
        self._client = weaviate.use_async_with_custom(
            http_host=host,
            http_port=address.port or (443 if secure else 80),
            http_secure=secure,
            grpc_host=grpc_host or host,
            grpc_port=grpc_port,
            grpc_secure=secure,
            auth_credentials=Auth.api_key(api_key) if api_key else None,
            # One of the checks requests the client's newest version from the internet.
            skip_init_checks=True,
            additional_config=AdditionalConfig(timeout=Timeout(init=5, query=15, insert=60)),
        )
        self._connecting = asyncio.Lock()
        self._collections: dict[str, tuple[float, Collection]] = {}

    async def connect(self) -> None:
        """Connect now.

        Raises:
            Unavailable: the server does not answer.
        """
        async with self._connecting:
            if not self._client.is_connected():
                with weaviate_errors("Weaviate"):
                    await self._client.connect()

    async def ensure_collection(self, spec: ModelSpec) -> Collection:
        """See `ImageIndex.ensure_collection`."""
        await self.connect()
        with weaviate_errors(f"create {collection_name(spec)}"):
            return await weaviate_collections.ensure(self._client, spec)

    async def find(self, name: str) -> Collection | None:
        """See `ImageIndex.find`."""
        await self.connect()
        with weaviate_errors(f"read {name}"):
            return await weaviate_collections.find(self._client, name)

    async def all_collections(self) -> Sequence[Collection]:
        """See `ImageIndex.all_collections`."""
        await self.connect()
        with weaviate_errors("list the collections"):
            return await weaviate_collections.all_collections(self._client)

    async def active(self) -> Collection | None:
        """See `ImageIndex.active`."""
        await self.connect()
        with weaviate_errors("resolve the active collection"):
            alias = await self._client.alias.get(alias_name=ACTIVE_ALIAS)
        try:
            return None if alias is None else await self._cached_collection(alias.collection)
        except Rejected as error:
            # No query can be embedded for it, so there is no active collection.
            logger.error("%s", error)
            return None

    async def _cached_collection(
        self, name: str, max_age: float = CACHE_SECONDS
    ) -> Collection | None:
        """The collection as it was read at most `max_age` seconds ago; None if there is none."""
        # A collection is replaced by another of the same name only if Weaviate has lost its data.
        known = self._collections.get(name)
        if known is None or time.monotonic() - known[0] > max_age:
            read_at = time.monotonic()
            found = await self.find(name)
            if found is None:
                self._collections.pop(name, None)
                return None  # The alias points at a deleted collection.
            known = self._collections[name] = (read_at, found)
        return known[1]

    async def _check_incarnation(
        self, collection: Collection, max_age: float = WRITE_CACHE_SECONDS
    ) -> None:
        """Return if the collection of this name is still this one.

        Raises:
            Unavailable: it was deleted, or replaced by another of its name.
        """
        found = await self._cached_collection(collection.name, max_age)
        if found is None or found.incarnation != collection.incarnation:
            raise Unavailable(f"{collection.name} was deleted or replaced")

    async def activate(self, collection: Collection) -> None:
        """See `ImageIndex.activate`."""
        await self.connect()
        with weaviate_errors(f"activate {collection.name}"):
            if not await self._client.collections.exists(collection.name):
                raise Rejected(f"there is no collection {collection.name!r}")
            aliases = self._client.alias
            if await aliases.get(alias_name=ACTIVE_ALIAS) is None:
                await aliases.create(alias_name=ACTIVE_ALIAS, target_collection=collection.name)
            else:
                await aliases.update(alias_name=ACTIVE_ALIAS, new_target_collection=collection.name)
            # update() returns False instead of raising, so read the alias again.
            alias = await aliases.get(alias_name=ACTIVE_ALIAS)
            if alias is None or alias.collection != collection.name:
                raise Unavailable(f"the alias {ACTIVE_ALIAS} was not moved to {collection.name}")

    async def drop(self, collection: Collection) -> None:
        """See `ImageIndex.drop`."""
        active = await self.active()
        if active is not None and active.name == collection.name:
            raise Rejected(f"{collection.name} is active")
        with weaviate_errors(f"drop {collection.name}"):
            await self._client.collections.delete(collection.name)
        self._collections.pop(collection.name, None)

    async def known_vectors(
        self, collection: Collection, sha256s: Sequence[str]
    ) -> Mapping[str, KnownVector]:
        """See `ImageIndex.known_vectors`."""
        if not sha256s:
            return {}
        await self.connect()
        with weaviate_errors(f"look up vectors in {collection.name}"):
            objects = self._client.collections.use(collection.name)
            return await weaviate_queries.known_vectors(objects, sha256s)

    async def vectors(
        self, collection: Collection, image_ids: Sequence[str]
    ) -> Mapping[str, Sequence[float]]:
        """See `ImageIndex.vectors`."""
        await self.connect()
        with weaviate_errors(f"read vectors of {collection.name}"):
            found = await self._client.collections.use(collection.name).query.fetch_objects_by_ids(
                [object_id(image_id) for image_id in image_ids],
                include_vector=True,
                return_properties=["image_id"],
                limit=max(1, len(image_ids)),
            )
        return {
            str(item.properties["image_id"]): cast(list[float], item.vector["default"])
            for item in found.objects
        }

    async def upsert(
        self, collection: Collection, records: Sequence[ImageRecord]
    ) -> Mapping[str, str]:
        """See `ImageIndex.upsert`."""
        if not records:
            return {}
        await self.connect()
        await self._check_incarnation(collection)
        with weaviate_errors(f"write to {collection.name}"):
            objects = self._client.collections.use(collection.name)
            refused = await weaviate_writes.upsert(objects, collection, records)
        if refused:
            # If the collection is missing, the images are not at fault, whatever the error says.
            await self._check_incarnation(collection, max_age=0.0)
        return refused

    async def delete(self, collection: Collection, image_ids: Sequence[str]) -> None:
        """See `ImageIndex.delete`."""
        if not image_ids:
            return
        await self.connect()
        await self._check_incarnation(collection)
        with weaviate_errors(f"delete in {collection.name}"):
            objects = self._client.collections.use(collection.name)
            await weaviate_writes.delete(objects, collection, image_ids)

    async def search(
        self,
        collection: Collection,
        vector: Sequence[float],
        limit: int,
        *,
        where: ImageFilter = EVERYTHING,
        details: Sequence[str] = (),
        with_vectors: bool = False,
    ) -> Sequence[Match]:
        """See `ImageIndex.search`."""
        if len(vector) != collection.dimension:
            raise Rejected(f"the vector has {len(vector)} numbers, not {collection.dimension}")
        if limit > MAX_RESULTS:
            raise Rejected(f"the limit {limit} is over {MAX_RESULTS}")
        await self.connect()
        with weaviate_errors(f"search {collection.name}"):
            return await weaviate_queries.search(
                self._client.collections.use(collection.name),
                vector,
                limit,
                where=where,
                details=details,
                with_vectors=with_vectors,
            )

    async def newest(
        self,
        collection: Collection,
        limit: int,
        *,
        before: tuple[datetime, str] | None = None,
        where: ImageFilter = EVERYTHING,
        details: Sequence[str] = (),
    ) -> Sequence[ListedImage]:
        """See `ImageIndex.newest`."""
        if limit > MAX_RESULTS:
            raise Rejected(f"the limit {limit} is over {MAX_RESULTS}")
        await self.connect()
        with weaviate_errors(f"list the newest of {collection.name}"):
            objects = self._client.collections.use(collection.name)
            return await weaviate_queries.newest(
                objects, limit, before=before, where=where, details=details
            )

    async def scroll(
        self,
        collection: Collection,
        after: str | None,
        limit: int,
        *,
        with_vectors: bool = True,
    ) -> Sequence[StoredImage]:
        """See `ImageIndex.scroll`."""
        await self.connect()
        with weaviate_errors(f"scroll through {collection.name}"):
            objects = self._client.collections.use(collection.name)
            return await weaviate_queries.scroll(objects, after, limit, with_vectors=with_vectors)

    async def ids_by_sha256(
        self, collection: Collection, sha256s: Sequence[str]
    ) -> Mapping[str, Sequence[str]]:
        """See `ImageIndex.ids_by_sha256`."""
        if not sha256s:
            return {}
        await self.connect()
        with weaviate_errors(f"look up hashes in {collection.name}"):
            objects = self._client.collections.use(collection.name)
            return await weaviate_queries.ids_by_sha256(objects, sha256s)

    async def hashes(self, collection: Collection, image_ids: Sequence[str]) -> Mapping[str, str]:
        """See `ImageIndex.hashes`."""
        if not image_ids:
            return {}
        await self.connect()
        with weaviate_errors(f"read hashes of {collection.name}"):
            objects = self._client.collections.use(collection.name)
            return await weaviate_queries.hashes(objects, image_ids)

    async def stored(self, collection: Collection) -> AsyncIterator[tuple[str, str]]:
        """See `ImageIndex.stored`."""
        await self.connect()
        after = None
        while True:
            with weaviate_errors(f"list {collection.name}"):
                page = await self._client.collections.use(collection.name).query.fetch_objects(
                    limit=PAGE, after=after, return_properties=["image_id", "sha256"]
                )
            for item in page.objects:
                yield str(item.properties["image_id"]), str(item.properties["sha256"])
            if len(page.objects) < PAGE:
                return
            after = page.objects[-1].uuid

    async def count(self, collection: Collection) -> int:
        """See `ImageIndex.count`."""
        await self.connect()
        with weaviate_errors(f"count {collection.name}"):
            return await self._client.collections.use(collection.name).length()

    async def is_ready(self) -> bool:
        """See `ImageIndex.is_ready`."""
        try:
            async with asyncio.timeout(READY_TIMEOUT_SECONDS):
                await self.connect()
                return await self._client.is_ready()
        except (TimeoutError, Unavailable):
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()
