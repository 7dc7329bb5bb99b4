"""The text tower: token ids -> a unit embedding, centred and half-whitened.

all-MiniLM-L6-v2 (Wang et al., "MiniLM", NeurIPS 2020; Reimers and Gurevych, "Sentence-BERT",
EMNLP 2019): BERT with 6 layers of width 384 and 12 heads, mean of the token vectors.
"""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper

from tools.lite_model.graph import Graph

Floats = npt.NDArray[np.float32]
Tensors = Mapping[str, Floats]

OPSET = 17  # the first with LayerNormalization
LAYERS, WIDTH, HEADS = 6, 384, 12
NORM_EPSILON = 1e-12
MAX_TOKENS = 128
INT8_MAX = 127.0
MASKED = -1e9  # added to the score of a padding token before the softmax


class _Text:
    """Adds the transformer's parts to one graph.

    Matrices are stored as int8 with an FP32 scale for each column (embeddings: each row) and
    multiplied out in the graph. ONNX Runtime folds that once when it loads the matrices, so
    the arithmetic is FP32 and gives the same on every processor; of the token embeddings it
    multiplies out only the rows it looked up.
    """

    def __init__(self, tensors: Tensors, int8: bool) -> None:
        self.graph = Graph("minilm", OPSET)
        self._tensors = tensors
        self._int8 = int8

    def vector(self, name: str) -> str:
        return self.graph.constant(name, self._tensors[name])

    def rows(self, name: str, indices: str, table: Floats) -> str:
        if not self._int8:
            return self.graph.add("Gather", self.graph.constant(name, table), indices)
        packed, scales = quantize(table, axis=1)
        found = self.graph.add("Gather", self.graph.constant(name, packed), indices)
        scale = self.graph.add("Gather", self.graph.constant(f"{name}.scale", scales), indices)
        return self.graph.add("Mul", self.graph.add("Cast", found, to=TensorProto.FLOAT), scale)

    def matrix(self, name: str, value: Floats) -> str:
        if not self._int8:
            return self.graph.constant(name, value)
        packed, scales = quantize(value, axis=0)
        floats = self.graph.add("Cast", self.graph.constant(name, packed), to=TensorProto.FLOAT)
        return self.graph.add("Mul", floats, self.graph.constant(f"{name}.scale", scales))

    def dense(self, name: str, source: str) -> str:
        # stored as [out, in], used as [in, out]
        weight = self.matrix(f"{name}.weight", self._tensors[f"{name}.weight"].T)
        return self.graph.add(
            "Add", self.graph.add("MatMul", source, weight), self.vector(f"{name}.bias")
        )

    def norm(self, name: str, source: str) -> str:
        return self.graph.add(
            "LayerNormalization",
            source,
            self.vector(f"{name}.weight"),
            self.vector(f"{name}.bias"),
            axis=-1,
            epsilon=NORM_EPSILON,
        )

    def embed(self, ids: str) -> str:
        words = self._tensors["embeddings.word_embeddings.weight"]
        # Every text is one segment: its vector joins the positions'.
        positions = (
            self._tensors["embeddings.position_embeddings.weight"][:MAX_TOKENS]
            + self._tensors["embeddings.token_type_embeddings.weight"][0]
        )
        graph = self.graph
        length = graph.add("Gather", graph.add("Shape", ids), graph.shape(1))
        position = graph.add(
            "Slice", graph.constant("places", positions), graph.shape(0), length, graph.shape(0)
        )
        summed = graph.add("Add", self.rows("words", ids, words), position)
        return self.norm("embeddings.LayerNorm", summed)

    def heads(self, source: str, order: list[int]) -> str:
        split = self.graph.add("Reshape", source, self.graph.shape(0, 0, HEADS, WIDTH // HEADS))
        return self.graph.add("Transpose", split, perm=order)

    def layer(self, index: int, source: str, bias: str) -> str:
        graph, name = self.graph, f"encoder.layer.{index}"
        attention = f"{name}.attention"
        query = self.heads(self.dense(f"{attention}.self.query", source), [0, 2, 1, 3])
        key = self.heads(self.dense(f"{attention}.self.key", source), [0, 2, 3, 1])
        value = self.heads(self.dense(f"{attention}.self.value", source), [0, 2, 1, 3])
        root = graph.scalar(1.0 / math.sqrt(WIDTH // HEADS))
        scores = graph.add("Mul", graph.add("MatMul", query, key), root)
        weights = graph.add("Softmax", graph.add("Add", scores, bias), axis=-1)
        mixed = graph.add("Transpose", graph.add("MatMul", weights, value), perm=[0, 2, 1, 3])
        joined = graph.add("Reshape", mixed, graph.shape(0, 0, WIDTH))
        attended = graph.add("Add", self.dense(f"{attention}.output.dense", joined), source)
        normed = self.norm(f"{attention}.output.LayerNorm", attended)
        inner = self.gelu(self.dense(f"{name}.intermediate.dense", normed))
        outer = graph.add("Add", self.dense(f"{name}.output.dense", inner), normed)
        return self.norm(f"{name}.output.LayerNorm", outer)

    def gelu(self, source: str) -> str:
        graph = self.graph
        error = graph.add("Erf", graph.add("Mul", source, graph.scalar(1.0 / math.sqrt(2.0))))
        doubled = graph.add("Mul", source, graph.add("Add", error, graph.scalar(1.0)))
        return graph.add("Mul", doubled, graph.scalar(0.5))


def quantize(value: Floats, axis: int) -> tuple[npt.NDArray[np.int8], Floats]:
    """Returns int8 numbers and FP32 scales; a scale is shared along `axis`."""
    scales = np.abs(value).max(axis=axis, keepdims=True) / INT8_MAX
    scales[scales == 0.0] = 1.0
    return np.rint(value / scales).astype(np.int8), scales.astype(np.float32)


def build(
    tensors: Tensors, *, int8: bool, mean: Floats | None, whiten: Floats | None
) -> ModelProto:
    """Builds the graph.

    INPUT_IDS int64 [N, L] and ATTENTION_MASK int64 [N, L] (1 for a token, 0 for padding),
    L <= 128 -> EMBEDDING float [N, 384] of unit length.

    Args:
        tensors: the weight file's tensors by name.
        int8: store matrices as int8.
        mean: [384], subtracted from the unit sentence vector; None leaves that vector.
        whiten: [384, 384], multiplied from the right after that.
    """
    text = _Text(tensors, int8)
    graph = text.graph
    mask = graph.add("Cast", "ATTENTION_MASK", to=TensorProto.FLOAT)
    padding = graph.add("Mul", graph.add("Sub", graph.scalar(1.0), mask), graph.scalar(MASKED))
    bias = graph.add("Unsqueeze", padding, graph.shape(1, 2))
    state = text.embed("INPUT_IDS")
    for index in range(LAYERS):
        state = text.layer(index, state, bias)
    counted = graph.add("Mul", state, graph.add("Unsqueeze", mask, graph.shape(2)))
    summed = graph.add("ReduceSum", counted, graph.shape(1), keepdims=0)
    # The mean differs from the sum by a factor only, which the unit length takes away.
    if mean is None or whiten is None:
        graph.unit(summed, output="EMBEDDING")
    else:
        centred = graph.add("Sub", graph.unit(summed), graph.constant("mean", mean))
        graph.unit(
            graph.add("MatMul", centred, graph.constant("whiten", whiten)), output="EMBEDDING"
        )
    tokens = ["N", "L"]
    return graph.model(
        [
            helper.make_tensor_value_info("INPUT_IDS", TensorProto.INT64, tokens),
            helper.make_tensor_value_info("ATTENTION_MASK", TensorProto.INT64, tokens),
        ],
        [helper.make_tensor_value_info("EMBEDDING", TensorProto.FLOAT, ["N", WIDTH])],
    )
