"""Add preprocessing and normalization to ONNX graphs, so that a served model takes UINT8 pixels.

Weights are not changed: nodes are added before and after the exported graph. Weights in external
files stay there, under the names that the graph refers to.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, external_data_helper, helper
from onnx import numpy_helper as numpy_to

from models.errors import ModelError

PREFIX = "served_"
OUTPUT = "EMBEDDING"
PIXELS = "PIXELS"
SMALLEST_LENGTH = 1e-12
_FLOATS = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}


class InvalidGraph(ModelError, ValueError):
    """The ONNX file is not an encoder that can be served; the message says why."""


def load(path: Path) -> ModelProto:
    """The model without its external weights.

    Raises:
        InvalidGraph: it is not an ONNX model.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's and onnx's errors have no common base class
        raise InvalidGraph(f"{path.name}: not an ONNX model: {error}") from error
    if not model.graph.output:
        raise InvalidGraph(f"{path.name}: the graph has no output")
    return model


def external_files(model: ModelProto) -> set[str]:
    """Names of the model's external weight files.

    Raises:
        InvalidGraph: one of them is not in the model's folder.
    """
    names = {
        external_data_helper.ExternalDataInfo(tensor).location
        for tensor in model.graph.initializer
        if external_data_helper.uses_external_data(tensor)
    }
    for name in names:
        if Path(name).name != name:
            raise InvalidGraph(f"weights are in {name!r}, which is not in the model's folder")
    return names


def batch_limit(model: ModelProto) -> int | None:
    """The fixed batch size of the graph; None if it takes any."""
    dimension = inputs(model)[0].type.tensor_type.shape.dim[0]
    return dimension.dim_value if dimension.HasField("dim_value") and dimension.dim_value else None


def inputs(model: ModelProto) -> list[ValueInfoProto]:
    """The graph's inputs without the weights, which old exports list among the inputs."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def image_encoder(
    model: ModelProto, *, height: int, width: int, mean: Sequence[float], std: Sequence[float]
) -> ModelProto:
    """The encoder with input PIXELS uint8 [N, H, W, 3] and output EMBEDDING of unit length.

    x = (p / 255 - mean) / std for each channel, as torchvision's ToTensor and Normalize do.

    Raises:
        InvalidGraph: its input is not float [N, 3, H, W].
    """
    found = inputs(model)
    if len(found) != 1:
        raise InvalidGraph(f"the image model has {len(found)} inputs, not 1")
    old, kind = found[0], found[0].type.tensor_type.elem_type
    shape = [dim.dim_value for dim in old.type.tensor_type.shape.dim]
    fits = len(shape) == 4 and all(
        stated in (0, wanted) for stated, wanted in zip(shape[1:], (3, height, width), strict=True)
    )
    if kind not in _FLOATS or not fits:
        raise InvalidGraph(
            f"the image model's input is {shape}, not float [N, 3, {height}, {width}]"
        )
    graph = model.graph
    batch = _batch(old)
    scale = np.array([1 / (255 * deviation) for deviation in std], np.float32).reshape(1, 1, 1, 3)
    shift = np.array([m / deviation for m, deviation in zip(mean, std, strict=True)], np.float32)
    graph.initializer.extend(
        [
            numpy_to.from_array(scale, f"{PREFIX}scale"),
            numpy_to.from_array(shift.reshape(1, 1, 1, 3), f"{PREFIX}shift"),
        ]
    )
    before = [
        helper.make_node("Cast", [PIXELS], [f"{PREFIX}float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{PREFIX}float", f"{PREFIX}scale"], [f"{PREFIX}scaled"]),
        helper.make_node("Sub", [f"{PREFIX}scaled", f"{PREFIX}shift"], [f"{PREFIX}normal"]),
        helper.make_node("Transpose", [f"{PREFIX}normal"], [f"{PREFIX}planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", [f"{PREFIX}planes"], [old.name], to=kind),
    ]
    _replace_inputs(
        graph,
        [helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, [batch, height, width, 3])],
        {old.name},
    )
    _insert(graph, before)
    return _with_unit_output(model, batch)


def text_encoder(model: ModelProto) -> ModelProto:
    """The encoder with output EMBEDDING of unit length; its inputs are not changed.

    Raises:
        InvalidGraph: its inputs are not token ids and optionally a mask.
    """
    found = inputs(model)
    whole = (TensorProto.INT32, TensorProto.INT64)
    if not 1 <= len(found) <= 2 or any(v.type.tensor_type.elem_type not in whole for v in found):
        raise InvalidGraph(
            "the text model takes "
            + ", ".join(value.name for value in found)
            + "; supported are token ids, and an attention mask after them"
        )
    return _with_unit_output(model, _batch(found[0]))


def _batch(value: ValueInfoProto) -> int | str:
    dimension = value.type.tensor_type.shape.dim[0]
    return dimension.dim_value if dimension.dim_value else "batch"


def _replace_inputs(graph: GraphProto, fresh: list[ValueInfoProto], gone: set[str]) -> None:
    kept = [value for value in graph.input if value.name not in gone]
    del graph.input[:]
    graph.input.extend([*fresh, *kept])


def _insert(graph: GraphProto, before: list[onnx.NodeProto]) -> None:
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*before, *nodes])


def _with_unit_output(model: ModelProto, batch: int | str) -> ModelProto:
    """v / |v| in FP32, with operators that have the same form in all operator sets."""
    graph = model.graph
    embedding = graph.output[0].name
    if embedding == OUTPUT:
        for node in graph.node:
            node.output[:] = [f"{PREFIX}raw" if name == OUTPUT else name for name in node.output]
            node.input[:] = [f"{PREFIX}raw" if name == OUTPUT else name for name in node.input]
        embedding = f"{PREFIX}raw"
    names = (f"{PREFIX}{part}" for part in ("wide", "square", "sum", "length", "safe"))
    wide, square, total, length, safe = names
    ones = f"{PREFIX}ones"
    dims = graph.output[0].type.tensor_type.shape.dim
    width = dims[-1].dim_value if len(dims) == 2 else 0
    graph.initializer.append(
        numpy_to.from_array(np.array(SMALLEST_LENGTH, np.float32), f"{PREFIX}least")
    )
    nodes = [
        helper.make_node("Cast", [embedding], [wide], to=TensorProto.FLOAT),
        helper.make_node("Mul", [wide, wide], [square]),
    ]
    opset = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    if opset >= 13:  # ReduceSum takes its axes as an input since then
        graph.initializer.append(numpy_to.from_array(np.array([-1], np.int64), ones))
        nodes.append(helper.make_node("ReduceSum", [square, ones], [total], keepdims=1))
    else:
        nodes.append(helper.make_node("ReduceSum", [square], [total], axes=[-1], keepdims=1))
    nodes += [
        helper.make_node("Sqrt", [total], [length]),
        helper.make_node("Max", [length, f"{PREFIX}least"], [safe]),
        helper.make_node("Div", [wide, safe], [OUTPUT]),
    ]
    graph.node.extend(nodes)
    del graph.output[:]
    graph.output.append(
        helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [batch, width or "dimension"])
    )
    return model
