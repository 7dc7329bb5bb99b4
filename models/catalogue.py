"""The models known by name: `triton_models/catalogue.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.errors import ModelError

CATALOGUE = Path(__file__).resolve().parents[1] / "triton_models" / "catalogue.toml"
Triple = tuple[float, float, float]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class CatalogueEntry(BaseModel):
    """A model's description, known before it is downloaded. `mean` and `std` refer to pixel values
    from 0 to 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundled: bool = False
    repository: str | None = None
    revision: str | None = None
    download_bytes: Annotated[int, Field(ge=1)] | None = None
    """About how much a download fetches, if that is known."""
    sha256: Mapping[str, Sha256] | None = None
    """The SHA-256 that a file of `revision` must have, by path, if files are pinned."""
    licence: str
    summary: str
    dimension: Annotated[int, Field(ge=1)]
    size: tuple[int, int]
    """Height and width of the input, in pixels."""
    mean: Triple
    std: Triple
    interpolation: Literal["bilinear", "bicubic"]
    resize_mode: Literal["shortest", "squash"]
    tokenizer: str
    context_length: Annotated[int, Field(ge=1)]

    def pins(self, revision: str) -> Mapping[str, str]:
        """The SHA-256 of files at this revision, by path; none if the entry names another one."""
        return (self.sha256 or {}) if revision == self.revision else {}

    @property
    def terms(self) -> str:
        """The size of the download, and the licence."""
        if self.download_bytes is None:
            return f"licence {self.licence}; the hub states its size before the download starts"
        return f"{self.download_bytes / 1e9:.1f} GB, licence {self.licence}"


class InvalidCatalogue(ModelError, ValueError):
    """The catalogue cannot be read; the message names the entry."""


def read_catalogue(path: Path = CATALOGUE) -> Mapping[str, CatalogueEntry]:
    """Model name -> entry.

    Raises:
        InvalidCatalogue: an entry lacks a field or has a wrong value.
        OSError: the file cannot be read.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InvalidCatalogue(f"{path.name}: {error}") from error
    found = {}
    for name, fields in raw.items():
        try:
            entry = CatalogueEntry.model_validate(fields)
        except ValidationError as error:
            raise InvalidCatalogue(f"{path.name}: {name}: {error}") from error
        if not entry.bundled and not (entry.repository and entry.revision):
            raise InvalidCatalogue(f"{path.name}: {name}: repository and revision are needed")
        found[name] = entry
    return found
