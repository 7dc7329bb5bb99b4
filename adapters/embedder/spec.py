"""The input and output of a served model, read from the parameters of its Triton configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class InvalidModelSpec(ValueError):
    """A model configuration lacks a parameter or has an invalid one."""


class ModelSpec(BaseModel):
    """One model version and the images that it takes.

    Images are RGB, `height` x `width` pixels, resized according to `resize_mode`:
    `stretch` ignores the aspect ratio; `shortest_edge_center_crop` scales the shorter edge to the
    size and crops the middle. Transparent images are composited onto `background`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Annotated[str, Field(min_length=1)]
    version: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
    """Hash of everything that changes an embedding: weights, tokenizer and preprocessing."""
    dimension: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    resize_mode: Literal["stretch", "shortest_edge_center_crop"]
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    background: Literal["white", "black"] = "white"
    licence: str
    min_score: float = 0.0
    """Cosine similarity below which a match is usually noise."""

    @classmethod
    def from_triton_parameters(cls, parameters: Mapping[str, str]) -> ModelSpec:
        """The spec in a Triton model configuration's string parameters.

        Raises:
            InvalidModelSpec: a parameter is missing or invalid; the message names it.
        """
        try:
            return cls.model_validate(dict(parameters))
        except ValidationError as error:
            raise InvalidModelSpec(
                "; ".join(
                    f"parameter {problem['loc'][0] if problem['loc'] else '?'}: {problem['msg']}"
                    for problem in error.errors(include_url=False, include_input=False)
                )
            ) from error
