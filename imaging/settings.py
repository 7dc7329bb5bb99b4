"""Settings of decoding."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from adapters.settings import EnvironmentSettings, Seconds


class DecodingSettings(EnvironmentSettings):
    """How pictures are decoded, by the indexer and by the gateway."""

    decode_memory_bytes: Annotated[int, Field(ge=1)] = 96_000_000
    """Bytes of memory for all pictures that are being decoded, plus half as much for their files. A
    picture that needs more is decoded when no other large one is."""
    decode_seconds: Seconds = 30.0
    """Seconds that decoding a picture may take; beyond that it is rejected."""
    max_pixels: Annotated[int, Field(ge=1)] = 178_956_970
    """Maximum number of pixels; a larger picture is rejected."""
