"""Turning the terms of a query into one vector in the collection's space.

Terms are combined as v = u / |u| with u = sum of w_i v_i over unit vectors v_i: the weighted sum of
directions, a negative weight turning away from one (Rocchio's formula, 1971, without its decay).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adapters.embedder.port import Embedder
from adapters.embedder.spec import ModelSpec
from adapters.errors import Rejected, Unavailable
from adapters.index.port import Collection, ImageIndex
from adapters.name_forms import forms
from gateway.errors import InvalidField
from gateway.search.text_batches import TextBatches
from gateway.search.text_cache import TextCache
from imaging.decoders import Decoders
from schemas.events import SearchKind

SMALLEST_LENGTH = 1e-4
_Named = Mapping[str, tuple[str, list[float]]]
"""Name in the query -> id and vector of the image."""


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a query: a text, the name of an indexed image, or the bytes of an image."""

    field: str
    """Its field in the request, for error messages."""
    weight: float = 1.0
    text: str | None = None
    image_id: str | None = None
    image: bytes | None = None

    def describe(self) -> str:
        """The term in the short form, for instance `2:dog` or `./a.jpg`."""
        what = self.text or (f"./{self.image_id}" if self.image_id else "(picture)")
        return what if abs(self.weight) == 1 else f"{abs(self.weight):g}:{what}"


@dataclass(frozen=True, slots=True)
class QueryVector:
    """A query as a unit vector; `own` are the ids of its images of positive weight."""

    vector: list[float]
    own: frozenset[str] = frozenset()


def kind_of(terms: Sequence[Term]) -> SearchKind:
    """How a search with these terms is recorded."""
    if len(terms) > 1 or terms[0].weight != 1:
        return SearchKind.TERMS
    if terms[0].text is not None:
        return SearchKind.TEXT
    return SearchKind.IMAGE if terms[0].image is not None else SearchKind.SIMILAR


def describe(terms: Sequence[Term]) -> str:
    """The query in the short form: `2:dog + ./a.jpg - fruit`."""
    words = terms[0].describe() if terms[0].weight > 0 else f"- {terms[0].describe()}"
    for term in terms[1:]:
        words += f" {'+' if term.weight > 0 else '-'} {term.describe()}"
    return words


class QueryEmbedder:
    """Embeds queries with the model of a collection; caches the vectors of texts."""

    def __init__(
        self, embedder: Embedder, index: ImageIndex, decoders: Decoders, *, text_cache: int
    ) -> None:
        """`text_cache` is how many texts are cached for each model."""
        self._embedder = embedder
        self._index = index
        self._decoders = decoders
        self._texts = TextCache(text_cache)
        self._batches = TextBatches(embedder)

    async def embed(self, collection: Collection, terms: Sequence[Term]) -> QueryVector:
        """The query as a vector.

        Raises:
            InvalidField: an image is not indexed or cannot be decoded, or the terms cancel out.
            Unavailable: a required server does not answer.
        """
        named = await self._find_named(collection, terms)
        own = frozenset(
            named[term.image_id][0] for term in terms if term.image_id and term.weight > 0
        )
        if len(terms) == 1 and terms[0].weight == 1:
            return QueryVector(await self._vector(collection, terms[0], named), own)
        vectors = await _all(self._vector(collection, term, named) for term in terms)
        weights = np.array([term.weight for term in terms])
        combined = weights @ np.array(vectors)
        length = float(np.linalg.norm(combined))
        if length < SMALLEST_LENGTH:
            raise InvalidField("terms", "the terms cancel each other out")
        unit: list[float] = (combined / length).tolist()
        return QueryVector(unit, own)

    async def _find_named(self, collection: Collection, terms: Sequence[Term]) -> _Named:
        """The named images, in one request to the index, and one more for other Unicode forms."""
        names = {term.image_id: term.field for term in terms if term.image_id is not None}
        if not names:
            return {}
        held = dict(await self._index.vectors(collection, list(names)))
        more = {name: forms(name)[1:] for name in names if name not in held}
        if others := [form for found in more.values() for form in found]:
            held |= await self._index.vectors(collection, others)
        named: dict[str, tuple[str, list[float]]] = {}
        for name, field in names.items():
            image_id = next((form for form in forms(name) if form in held), None)
            if image_id is None:
                raise InvalidField(field, f"{name!r} is not indexed")
            named[name] = image_id, list(held[image_id])
        return named

    async def _vector(self, collection: Collection, term: Term, named: _Named) -> list[float]:
        if term.text is not None:
            return await self._of_text(collection, term.text)
        if term.image_id is not None:
            return named[term.image_id][1]
        spec = await self.check_model(collection)
        try:
            image = await self._decoders.decode(term.image or b"", spec)
        except Rejected as error:
            raise InvalidField(term.field, str(error)) from error
        vectors = await self._embedder.embed_images(collection.model_name, image.pixels[np.newaxis])
        vector: list[float] = vectors[0].tolist()
        return vector

    async def _of_text(self, collection: Collection, text: str) -> list[float]:
        async def embed() -> list[float]:
            await self.check_model(collection)
            return await self._batches.embed(collection.model_name, text)

        # A collection belongs to one version of one model, so its name identifies that version.
        return await self._texts.get(collection.name, text, embed)

    async def check_model(self, collection: Collection) -> ModelSpec:
        """The served model, which must be the one that filled the collection.

        Raises:
            Unavailable: another version is served, whose vectors are not comparable.
        """
        spec = await self._embedder.spec(collection.model_name)
        if spec.version != collection.model_version:
            raise Unavailable(
                f"{collection.name} was filled by {collection.model_name} "
                f"{collection.model_version}, but {spec.version} is served"
            )
        return spec

    async def warm_up(self, collection: Collection) -> list[float]:
        """Embed a text and an image, so that the first query is not slow; raises as `embed`."""
        spec = await self.check_model(collection)
        blank = np.zeros((1, spec.height, spec.width, 3), np.uint8)
        await self._embedder.embed_images(collection.model_name, blank)
        vectors = await self._embedder.embed_texts(collection.model_name, ["warm-up"])
        vector: list[float] = vectors[0].tolist()
        return vector


async def _all(vectors: Iterable[Coroutine[Any, Any, list[float]]]) -> list[list[float]]:
    """All vectors; as soon as one fails, the others are cancelled."""
    tasks = [asyncio.ensure_future(vector) for vector in vectors]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
