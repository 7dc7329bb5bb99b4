"""Settings of the event lake, and limits of its queries."""

from __future__ import annotations

from typing import Annotated

from pydantic import ByteSize, Field

from adapters.settings import EnvironmentSettings, FolderUrl, ServerSettings


class LakeSettings(ServerSettings):
    """Address of the event lake, for every process that writes or reads it."""

    lake_url: FolderUrl = ".stack/lake"
    """The event lake: a folder, or any URL that fsspec supports and whose store replaces
    files atomically."""


class QuerySettings(EnvironmentSettings):
    """Limits of all queries of the event lake that one process runs at the same time."""

    analytics_memory: Annotated[ByteSize | None, Field(ge=64 << 20)] = None
    """Memory of all queries that run at once, as `2GiB`; by default an eighth of the machine's. A
    query that needs more writes temporary files of up to four times its share, then fails."""
    analytics_threads: Annotated[int, Field(ge=0)] = 0
    """Threads of one query; 0 for half of the cores."""
