"""Settings: where the event lake is, and what queries of it may take."""

from __future__ import annotations

from typing import Annotated

from pydantic import ByteSize, Field

from adapters.settings import EnvironmentSettings, ServerSettings


class LakeSettings(ServerSettings):
    """Where the event lake is, for every process that writes or reads it."""

    lake_url: str = ".stack/lake"
    """The event lake: a folder, or any URL that fsspec knows and whose store replaces files
    atomically."""


class QuestionSettings(EnvironmentSettings):
    """What the queries of the event lake that one process answers at once may take together."""

    analytics_memory: Annotated[ByteSize | None, Field(ge=64 << 20)] = None
    """Bytes, as `2GiB`; an eighth of the machine's memory if none is set. A query that needs more
    writes up to four times as much to temporary files, and then is given up."""
    analytics_threads: Annotated[int, Field(ge=0)] = 0
    """Threads of one query; 0 for half of the cores."""
