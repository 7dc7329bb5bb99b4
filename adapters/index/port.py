"""What the application needs of an image index, and the types that it takes and gives.

Every method may raise `adapters.errors.Unavailable`. The real index (`adapters.index.weaviate`) and
the fake one (`adapters.index.fake`) pass the same contract tests (`tests/contract`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Generic, Protocol, TypeVar

from adapters.embedder.spec import ModelSpec
from adapters.index.facts import ImageFacts, value_types


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord(ImageFacts):
    """One image as the index stores it. `vector` has unit length and `dimension` numbers."""

    image_id: str
    uri: str
    sha256: str
    size_bytes: int
    modified_at: datetime | None
    added_at: datetime | None
    vector: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownVector(ImageFacts):
    """What the index already knows of some content, so that it need not be inferred again."""

    vector: Sequence[float]


STORED: Final[Mapping[str, type]] = {
    name: kind for name, kind in value_types(ImageRecord).items() if name != "vector"
}
"""Property -> its type, of all that the index stores of an image besides its vector."""


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection and the one model whose vectors it holds.

    `incarnation` tells it from another of the same name that was there before or comes after it;
    empty in those of earlier versions.
    """

    name: str
    model_name: str
    model_version: str
    dimension: int
    incarnation: str = ""

    @property
    def group(self) -> str:
        """The consumer group that fills it.

        A collection that is made anew has a group of its own. So whoever makes one, and however
        that ends, it is filled from the beginning of the log: no offsets are there to be reset.
        """
        suffix = f"-{self.incarnation}" if self.incarnation else ""
        return f"indexing-{self.name}{suffix}"


Detail = str | int | float | datetime | None

_FIRST_DETAILS: Final = (
    "sha256",
    "media_type",
    "size_bytes",
    "width",
    "height",
    "modified_at",
    "added_at",
)
_NOT_DETAILS: Final = ("image_id", "uri", "facts_version")

DETAILS: Final[tuple[str, ...]] = (
    *_FIRST_DETAILS,
    *(name for name in STORED if name not in {*_FIRST_DETAILS, *_NOT_DETAILS}),
)
"""What a search may give back of each image, besides its id and score; a new one comes last."""


@dataclass(frozen=True, slots=True)
class Match:
    """One search result; `score` is the cosine similarity, -1 to 1.

    `details` holds the properties that were asked for, None where the picture has none; `vector`
    is empty unless it was asked for.
    """

    image_id: str
    score: float
    details: Mapping[str, Detail] = field(default_factory=dict)
    vector: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One picture as a walk over the collection meets it."""

    image_id: str
    sha256: str
    vector: Sequence[float]


Bound = TypeVar("Bound", int, datetime)


@dataclass(frozen=True, slots=True)
class Between(Generic[Bound]):
    """From `low` to `high`, both included; None leaves that end open."""

    low: Bound | None = None
    high: Bound | None = None

    def holds(self, value: Bound | None) -> bool:
        """Whether the value lies between; an absent one does not, unless both ends are open."""
        if value is None:
            return self.low is None and self.high is None
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


@dataclass(frozen=True, slots=True)
class ImageFilter:
    """Which pictures a search may find: those for which everything given holds.

    `folder` is a prefix of whole folders with a slash at its end, "" for all; a picture lies in it
    or in a folder below, in whatever of `adapters.name_forms.forms` the folder's name is written.
    Every other field but `has_gps` is named as the property that it is about: a range that the
    property must lie in, texts that it must be one of, or the text that it must be. Texts are
    compared exactly, except for white space at their ends.
    """

    folder: str = ""
    media_type: tuple[str, ...] = ()
    size_bytes: Between[int] = Between()
    width: Between[int] = Between()
    height: Between[int] = Between()
    taken_at: Between[datetime] = Between()
    added_at: Between[datetime] = Between()
    camera: str | None = None
    has_gps: bool | None = None

    def by_property(self) -> Mapping[str, Between[Any] | tuple[str, ...] | str]:
        """Property -> what is asked of it, of those properties of which something is asked."""
        wanted = {name: getattr(self, name) for name in STORED if name in self.__slots__}
        return {name: each for name, each in wanted.items() if each not in (None, (), Between())}


EVERYTHING: Final = ImageFilter()


MAX_RESULTS: Final = 10_000
"""The most that one search or look-up gives; Weaviate's own default bound."""


