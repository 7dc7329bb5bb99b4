"""What a served model wants to be given and what it gives, as its Triton configuration says."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

ResizeMode = Literal["stretch", "shortest_edge_center_crop"]


class ModelSpec(BaseModel):
    """A model version. Two versions' vectors must never meet.

    Attributes:
        name: the model's name, without `_image` or `_text`.
        version: short hash of its weights, tokenizer and preprocessing.
        dimension: of the embeddings.
        width: of the pictures it takes, in pixels.
        height: of the pictures it takes, in pixels.
        resize_mode: `stretch` resizes the whole picture ignoring its aspect;
            `shortest_edge_center_crop` resizes it so that it just covers width x height and
            cuts out the middle.
        interpolation: the resampling filter.
        background: the colour put behind transparent pixels.
        licence: SPDX expression for the weights.
        min_score: cosine below which a picture does not match a text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    dimension: int = Field(gt=0)
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    resize_mode: ResizeMode
    interpolation: Literal["bicubic", "bilinear"]
    background: Literal["white", "black"]
    licence: str = Field(min_length=1)
    min_score: float = Field(ge=-1.0, le=1.0)

    @classmethod
    def from_triton_parameters(cls, parameters: Mapping[str, str]) -> Self:
        """Reads the parameters of an image model; those meant for others are passed over.

        Raises:
            pydantic.ValidationError: a parameter is missing or makes no sense.
        """
        stated = {key: value for key, value in parameters.items() if key in cls.model_fields}
        if "model" in parameters:
            stated["name"] = parameters["model"]
        return cls.model_validate(stated)

    @classmethod
    def from_triton_config(cls, config: Mapping[str, Any]) -> Self:
        """Reads the JSON with which Triton answers `GET /v2/models/<model>_image/config`.

        Raises:
            pydantic.ValidationError: a parameter is missing or makes no sense.
        """
        stated = config.get("parameters", {})
        return cls.from_triton_parameters(
            {key: value["string_value"] for key, value in stated.items()}
        )
