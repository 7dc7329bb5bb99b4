"""Settings of the watcher."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from adapters.settings import Seconds, SecondsOrZero
from imaging.sources.settings import SourceSettings


class WatcherSettings(SourceSettings):
    """The watcher: it publishes the changes of the folders and buckets."""

    quiet_seconds: SecondsOrZero = 0.3
    """Seconds for which a file must be unchanged before it is read."""
    reconcile_seconds: Seconds = 3600.0
    """Seconds between two complete comparisons of a folder with the log."""
    poll_seconds: SecondsOrZero = 0.0
    """Seconds between scans that replace the kernel's notifications; 0 to use notifications."""
    list_seconds: Seconds = 30.0
    """Seconds between two listings of a bucket."""
    allow_mass_removal: bool = False
    """Whether more removals than `MASS_REMOVAL_SHARE` are published without confirmation."""
    mass_removal_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of a source's pictures, above 0 to 1, beyond which removals have to be confirmed."""
    max_image_bytes: Annotated[int, Field(ge=1)] = 200_000_000
    """Maximum bytes of a file; larger ones are not indexed."""
    follow_symlinks: bool = False
    """Whether symbolic links are followed."""
    include_hidden: bool = False
    """Whether names that begin with a dot are included."""
    ignore_patterns: tuple[str, ...] = ()
    """Patterns of names to ignore, in the syntax of `.gitignore`, separated by line ends or `:`."""
    status_file: Path | None = None
    """File with the watcher's status, as JSON, which is replaced every second."""
    stuck_seconds: Seconds = 600.0
    """As for every process; longer, because reading a large file from a slow disk takes time."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port on which `/metrics` is served for Prometheus; 0 for none."""

    @field_validator("ignore_patterns", mode="before")
    @classmethod
    def _split_patterns(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part for line in value.splitlines() for part in line.split(":") if part)
        return value
