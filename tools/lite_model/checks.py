"""Holds the finished graphs against the plain NumPy networks and against their FP32 selves."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import ModelProto

from tools.lite_model import reference
from tools.lite_model.efficientnet import Network
from tools.lite_model.semantics import Semantics, unit

Floats = npt.NDArray[np.float32]
TOLERANCE = 1e-4
# What int8 may cost, as cosine to FP32 over the calibration crops, mean and worst.
IMAGE_MEAN, IMAGE_WORST = 0.97, 0.80
TEXT_WORST = 0.995


class WrongModel(Exception):
    """A graph does not compute what it should."""


@dataclass(frozen=True)
class Cosines:
    """How close int8 is to FP32."""

    mean: float
    worst: float


def session(model: ModelProto) -> onnxruntime.InferenceSession:
    """Opens a model that is still in memory."""
    return onnxruntime.InferenceSession(model.SerializeToString())


def _hold(what: str, difference: float) -> float:
    if not difference <= TOLERANCE:  # written so that NaN fails too
        raise WrongModel(f"{what} is off by {difference:.2e}, more than {TOLERANCE}")
    return difference


def image(fp32: ModelProto, network: Network, pixels: npt.NDArray[np.uint8]) -> float:
    """Compares logits for a few pictures [N, 260, 260, 3]; returns the largest difference."""
    found = session(fp32).run(["LOGITS"], {"PIXELS": pixels})[0]
    expected = np.stack([reference.logits(network, each) for each in pixels])
    return _hold("the image graph", float(np.abs(found - expected).max()))


def text(
    model: ModelProto,
    tensors: Mapping[str, Floats],
    semantics: Semantics,
    tokens: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
) -> float:
    """Compares embeddings of a batch of texts; returns the largest difference."""
    ids, mask = tokens
    found = session(model).run(None, {"INPUT_IDS": ids, "ATTENTION_MASK": mask})[0]
    plain = np.stack(
        [
            reference.sentence(tensors, row[kept == 1].tolist())
            for row, kept in zip(ids, mask, strict=True)
        ]
    )
    expected = unit((plain - semantics.mean) @ semantics.whiten)
    return _hold("the text graph", float(np.abs(found - expected).max()))


def cosines(found: Floats, expected: Floats) -> Cosines:
    """Compares rows of unit length."""
    products = (found * expected).sum(axis=1)
    return Cosines(float(products.mean()), float(products.min()))


def hold_image(each: Cosines) -> None:
    """Raises WrongModel where the int8 image tower strays too far from FP32."""
    if not (each.mean >= IMAGE_MEAN and each.worst >= IMAGE_WORST):
        raise WrongModel(f"the int8 image tower deviates: {each}")


def hold_text(each: Cosines) -> None:
    """Raises WrongModel where the int8 text tower strays too far from FP32."""
    if not each.worst >= TEXT_WORST:
        raise WrongModel(f"the int8 text tower deviates: {each}")
