"""The image tower: UINT8 pixels -> class logits, and logits -> a unit embedding.

The two halves are built apart, because the first is quantized to int8 and the second is not,
and joined at the end.
"""

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, checker, compose, helper

from tools.lite_model.efficientnet import Block, Conv, Network
from tools.lite_model.graph import Graph

OPSET = 13
SIDE = 260  # EfficientNet-Lite2 was trained at 260 x 260
CLASSES = 1000
PIXEL_MEAN, PIXEL_SCALE = 127.0, 128.0  # what these weights were trained with
TEMPERATURE = 1.5
KEPT = 30  # classes whose probability counts


def _conv(graph: Graph, conv: Conv, source: str) -> str:
    output = graph.add(
        "Conv",
        source,
        graph.constant(f"{conv.name}.weight", conv.weight),
        graph.constant(f"{conv.name}.bias", conv.bias),
        kernel_shape=list(conv.weight.shape[2:]),
        strides=[conv.stride, conv.stride],
        group=conv.groups,
        auto_pad="SAME_UPPER",
    )
    if conv.relu6:
        output = graph.add("Clip", output, graph.scalar(0.0), graph.scalar(6.0))
    return output


def _block(graph: Graph, block: Block, source: str) -> str:
    output = source
    for conv in block.convs:
        output = _conv(graph, conv, output)
    return graph.add("Add", output, source) if block.residual else output


def pixels_to_floats() -> ModelProto:
    """PIXELS uint8 [N, 260, 260, 3], RGB -> PLANES float [N, 3, 260, 260] in [-1, 1]."""
    graph = Graph("pixels", OPSET)
    floats = graph.add("Cast", "PIXELS", to=TensorProto.FLOAT)
    centred = graph.add("Sub", floats, graph.scalar(PIXEL_MEAN))
    scaled = graph.add("Div", centred, graph.scalar(PIXEL_SCALE))
    graph.add("Transpose", scaled, output="PLANES", perm=[0, 3, 1, 2])
    return graph.model(
        [helper.make_tensor_value_info("PIXELS", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("PLANES", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
    )


def classifier(network: Network) -> ModelProto:
    """PLANES float [N, 3, 260, 260] -> LOGITS float [N, 1000]."""
    graph = Graph("efficientnet_lite2", OPSET)
    output = _conv(graph, network.stem, "PLANES")
    for block in network.blocks:
        output = _block(graph, block, output)
    output = _conv(graph, network.head, output)
    pooled = graph.add("Flatten", graph.add("GlobalAveragePool", output), axis=1)
    graph.add(
        "Gemm",
        pooled,
        graph.constant("_fc.weight", network.dense_weight),
        graph.constant("_fc.bias", network.dense_bias),
        output="LOGITS",
        transB=1,
    )
    return graph.model(
        [helper.make_tensor_value_info("PLANES", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("LOGITS", TensorProto.FLOAT, ["N", CLASSES])],
    )


def logits_to_embedding(table: npt.NDArray[np.float32]) -> ModelProto:
    """LOGITS float [N, 1000] -> EMBEDDING float [N, D] of unit length."""
    graph = Graph("conse", OPSET)
    tempered = graph.add("Div", "LOGITS", graph.scalar(TEMPERATURE))
    chances = graph.add("Softmax", tempered, axis=1)
    largest, _ = graph.add_many("TopK", chances, graph.shape(KEPT), outputs=["", ""], axis=1)
    least = graph.add("Slice", largest, graph.shape(KEPT - 1), graph.shape(KEPT), graph.shape(1))
    dropped = graph.add("Less", chances, least)
    kept = graph.add("Where", dropped, graph.scalar(0.0), chances)
    mixed = graph.add("MatMul", kept, graph.constant("table", table))
    graph.unit(mixed, output="EMBEDDING")
    return graph.model(
        [helper.make_tensor_value_info("LOGITS", TensorProto.FLOAT, ["N", CLASSES])],
        [helper.make_tensor_value_info("EMBEDDING", TensorProto.FLOAT, ["N", table.shape[1]])],
    )


def join(logits: ModelProto, table: npt.NDArray[np.float32]) -> ModelProto:
    """Puts the three parts together: PIXELS -> EMBEDDING, and LOGITS for those who look."""
    front = compose.merge_models(pixels_to_floats(), logits, io_map=[("PLANES", "PLANES")])
    whole = compose.merge_models(
        front,
        logits_to_embedding(table),
        io_map=[("LOGITS", "LOGITS")],
        outputs=["EMBEDDING", "LOGITS"],
        name="lite_image",
    )
    whole.graph.output.sort(key=lambda output: output.name)  # EMBEDDING first
    checker.check_model(whole, full_check=True)
    return whole
