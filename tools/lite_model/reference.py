"""The same two networks once more in plain NumPy, to check the ONNX graphs against.

Written from the papers and sharing no operator with ONNX Runtime, so that a mistake in a
graph, or in the runtime, shows as a difference. Slow; used on a few inputs.
"""

import math

import numpy as np
import numpy.typing as npt

from tools.lite_model import minilm
from tools.lite_model.efficientnet import Conv, Network
from tools.lite_model.image_graph import PIXEL_MEAN, PIXEL_SCALE
from tools.lite_model.minilm import HEADS, LAYERS, NORM_EPSILON, WIDTH, Tensors

Doubles = npt.NDArray[np.float64]


def _same_upper(planes: Doubles, kernel: int, stride: int) -> Doubles:
    """Pads [C, H, W] so that a convolution gives ceil(size / stride); odd pixel at the end."""
    pads = []
    for size in planes.shape[1:]:
        total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        pads.append((total // 2, total - total // 2))
    return np.pad(planes, [(0, 0), *pads])


def convolve(conv: Conv, planes: Doubles) -> Doubles:
    """Applies one convolution to [C, H, W]."""
    kernel, stride = conv.weight.shape[2], conv.stride
    padded = _same_upper(planes, kernel, stride)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(1, 2))
    windows = windows[:, ::stride, ::stride]
    weight = conv.weight.astype(np.float64)
    if conv.groups == 1:
        output = np.einsum("ochw,cyxhw->oyx", weight, windows, optimize=True)
    else:
        output = np.einsum("chw,cyxhw->cyx", weight[:, 0], windows, optimize=True)
    output += conv.bias[:, None, None]
    return np.asarray(np.clip(output, 0.0, 6.0) if conv.relu6 else output)


def logits(network: Network, pixels: npt.NDArray[np.uint8]) -> Doubles:
    """Classifies one picture [260, 260, 3]; returns [1000]."""
    planes = (pixels.transpose(2, 0, 1).astype(np.float64) - PIXEL_MEAN) / PIXEL_SCALE
    state = convolve(network.stem, planes)
    for block in network.blocks:
        source = state
        for conv in block.convs:
            state = convolve(conv, state)
        if block.residual:
            state = state + source
    pooled = convolve(network.head, state).mean(axis=(1, 2))
    return np.asarray(network.dense_weight @ pooled + network.dense_bias)


def _norm(tensors: Tensors, name: str, rows: Doubles) -> Doubles:
    centred = rows - rows.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + NORM_EPSILON)
    return np.asarray(centred / deviation * tensors[f"{name}.weight"] + tensors[f"{name}.bias"])


def _dense(tensors: Tensors, name: str, rows: Doubles) -> Doubles:
    return np.asarray(rows @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"])


def _softmax(scores: Doubles) -> Doubles:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


_erf = np.vectorize(math.erf)


def sentence(tensors: Tensors, ids: list[int]) -> Doubles:
    """Embeds one text given as token ids, before centring; returns [384] of unit length."""
    state = (
        tensors["embeddings.word_embeddings.weight"][ids].astype(np.float64)
        + tensors["embeddings.position_embeddings.weight"][: len(ids)]
        + tensors["embeddings.token_type_embeddings.weight"][0]
    )
    state = _norm(tensors, "embeddings.LayerNorm", state)
    for index in range(LAYERS):
        name = f"encoder.layer.{index}"
        query, key, value = (
            _dense(tensors, f"{name}.attention.self.{part}", state)
            .reshape(len(ids), HEADS, WIDTH // HEADS)
            .transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        weights = _softmax(query @ key.transpose(0, 2, 1) / math.sqrt(WIDTH // HEADS))
        mixed = (weights @ value).transpose(1, 0, 2).reshape(len(ids), WIDTH)
        attended = _dense(tensors, f"{name}.attention.output.dense", mixed) + state
        state = _norm(tensors, f"{name}.attention.output.LayerNorm", attended)
        inner = _dense(tensors, f"{name}.intermediate.dense", state)
        inner = inner * 0.5 * (1.0 + _erf(inner / math.sqrt(2.0)))
        outer = _dense(tensors, f"{name}.output.dense", inner) + state
        state = _norm(tensors, f"{name}.output.LayerNorm", outer)
    mean = state.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


def dequantized(tensors: Tensors) -> dict[str, npt.NDArray[np.float32]]:
    """Returns the text tower's tensors as the int8 graph sees them."""
    rounded = {name: np.array(value) for name, value in tensors.items()}
    for name, value in tensors.items():
        # A row of a stored matrix is a column of the graph's: both are one output's weights.
        is_matrix = name.endswith(("dense.weight", "query.weight", "key.weight", "value.weight"))
        if is_matrix or name == "embeddings.word_embeddings.weight":
            packed, scales = minilm.quantize(value, axis=1)
            rounded[name] = packed * scales
    return rounded