class ImageIndex(Protocol):
    """Vectors of pictures, one collection per model version, and which of them is active."""

    async def ensure_collection(self, spec: ModelSpec) -> Collection:
        """The collection of this model version, created where it is missing (idempotent).

        One of its name that does not say which model filled it is replaced by a new one.
        """
        ...

    async def find(self, name: str) -> Collection | None:
        """The collection of this name as it is now; None if there is none."""
        ...

    async def all_collections(self) -> Sequence[Collection]:
        """Every collection, by name; of those that say which model filled them."""
        ...

    async def active(self) -> Collection | None:
        """The collection that searches are answered from; None before the first activation."""
        ...

    async def activate(self, collection: Collection) -> None:
        """Let searches be answered from this collection from now on."""
        ...

    async def drop(self, collection: Collection) -> None:
        """Delete a collection and all it holds; one that is not there is no error.

        Raises:
            Rejected: it is the active one.
        """
        ...

    async def known_vectors(
        self, collection: Collection, sha256s: Sequence[str]
    ) -> Mapping[str, KnownVector]:
        """For each of these content hashes that the collection holds, its vector.

        Of several pictures with one content, what the one of the highest `facts_version` says.
        """
        ...

    async def vectors(
        self, collection: Collection, image_ids: Sequence[str]
    ) -> Mapping[str, Sequence[float]]:
        """For each of these pictures that the collection holds, its vector."""
        ...

    async def upsert(
        self, collection: Collection, records: Sequence[ImageRecord]
    ) -> Mapping[str, str]:
        """Write records, each replacing the one of the same id.

        Returns:
            image id -> reason, for each record that was refused; all others are durable.

        Raises:
            Unavailable: the collection is gone, or is another one of its name, as well.
        """
        ...

    async def delete(self, collection: Collection, image_ids: Sequence[str]) -> None:
        """Remove these pictures; ids that are not there are no error. Raises as `upsert`."""
        ...

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
        """The `limit` nearest pictures that the filter lets through, best first.

        Equal scores are ordered by image id. `details` are names of `DETAILS`. The same search
        finds the same while nothing changes; one with a higher limit may order a few differently,
        as the index is an approximate one.

        Raises:
            Rejected: the vector has the wrong dimension, or the limit is over `MAX_RESULTS`.
        """
        ...

    async def walk(
        self, collection: Collection, after: str | None, limit: int
    ) -> Sequence[StoredImage]:
        """Up to `limit` pictures after the one with the id `after`, in the order of object ids.

        Object ids are hashes, so any stretch of the walk is a random sample. `after` need not be
        stored any more.
        """
        ...

    async def of_content(
        self, collection: Collection, sha256s: Sequence[str]
    ) -> Mapping[str, Sequence[str]]:
        """For each of these content hashes that is held, the ids of pictures that have it.

        At most `MAX_RESULTS` ids altogether; each list is in the order of object ids.
        """
        ...

    async def hashes(self, collection: Collection, image_ids: Sequence[str]) -> Mapping[str, str]:
        """For each of these pictures that the collection holds, its content hash."""
        ...

    def stored(self, collection: Collection) -> AsyncIterator[tuple[str, str]]:
        """(image id, sha256) of all that the collection holds, in no particular order."""
        ...

    async def count(self, collection: Collection) -> int:
        """How many pictures the collection holds."""
        ...

    async def is_ready(self) -> bool:
        """Whether the index answers now; never raises for a server that is down."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
