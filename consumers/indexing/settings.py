"""Settings of the indexer."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from adapters.settings import Seconds
from imaging.settings import DecodingSettings
from imaging.sources.settings import SourceSettings


class IndexingSettings(SourceSettings, DecodingSettings):
    """The indexer: one member of the consumer group that fills a collection."""

    batch_records: Annotated[int, Field(ge=1)] = 256
    """Maximum number of records in one batch."""
    batch_wait: Seconds = 0.1
    """Longest time a partial batch waits for more records, in seconds."""
    embed_batch: Annotated[int, Field(ge=1)] = 32
    """Maximum number of pictures embedded in one request."""
    embed_in_flight: Annotated[int, Field(ge=1)] = 2
    """Embedding requests in flight at once."""
    decode_workers: Annotated[int, Field(ge=0)] = 0
    """Processes that decode pictures; 0 means one per core."""
    max_image_bytes: Annotated[int, Field(ge=1)] = 200_000_000
    """Size in bytes above which a file is rejected."""
    max_attempts: Annotated[int, Field(ge=1)] = 3
    """Attempts at one picture before it becomes a dead letter."""
    poison_share: Annotated[float, Field(gt=0, le=1)] = 0.9
    """If more than this share (above 0 to 1) of the last `POISON_WINDOW` records fail, the indexer
    ends with an error instead of writing dead letters."""
    poison_window: Annotated[int, Field(ge=1)] = 500
    """Number of records that `POISON_SHARE` refers to."""
    retry_initial: Seconds = 0.2
    """Seconds before the first retry of a request to an unavailable server."""
    retry_maximum: Seconds = 5.0
    """Longest pause between two such retries, in seconds."""
    max_poll_interval: Seconds = 300.0
    """Seconds without a poll after which Kafka reassigns this member's partitions."""
    rebalance_grace: Seconds = 10.0
    """Seconds that a rebalance waits for work in flight before dropping it, to be read again."""
    shutdown_grace: Seconds = 20.0
    """Seconds that a shutdown waits for work in flight."""
