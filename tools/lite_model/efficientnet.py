"""EfficientNet-Lite2's shape, and its convolutions with batch normalization folded in.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
ICML 2019; the Lite variants have ReLU6 for swish and no squeeze-and-excitation.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

DEPTH = 1.2  # Lite2; Lite1 has 1.1, Lite0 1.0
BATCH_NORM_EPSILON = 1e-3
# repeats, kernel, stride of the first repeat, expansion
STAGES = (
    (1, 3, 1, 1),
    (2, 3, 2, 6),
    (2, 5, 2, 6),
    (3, 3, 2, 6),
    (3, 5, 1, 6),
    (4, 5, 2, 6),
    (1, 3, 1, 6),
)


@dataclass(frozen=True)
class Conv:
    """One convolution: weights [out, in / groups, k, k], bias [out], SAME_UPPER padding."""

    name: str
    weight: Floats
    bias: Floats
    stride: int
    groups: int
    relu6: bool


@dataclass(frozen=True)
class Block:
    """Inverted residual: expand (unless the ratio is 1), depthwise, project."""

    convs: tuple[Conv, ...]
    residual: bool


@dataclass(frozen=True)
class Network:
    """The whole classifier."""

    stem: Conv
    blocks: tuple[Block, ...]
    head: Conv
    dense_weight: Floats  # [classes, channels]
    dense_bias: Floats  # [classes]


class _Weights:
    """The weight file's tensors, each of which must be used."""

    def __init__(self, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
        self._tensors = tensors
        self.used = {name for name in tensors if name.endswith("num_batches_tracked")}

    def take(self, name: str) -> Floats:
        self.used.add(name)
        return np.asarray(self._tensors[name], np.float32)

    def conv(
        self, conv: str, norm: str, *, stride: int = 1, depthwise: bool = False, relu6: bool = True
    ) -> Conv:
        weight = self.take(f"{conv}.weight").astype(np.float64)
        variance = self.take(f"{norm}.running_var").astype(np.float64)
        scale = self.take(f"{norm}.weight") / np.sqrt(variance + BATCH_NORM_EPSILON)
        bias = self.take(f"{norm}.bias") - self.take(f"{norm}.running_mean") * scale
        folded = weight * scale[:, None, None, None]
        groups = weight.shape[0] if depthwise else 1
        return Conv(conv, folded.astype(np.float32), bias.astype(np.float32), stride, groups, relu6)

    def unused(self) -> list[str]:
        return sorted(set(self._tensors) - self.used)


def _repeats() -> Iterator[tuple[int, int, int]]:
    """Yields (kernel, stride, expansion) of each block."""
    for stage, (repeats, kernel, stride, expansion) in enumerate(STAGES):
        scaled = 0 < stage < len(STAGES) - 1
        for repeat in range(math.ceil(repeats * DEPTH) if scaled else repeats):
            yield kernel, stride if repeat == 0 else 1, expansion


def network(tensors: Mapping[str, npt.NDArray[Any]]) -> Network:
    """Arranges the weight file's tensors into the network.

    Raises:
        KeyError: a tensor is missing.
        ValueError: tensors are left over or have another shape: not EfficientNet-Lite2.
    """
    weights = _Weights(tensors)
    blocks = []
    stem = weights.conv("_conv_stem", "_bn0", stride=2)
    channels = stem.bias.size
    for index, (kernel, stride, expansion) in enumerate(_repeats()):
        name = f"_blocks.{index}"
        expand = [weights.conv(f"{name}._expand_conv", f"{name}._bn0")] if expansion > 1 else []
        depthwise = weights.conv(
            f"{name}._depthwise_conv", f"{name}._bn1", stride=stride, depthwise=True
        )
        project = weights.conv(f"{name}._project_conv", f"{name}._bn2", relu6=False)
        if depthwise.weight.shape[2] != kernel:
            raise ValueError(f"{name} has a kernel of {depthwise.weight.shape[2]}, not {kernel}")
        residual = stride == 1 and project.bias.size == channels
        channels = project.bias.size
        blocks.append(Block((*expand, depthwise, project), residual))
    head = weights.conv("_conv_head", "_bn1")
    dense_weight, dense_bias = weights.take("_fc.weight"), weights.take("_fc.bias")
    if weights.unused():
        raise ValueError(f"tensors left over: {weights.unused()}")
    return Network(stem, tuple(blocks), head, dense_weight, dense_bias)
