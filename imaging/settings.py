"""Settings: how pictures are decoded."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from adapters.settings import EnvironmentSettings, Seconds


class DecodingSettings(EnvironmentSettings):
    """How pictures are decoded, by the indexer and by the gateway."""

    decode_memory_bytes: Annotated[int, Field(ge=1)] = 96_000_000
    """Bytes that the pictures being decoded may take together, and their files half as much; one
    that needs more is decoded while no other large one is."""
    decode_seconds: Seconds = 30.0
    """A picture whose decoding takes longer is rejected."""
    max_pixels: Annotated[int, Field(ge=1)] = 178_956_970
    """A picture with more pixels is rejected."""
