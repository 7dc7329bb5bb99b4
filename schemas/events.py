"""Events: the facts written to Kafka. Frozen, self-describing, and never changed once published.

A reader ignores fields it does not know (they come from a newer minor version) and refuses a major
version it does not know (see `schemas.codec`).
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID, uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

SCHEMA_VERSION = "1.0"
"""Version written by this code, `major.minor`; readers reject other major versions."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ImageId = Annotated[str, Field(min_length=1, max_length=4096)]
"""POSIX path of the image below the watched root, for instance `holiday/beach.jpg`."""

Milliseconds = Annotated[float, Field(ge=0)]


def now() -> datetime:
    """The current instant in UTC, the only zone events are written in."""
    return datetime.now(UTC)


class Event(BaseModel):
    """The fields of every event."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )

    event_id: UUID = Field(default_factory=uuid4)
    occurred_at: AwareDatetime = Field(default_factory=now)
    schema_version: Annotated[str, Field(pattern=r"^\d+\.\d+$")] = SCHEMA_VERSION


class ImageAdded(Event):
    """A complete picture exists under this id, with this content."""

    image_id: ImageId
    uri: Annotated[str, Field(min_length=1)]
    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=0)]
    media_type: str
    modified_at: AwareDatetime | None = None
    """Absent if the source does not provide it."""
    added_at: AwareDatetime
    mount: str | None = None
    """POSIX path of the mount point below which the image was found: relative to the source's root,
    or absolute if a symbolic link leads out of it. Absent on the root's own file system."""


class ImageRemoved(Event):
    """The picture is gone. On the wire this is a null value under the image's key (a tombstone)."""

    image_id: ImageId


class StageTimings(BaseModel):
    """Time one image spent in each stage of indexing, in milliseconds."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    read: Milliseconds = 0.0
    decode: Milliseconds = 0.0
    embed: Milliseconds = 0.0
    write: Milliseconds = 0.0


class IndexAction(StrEnum):
    """What indexing did to the collection."""

    UPSERTED = "upserted"
    REMOVED = "removed"


class ImageIndexed(Event):
    """A collection now answers with this picture (or, after a removal, no longer does)."""

    image_id: ImageId
    action: IndexAction
    sha256: Sha256 | None = None
    model_name: str
    collection: str
    source_partition: Annotated[int, Field(ge=0)]
    source_offset: Annotated[int, Field(ge=0)]
    added_at: AwareDatetime | None = None
    vector_reused: bool = False
    timings_ms: StageTimings = StageTimings()


class DeadLetter(Event):
    """A record that cannot be handled as it is, with the reason and the original record."""

    image_id: str
    error_class: str
    reason: str
    attempts: Annotated[int, Field(ge=1)]
    source_topic: str
    source_partition: Annotated[int, Field(ge=0)] | None = None
    """Absent, like the offset, if there is no record: for a file that was never published."""
    source_offset: Annotated[int, Field(ge=0)] | None = None
    model_name: str | None = None
    original_key: bytes | None = None
    original_value: bytes | None = None
    """The whole value, or its beginning if `original_value_bytes` is set."""
    original_value_bytes: Annotated[int, Field(ge=0)] | None = None
    """Length of the whole value, if the letter holds only its beginning."""
    original_value_sha256: Sha256 | None = None
    """SHA-256 of the whole value, if the letter holds only its beginning."""
    original_key_bytes: Annotated[int, Field(ge=0)] | None = None
    """Length of the whole key, if the letter holds only its beginning."""


class SearchKind(StrEnum):
    """How a search was expressed."""

    TEXT = "text"
    IMAGE = "image"
    SIMILAR = "similar"
    TERMS = "terms"


class SearchResult(BaseModel):
    """One match as it was returned; `score` is the cosine similarity."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    image_name: ImageId
    score: float


class SearchTimings(BaseModel):
    """Time one search spent in each stage, in milliseconds."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    embed: Milliseconds
    query: Milliseconds
    total: Milliseconds


class SearchPerformed(Event):
    """A search was answered, with exactly these results."""

    search_id: UUID
    kind: SearchKind
    text: str | None = None
    limit: Annotated[int, Field(ge=1)]
    filters: dict[str, str | int | float | bool] = {}
    model_name: str
    model_version: str
    collection: str
    results: tuple[SearchResult, ...]
    latency_ms: SearchTimings
    client: str | None = None
    """A hashed name: the same for all events of a client, without revealing who that is."""


class FeedbackGiven(Event):
    """Somebody rated the answer to a search from 1 (useless) to 10 (just what I meant)."""

    search_id: UUID
    rating: Annotated[int, Field(ge=1, le=10)]
    image_name: ImageId | None = None
    text: str | None = None
    model_name: str
    top_image: ImageId | None = None
    top_score: float | None = None
    searched_at: AwareDatetime
    client: str | None = None
    """The client that rated; see `SearchPerformed.client`."""


class ModelStep(StrEnum):
    """What happened to a model."""

    BACKFILLING = "feeding"
    ACTIVATED = "activated"
    ROLLED_BACK = "rolled_back"
    RETIRED = "retired"


class ModelActivated(Event):
    """A step in the life cycle of a model.

    `activated` and `rolled_back`: searches are answered from its collection from now on.
    `feeding`: it is loaded, and its collection is being backfilled beside the active one.
    `retired`: its collection was deleted.
    """

    step: ModelStep = ModelStep.ACTIVATED

    model_name: str
    model_version: str
    collection: str
    previous_collection: str | None = None
