"""CLIP ViT-B/32's own architecture with random weights, in the immich-app layout.

Unless asked for all of them, with fewer layers and a small vocabulary, which is quicker.

Layers as in Radford et al., "Learning Transferable Visual Models From Natural Language
Supervision", 2021, section 2.4: pre-norm transformers with QuickGELU; the picture's embedding is
the class token's, the text's is that of its end token, each through a projection.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.support import tokenizers_like
from tests.support.tiny_model import write_configuration

SIDE, PATCH, CONTEXT, EMBEDDING, LAYERS = 224, 32, 77, 512, 2
VISION_WIDTH, VISION_HEADS, TEXT_WIDTH, TEXT_HEADS = 768, 12, 512, 8
ALL_LAYERS, ALL_TOKENS = 12, 49408
"""The numbers of the real model, in both encoders."""
Array = np.ndarray


class Graph:
    """Nodes and weights of one encoder; each method returns the name of its result."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._names = 0

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = self._name()
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Array) -> str:
        name = self._name()
        self._weights.append(numpy_helper.from_array(value, name))
        return name

    def normal(self, *shape: int, scale: float) -> str:
        return self.constant(self._random.normal(0, scale, shape).astype(np.float32))

    def linear(self, x: str, inwards: int, outwards: int) -> str:
        weighted = self.op("MatMul", x, self.normal(inwards, outwards, scale=inwards**-0.5))
        return self.op("Add", weighted, self.normal(outwards, scale=0.02))

    def norm(self, x: str, width: int) -> str:
        scale = self.constant(self._random.normal(1, 0.1, width).astype(np.float32))
        shift = self.normal(width, scale=0.1)
        return self.op("LayerNormalization", x, scale, shift, axis=-1, epsilon=1e-5)

    def attention(self, x: str, width: int, heads: int, mask: str | None) -> str:
        apart = self.constant(np.array([0, 0, heads, width // heads], np.int64))
        query, key, value = (
            self.op("Reshape", self.linear(x, width, width), apart) for _ in range(3)
        )
        query, value = (self.op("Transpose", each, perm=[0, 2, 1, 3]) for each in (query, value))
        scores = self.op("MatMul", query, self.op("Transpose", key, perm=[0, 2, 3, 1]))
        root = self.constant(np.array((width // heads) ** -0.5, np.float32))
        scores = self.op("Mul", scores, root)
        if mask is not None:
            scores = self.op("Add", scores, mask)
        mixed = self.op("MatMul", self.op("Softmax", scores, axis=-1), value)
        together = self.constant(np.array([0, 0, width], np.int64))
        mixed = self.op("Reshape", self.op("Transpose", mixed, perm=[0, 2, 1, 3]), together)
        return self.linear(mixed, width, width)

    def perceptron(self, x: str, width: int) -> str:
        wide = self.linear(x, width, 4 * width)
        slope = self.constant(np.array(1.702, np.float32))
        gate = self.op("Sigmoid", self.op("Mul", wide, slope))
        return self.linear(self.op("Mul", wide, gate), 4 * width, width)

    def layers(self, x: str, count: int, width: int, heads: int, mask: str | None = None) -> str:
        for _ in range(count):
            x = self.op("Add", x, self.attention(self.norm(x, width), width, heads, mask))
            x = self.op("Add", x, self.perceptron(self.norm(x, width), width))
        return x

    def write(self, path: Path, result: str, entry: onnx.ValueInfoProto) -> None:
        self._nodes.append(helper.make_node("Identity", [result], ["embedding"]))
        shape: list[str | int | None] = ["batch", EMBEDDING]
        answer = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, shape)
        graph = helper.make_graph(self._nodes, "encoder", [entry], [answer], self._weights)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name="tests"
        )
        onnx.checker.check_model(model)
        path.parent.mkdir(parents=True)
        onnx.save(model, path)

    def _name(self) -> str:
        self._names += 1
        return f"t{self._names}"


def visual(path: Path, seed: int, layers: int) -> None:
    """image [N, 3, 224, 224] -> embedding [N, 512]"""
    graph, width = Graph(seed), VISION_WIDTH
    kernel = graph.normal(width, 3, PATCH, PATCH, scale=(3 * PATCH * PATCH) ** -0.5)
    patches = graph.op("Conv", "image", kernel, strides=[PATCH, PATCH])
    flat = graph.op("Reshape", patches, graph.constant(np.array([0, width, -1], np.int64)))
    tokens = graph.op("Transpose", flat, perm=[0, 2, 1])
    # The class token, once for each picture: a row of zeros for each, and the token added.
    zeros = graph.op(
        "Mul",
        graph.op("ReduceMean", tokens, axes=[1], keepdims=1),
        graph.constant(np.array(0, np.float32)),
    )
    first = graph.op("Add", zeros, graph.normal(1, 1, width, scale=0.3))
    tokens = graph.op("Concat", first, tokens, axis=1)
    count = (SIDE // PATCH) ** 2 + 1
    tokens = graph.op("Add", tokens, graph.normal(count, width, scale=0.1))
    tokens = graph.layers(graph.norm(tokens, width), layers, width, VISION_HEADS)
    chosen = graph.op("Gather", tokens, graph.constant(np.array(0, np.int64)), axis=1)
    projection = graph.normal(width, EMBEDDING, scale=width**-0.5)
    result = graph.op("MatMul", graph.norm(chosen, width), projection)
    shape: list[str | int | None] = ["batch", 3, SIDE, SIDE]
    graph.write(path, result, helper.make_tensor_value_info("image", TensorProto.FLOAT, shape))


def textual(path: Path, seed: int, layers: int, vocabulary: int) -> None:
    """text (token ids) [N, 77] -> embedding [N, 512]; the end token has the highest id."""
    graph, width = Graph(seed), TEXT_WIDTH
    tokens = graph.op("Gather", graph.normal(vocabulary, width, scale=0.3), "text")
    tokens = graph.op("Add", tokens, graph.normal(CONTEXT, width, scale=0.1))
    later = np.triu(np.full((CONTEXT, CONTEXT), -1e9, np.float32), 1)
    tokens = graph.layers(tokens, layers, width, TEXT_HEADS, graph.constant(later))
    end = graph.op("ArgMax", "text", axis=1, keepdims=1)
    chosen = graph.op("GatherND", graph.norm(tokens, width), end, batch_dims=1)
    result = graph.op("MatMul", chosen, graph.normal(width, EMBEDDING, scale=width**-0.5))
    shape: list[str | int | None] = ["batch", CONTEXT]
    graph.write(path, result, helper.make_tensor_value_info("text", TensorProto.INT32, shape))


def write_layout(folder: Path, *, seed: int = 1, layers: int = LAYERS, tokens: int = 0) -> Path:
    """Write the folder in the hub's layout, and return it.

    `layers` are those of each encoder, `tokens` the text encoder's vocabulary; with 0 it has those
    of the tokenizer, which are few.
    """
    tokenizer = tokenizers_like.clip()
    visual(folder / "visual" / "model.onnx", seed, layers)
    textual(folder / "textual" / "model.onnx", seed + 1, layers, tokens or len(tokenizer))
    tokenizer.save_pretrained(folder / "textual")
    config = {
        "embed_dim": EMBEDDING,
        "vision_cfg": {"image_size": SIDE, "patch_size": PATCH, "width": VISION_WIDTH},
        "text_cfg": {"context_length": CONTEXT, "width": TEXT_WIDTH, "heads": TEXT_HEADS},
    }
    write_configuration(folder, config, SIDE)
    return folder
