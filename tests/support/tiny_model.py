"""A small model with random weights in the immich-app layout, for tests: another space than lite's.

Not a good one: pictures go by colour and texture, texts by their words. `seed` makes another model.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).parents[2]
SIDE, DIMENSION, CONTEXT, PATCH = 64, 24, 20, 16
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
VOCABULARY = 30522


def write_layout(folder: Path, *, seed: int = 1, dimension: int = DIMENSION) -> Path:
    """Write the folder and return it."""
    random = np.random.default_rng(seed)
    for part in ("visual", "textual"):
        (folder / part).mkdir(parents=True)
    onnx.save(visual(random, dimension), folder / "visual" / "model.onnx")
    onnx.save(textual(random, dimension), folder / "textual" / "model.onnx")
    config = {
        "embed_dim": dimension,
        "vision_cfg": {"image_size": SIDE},
        "text_cfg": {"context_length": CONTEXT},
    }
    write_configuration(folder, config, SIDE)
    (folder / "textual" / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]"}))
    tokenizer = ROOT / "triton_models" / "lite_text" / "1" / "tokenizer.json"
    shutil.copy(tokenizer, folder / "textual" / "tokenizer.json")
    return folder


def write_configuration(folder: Path, config: dict[str, Any], side: int) -> None:
    """The configuration of the encoders, with CLIP's preprocessing."""
    preprocessing = {
        "size": [side, side],
        "mode": "RGB",
        "mean": MEAN,
        "std": STD,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
        "fill_color": 0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "visual" / "preprocess_cfg.json").write_text(json.dumps(preprocessing))


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray],
    dimension: int,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "encoder",
        inputs,
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", dimension])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name="tests"
    )
    onnx.checker.check_model(model)
    return model


def visual(random: np.random.Generator, dimension: int) -> onnx.ModelProto:
    """Patches, two layers, the mean over patches, a projection."""
    hidden = 32
    weights = {
        "patches": random.normal(0, 0.1, (hidden, 3, PATCH, PATCH)).astype(np.float32),
        "mix": random.normal(0, 0.3, (hidden, hidden, 1, 1)).astype(np.float32),
        "projection": random.normal(0, 1, (hidden, dimension)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "patches"], ["p"], strides=[PATCH, PATCH]),
        helper.make_node("Tanh", ["p"], ["t"]),
        helper.make_node("Conv", ["t", "mix"], ["m"]),
        helper.make_node("Tanh", ["m"], ["u"]),
        helper.make_node("GlobalAveragePool", ["u"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("MatMul", ["f", "projection"], ["embedding"]),
    ]
    shape: list[str | int | None] = ["batch", 3, SIDE, SIDE]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    return _model(nodes, [image], weights, dimension)


def textual(random: np.random.Generator, dimension: int) -> onnx.ModelProto:
    """The mean of the embeddings of all tokens except padding."""
    weights = {
        "table": random.normal(0, 1, (VOCABULARY, dimension)).astype(np.float32),
        "none": np.array(0, np.int32),
    }
    nodes = [
        helper.make_node("Gather", ["table", "text"], ["rows"]),
        helper.make_node("Equal", ["text", "none"], ["padding"]),
        helper.make_node("Not", ["padding"], ["real"]),
        helper.make_node("Cast", ["real"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "axis"], ["column"]),
        helper.make_node("Mul", ["rows", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "one"], ["embedding"], keepdims=0),
    ]
    weights["axis"] = np.array([2], np.int64)
    weights["one"] = np.array([1], np.int64)
    ids = helper.make_tensor_value_info("text", TensorProto.INT32, ["batch", CONTEXT])
    return _model(nodes, [ids], weights, dimension)
