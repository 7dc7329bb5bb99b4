"""Settings of the sources of pictures."""

from __future__ import annotations

from pathlib import Path

from pydantic import field_validator

from adapters.settings import ServerSettings
from imaging.sources.source import Source, parse_sources


class SourceSettings(ServerSettings):
    """The sources of pictures."""

    images_dir: Path = Path("images")
    """The watched folder."""
    images_sources: tuple[Source, ...] = ()
    """Further folders and buckets, as `name=url` separated by spaces. The ids of their pictures
    start with `name/`."""
    ignore_defaults: bool = True
    """Whether files and folders that NAS systems and desktops create for themselves are ignored
    (`docs/names.md`)."""

    @field_validator("images_sources", mode="before")
    @classmethod
    def _parse_sources(cls, value: object) -> object:
        return parse_sources(value) if isinstance(value, str) else value
