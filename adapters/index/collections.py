"""Creating and reading Weaviate's collections; errors of the client are not translated here."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence

from weaviate import WeaviateAsyncClient
from weaviate.classes.config import Configure, Property, VectorDistances
from weaviate.exceptions import (
    ObjectAlreadyExistsException,
    UnexpectedStatusCodeError,
    WeaviateInvalidInputError,
)

from adapters.embedder.spec import ModelSpec
from adapters.errors import Rejected, Unavailable
from adapters.index.port import Collection
from adapters.index.schema import collection_description, collection_of, properties
from adapters.naming import COLLECTION_PREFIX, collection_name

logger = logging.getLogger(__name__)


async def find(client: WeaviateAsyncClient, name: str) -> Collection | None:
    """See `ImageIndex.find`.

    Raises:
        Rejected: its description does not state its model.
    """
    if not await client.collections.exists(name):
        return None
    config = await client.collections.use(name).config.get(simple=True)
    return collection_of(name, config.description)


async def ensure(client: WeaviateAsyncClient, spec: ModelSpec) -> Collection:
    """See `ImageIndex.ensure_collection`."""
    name = collection_name(spec)
    try:
        found = await find(client, name)
    except Rejected as error:
        # Weaviate's automatic schema created it from the first write: its properties are guesses,
        # and its contents may be incomplete.
        logger.error("%s; it is replaced and filled from the beginning", error)
        await client.collections.delete(name)
        found = None
    if found is None:
        await _create(client, name, spec)
        found = await find(client, name)
    else:
        await _add_missing_properties(client, name)
    if found is None:
        raise Unavailable(f"the collection {name} was deleted again")
    return found


async def _create(client: WeaviateAsyncClient, name: str, spec: ModelSpec) -> None:
    try:
        await client.collections.create(
            name,
            description=collection_description(spec, secrets.token_hex(4)),
            properties=properties(),
            vector_config=Configure.Vectors.self_provided(
                vector_index_config=Configure.VectorIndex.hnsw(
                    distance_metric=VectorDistances.COSINE
                )
            ),
        )
    except (ObjectAlreadyExistsException, UnexpectedStatusCodeError):
        # Several indexers start together: another one may have created it first.
        if not await client.collections.exists(name):
            raise


async def _add_missing_properties(client: WeaviateAsyncClient, name: str) -> None:
    """Add the properties that a collection of an earlier version lacks."""
    objects = client.collections.use(name)

    async def missing() -> list[Property]:
        held = {each.name for each in (await objects.config.get()).properties}
        return [each for each in properties() if each.name not in held]

    for each in await missing():
        try:
            await objects.config.add_property(each)
        except (WeaviateInvalidInputError, UnexpectedStatusCodeError):
            # As with the collection itself, another indexer may have been first.
            if each.name in {other.name for other in await missing()}:
                raise


async def all_collections(client: WeaviateAsyncClient) -> Sequence[Collection]:
    """See `ImageIndex.all_collections`."""
    found = []
    for name, config in (await client.collections.list_all(simple=True)).items():
        if name.startswith(COLLECTION_PREFIX):
            try:
                found.append(collection_of(name, config.description))
            except Rejected as error:
                logger.warning("%s", error)
    return sorted(found, key=lambda each: each.name)
