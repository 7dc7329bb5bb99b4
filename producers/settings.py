"""Settings of the watcher."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from adapters.settings import Seconds
from imaging.sources.settings import SourceSettings


class WatcherSettings(SourceSettings):
    """The watcher: it publishes what changes in the folders and buckets."""

    quiet_seconds: Annotated[float, Field(ge=0)] = 0.3
    """Seconds that a file must have been unchanged before it is read."""
    reconcile_seconds: Seconds = 3600.0
    """Seconds between comparisons of the folders with the log."""
    poll_seconds: Annotated[float, Field(ge=0)] = 0.0
    """Above zero: scan the tree this often instead of using the kernel's notifications."""
    list_seconds: Seconds = 30.0
    """Seconds between listings of a bucket."""
    allow_mass_removal: bool = False
    """Whether the removal of more than `MASS_REMOVAL_SHARE` is published without a confirmation."""
    mass_removal_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of a source's pictures, above 0 to 1, beyond which a removal has to be confirmed."""
    max_image_bytes: Annotated[int, Field(ge=1)] = 200_000_000
    """A larger file is passed over."""
    follow_symlinks: bool = False
    """Whether symbolic links are followed."""
    include_hidden: bool = False
    """Whether names that begin with a dot are included."""
    ignore_patterns: Annotated[tuple[str, ...], NoDecode] = ()
    """Patterns in the language of `.gitignore`, separated by line ends or `:`; what matches is left
    out."""
    status_file: Path | None = None
    """File in which the watcher reports what it does, as JSON, replaced every second."""
    stuck_seconds: Seconds = 600.0
    """As for every process; more, as a large file on a slow disk takes its time."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port where Prometheus finds `/metrics`; 0 for none."""

    @field_validator("ignore_patterns", mode="before")
    @classmethod
    def _split_patterns(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part for line in value.splitlines() for part in line.split(":") if part)
        return value
