"""The table of topics: their events, retention, writers and readers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from schemas.events import (
    DeadLetter,
    Event,
    FeedbackGiven,
    ImageAdded,
    ImageIndexed,
    ModelActivated,
    SearchPerformed,
)

DAY_MS: Final = 24 * 60 * 60 * 1000
FOREVER_MS: Final = -1


@dataclass(frozen=True, slots=True)
class Topic:
    """One Kafka topic and its contract.

    `retention_ms` is in milliseconds, -1 for ever. A compacted topic keeps the newest value of each
    key and a null value (tombstone) removes the key.
    """

    name: str
    event: type[Event]
    key: str
    description: str
    partitions: int
    compacted: bool
    retention_ms: int
    written_by: tuple[str, ...]
    read_by: tuple[str, ...]

    def kept_for(self, days: int) -> Topic:
        """This topic with a retention of `days` days."""
        return replace(self, retention_ms=days * DAY_MS)

    def config(self) -> dict[str, str]:
        """The broker's settings for this topic, by their Kafka names."""
        settings = {
            "cleanup.policy": "compact" if self.compacted else "delete",
            "retention.ms": str(self.retention_ms),
            "compression.type": "producer",
        }
        if not self.compacted and self.retention_ms != FOREVER_MS:
            # Only whole segments are deleted, so records may be kept longer by the span of one.
            settings["segment.ms"] = str(min(DAY_MS, self.retention_ms))
        if self.compacted:
            # A consumer that was down for a week still reads the removals.
            settings["delete.retention.ms"] = str(7 * DAY_MS)
        return settings


IMAGES = Topic(
    name="images",
    event=ImageAdded,
    key="image id",
    description="The pictures that exist: the newest ImageAdded of each id; null means removed.",
    partitions=12,
    compacted=True,
    retention_ms=FOREVER_MS,
    written_by=("watcher",),
    read_by=("watcher", "indexing"),
)
IMAGES_INDEXED = Topic(
    name="images.indexed",
    event=ImageIndexed,
    key="image id",
    description="Each change made to a collection, with its source record and timings.",
    partitions=12,
    compacted=False,
    retention_ms=7 * DAY_MS,
    written_by=("indexing",),
    read_by=("analytics",),
)
IMAGES_DLQ = Topic(
    name="images.dlq",
    event=DeadLetter,
    key="image id",
    description="Records of `images` that cannot be handled as they are, with the reason.",
    partitions=3,
    compacted=False,
    retention_ms=FOREVER_MS,
    written_by=("indexing", "watcher"),
    read_by=("dlq commands", "analytics"),
)
SEARCHES = Topic(
    name="searches",
    event=SearchPerformed,
    key="search id",
    description="Every search with its results, model and latency.",
    partitions=6,
    compacted=False,
    retention_ms=FOREVER_MS,
    written_by=("gateway",),
    read_by=("analytics", "model comparison"),
)
FEEDBACK = Topic(
    name="feedback",
    event=FeedbackGiven,
    key="search id",
    description="Every rating of a search.",
    partitions=6,
    compacted=False,
    retention_ms=FOREVER_MS,
    written_by=("gateway",),
    read_by=("analytics",),
)
MODELS = Topic(
    name="models",
    event=ModelActivated,
    key="model name",
    description="The newest step of each model: being filled, activated, rolled back to, retired.",
    partitions=1,
    compacted=True,
    retention_ms=FOREVER_MS,
    written_by=("provision", "models commands"),
    read_by=("analytics",),
)

PERSONAL: Final = (SEARCHES, FEEDBACK)
"""Topics with personal data; `RETENTION_DAYS` limits their retention."""

TOPICS: Final[tuple[Topic, ...]] = (
    IMAGES,
    IMAGES_INDEXED,
    IMAGES_DLQ,
    SEARCHES,
    FEEDBACK,
    MODELS,
)
BY_NAME: Final[dict[str, Topic]] = {topic.name: topic for topic in TOPICS}
