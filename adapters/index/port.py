"""The port of the image index: what the application needs of it, and the types that it uses.

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
from adapters.naming import indexing_group


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
    """The vector and facts of known content, so that inference need not be repeated."""

    vector: Sequence[float]


STORED: Final[Mapping[str, type]] = {
    name: kind for name, kind in value_types(ImageRecord).items() if name != "vector"
}
"""Property -> its type, of all that the index stores of an image besides its vector."""


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection and the one model whose vectors it holds.

    `incarnation` distinguishes it from an earlier or later collection of the same name; it is empty
    in collections that earlier versions of this program made.
    """

    name: str
    model_name: str
    model_version: str
    dimension: int
    incarnation: str = ""

    @property
    def group(self) -> str:
        """The consumer group that fills it.

        Every incarnation has a group of its own. So a new collection is always filled from the
        beginning of the log, even after a crash: there are no offsets to reset.
        """
        return indexing_group(self.name, self.incarnation)


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
"""Properties that a search can return of each image, besides id and score; add new ones last."""


@dataclass(frozen=True, slots=True)
class Match:
    """One search result; `score` is the cosine similarity, -1 to 1.

    `details` maps the requested properties to their values, None where the image has none;
    `vector` is empty unless it was requested.
    """

    image_id: str
    score: float
    details: Mapping[str, Detail] = field(default_factory=dict)
    vector: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One image as scrolling through the collection returns it."""

    image_id: str
    sha256: str
    vector: Sequence[float]


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One image in the order of adding; `details` as in `Match`."""

    image_id: str
    added_at: datetime
    details: Mapping[str, Detail] = field(default_factory=dict)


Bound = TypeVar("Bound", int, datetime)


@dataclass(frozen=True, slots=True)
class Between(Generic[Bound]):
    """From `low` to `high`, both included; None leaves that end open."""

    low: Bound | None = None
    high: Bound | None = None

    def holds(self, value: Bound | None) -> bool:
        """Whether the value is in the range; an absent one is not, unless both ends are open."""
        if value is None:
            return self.low is None and self.high is None
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


@dataclass(frozen=True, slots=True)
class ImageFilter:
    """Which images a search may find: those that meet every given condition.

    `folder` ends with a slash, or is "" for all folders. It includes the folders below it, and
    matches every Unicode form of its name (`adapters.name_forms.forms`).
    Every other field except `has_gps` has the name of its property, and is a range for it, a list
    of texts of which it must be one, or the text that it must be. Texts are
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
        """Property -> its condition, for those properties that have one."""
        wanted = {name: getattr(self, name) for name in STORED if name in self.__slots__}
        return {name: each for name, each in wanted.items() if each not in (None, (), Between())}


EVERYTHING: Final = ImageFilter()


MAX_RESULTS: Final = 10_000
"""Maximum number of results of one search or look-up; Weaviate's default limit."""


class ImageIndex(Protocol):
    """Vectors of images: one collection for each model version, one of which is active."""

    async def ensure_collection(self, spec: ModelSpec) -> Collection:
        """The collection of this model version, created where it is missing (idempotent).

        A collection of that name whose description does not state its model is replaced.
        """
        ...

    async def find(self, name: str) -> Collection | None:
        """The collection of this name as it is now; None if there is none."""
        ...

    async def all_collections(self) -> Sequence[Collection]:
        """Every collection whose description states its model, ordered by name."""
        ...

    async def active(self) -> Collection | None:
        """The collection that answers searches; None before the first activation."""
        ...

    async def activate(self, collection: Collection) -> None:
        """Answer searches from this collection from now on."""
        ...

    async def drop(self, collection: Collection) -> None:
        """Delete a collection and its contents; a collection that does not exist is no error.

        Raises:
            Rejected: it is the active one.
        """
        ...

    async def known_vectors(
        self, collection: Collection, sha256s: Sequence[str]
    ) -> Mapping[str, KnownVector]:
        """Content hash -> vector and facts, for those hashes that the collection holds.

        If several images have the same content, the one with the highest `facts_version` counts.
        """
        ...

    async def vectors(
        self, collection: Collection, image_ids: Sequence[str]
    ) -> Mapping[str, Sequence[float]]:
        """Image id -> vector, for those images that the collection holds."""
        ...

    async def upsert(
        self, collection: Collection, records: Sequence[ImageRecord]
    ) -> Mapping[str, str]:
        """Write records; each replaces the record with the same id.

        Returns:
            Image id -> reason, for each record that was refused; all others are durable.

        Raises:
            Unavailable: also if the collection was deleted, or replaced by another of its name.
        """
        ...

    async def delete(self, collection: Collection, image_ids: Sequence[str]) -> None:
        """Remove these images; unknown ids are no error. Raises as `upsert`."""
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
        """The `limit` nearest images that pass the filter, best first.

        Equal scores are ordered by image id. `details` are names out of `DETAILS`. Repeating a
        search gives the same result while nothing changes; with a higher limit the order may
        differ slightly, as the index is approximate.

        Raises:
            Rejected: the vector has the wrong dimension, or the limit is over `MAX_RESULTS`.
        """
        ...

    async def newest(
        self,
        collection: Collection,
        limit: int,
        *,
        before: tuple[datetime, str] | None = None,
        where: ImageFilter = EVERYTHING,
        details: Sequence[str] = (),
    ) -> Sequence[ListedImage]:
        """The `limit` images that were added last and pass the filter, the newest first.

        Images of the same instant are ordered by image id. `before` is the instant and the id of
        the image that the answer follows, which need not exist any more. Images without `added_at`
        are left out, and so are those beyond `MAX_RESULTS` of the same instant.

        Raises:
            Rejected: the limit is over `MAX_RESULTS`.
        """
        ...

    async def scroll(
        self,
        collection: Collection,
        after: str | None,
        limit: int,
        *,
        with_vectors: bool = True,
    ) -> Sequence[StoredImage]:
        """Up to `limit` images after the one with the id `after`, in the order of object ids.

        Object ids are hashes, so any page is a random sample. `after` need not exist any more, nor
        ever have existed. Without `with_vectors`, the vectors are empty.
        """
        ...

    async def ids_by_sha256(
        self, collection: Collection, sha256s: Sequence[str]
    ) -> Mapping[str, Sequence[str]]:
        """Content hash -> ids of the images that have it, for those hashes that are held.

        At most `MAX_RESULTS` ids in total; each list is in the order of object ids.
        """
        ...

    async def hashes(self, collection: Collection, image_ids: Sequence[str]) -> Mapping[str, str]:
        """Image id -> content hash, for those images that the collection holds."""
        ...

    def stored(self, collection: Collection) -> AsyncIterator[tuple[str, str]]:
        """(image id, sha256) of every image in the collection, in no particular order."""
        ...

    async def count(self, collection: Collection) -> int:
        """The number of images in the collection."""
        ...

    async def is_ready(self) -> bool:
        """Whether the index answers now; False if the server is down."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
