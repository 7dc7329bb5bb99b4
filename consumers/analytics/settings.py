"""Settings of the consumer that writes the event lake."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from adapters.naming import ANALYTICS_GROUP
from adapters.settings import Seconds, SecondsOrZero
from analytics.settings import LakeSettings


class AnalyticsSettings(LakeSettings):
    """The analytics consumer: one member of the group that writes the event lake."""

    analytics_group: str = ANALYTICS_GROUP
    """Name of the consumer group."""
    flush_records: Annotated[int, Field(ge=1)] = 50_000
    """Number of records buffered in memory, over all partitions, before they are written."""
    flush_seconds: Seconds = 2.0
    """Longest time a record waits before it is written, in seconds."""
    compact_seconds: Seconds = 300.0
    """Seconds between two compactions of the event lake."""
    compact_files: Annotated[int, Field(ge=2)] = 16
    """Number of small files of one partition and day from which on they are merged."""
    compact_grace_seconds: SecondsOrZero = 600.0
    """Seconds for which merged files are kept, for readers that have already opened them."""
    max_poll_interval: Seconds = 300.0
    """Seconds without a poll after which Kafka reassigns this member's partitions."""
