"""The photographs on which the int8 ranges of the image tower are measured."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnxruntime.quantization import CalibrationDataReader
from PIL import Image

from tools.lite_model.image_graph import PIXEL_MEAN, PIXEL_SCALE, SIDE

# Photographs in scikit-image's wheel. Only the ranges measured on them get into the model.
PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "rocket.jpg",
)
CROPS_EACH = 9
SEED = 20  # any; fixed so that the model comes out the same
SMALLEST = 0.35  # of the photograph's sides


def crops(folder: Path) -> Iterator[npt.NDArray[np.uint8]]:
    """Yields the whole of each photograph, then random parts, as RGB [260, 260, 3]."""
    random = np.random.default_rng(SEED)
    for name in PHOTOGRAPHS:
        with Image.open(folder / name) as opened:
            photograph = opened.convert("RGB")
        width, height = photograph.size
        for index in range(CROPS_EACH):
            share = 1.0 if index == 0 else random.uniform(SMALLEST, 1.0)
            left = random.uniform(0.0, width * (1.0 - share))
            top = random.uniform(0.0, height * (1.0 - share))
            box = (left, top, left + width * share, top + height * share)
            resized = photograph.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box)
            yield np.asarray(resized)


class Planes(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
    """Hands the crops to the quantizer as the classifier wants them."""

    def __init__(self, folder: Path) -> None:
        self._crops = crops(folder)

    def get_next(self) -> dict[str, Any] | None:
        """Returns the next crop, or None at the end."""
        crop = next(self._crops, None)
        if crop is None:
            return None
        planes = (crop.astype(np.float32) - PIXEL_MEAN) / PIXEL_SCALE
        return {"PLANES": planes.transpose(2, 0, 1)[None]}
