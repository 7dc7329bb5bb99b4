"""A small helper with which the two ONNX graphs are written down node by node."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, ValueInfoProto, checker, helper, numpy_helper

IR_VERSION = 8  # what ONNX Runtime 1.10 and newer read


class Graph:
    """Collects nodes and constants; every method returns the name of its output tensor."""

    def __init__(self, name: str, opset: int) -> None:
        self._name = name
        self._opset = opset
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._count = 0

    def constant(self, name: str, value: npt.NDArray[Any]) -> str:
        """Adds a constant and returns its name: the graph's and its own."""
        name = f"{self._name}/{name}"
        if name in self._constants:
            raise ValueError(f"constant {name} is there already")
        self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def scalar(self, value: float) -> str:
        """Adds (once) an FP32 scalar."""
        return self._once(f"scalar_{value!r}", np.array(value, np.float32))

    def shape(self, *sizes: int) -> str:
        """Adds (once) a list of int64: a shape, axes or indices."""
        return self._once("_".join(["shape", *map(str, sizes)]), np.array(sizes, np.int64))

    def _once(self, name: str, value: npt.NDArray[Any]) -> str:
        full = f"{self._name}/{name}"
        return full if full in self._constants else self.constant(name, value)

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Adds a node with one output."""
        return self.add_many(operator, *inputs, outputs=[output], **attributes)[0]

    def add_many(
        self, operator: str, *inputs: str, outputs: Sequence[str], **attributes: Any
    ) -> list[str]:
        """Adds a node with several outputs; an empty name is replaced by a made-up one."""
        self._count += 1
        made_up = f"{self._name}/{operator}_{self._count}"
        names = [name or f"{made_up}:{i}" for i, name in enumerate(outputs)]
        node = helper.make_node(operator, list(inputs), names, name=made_up, **attributes)
        self._nodes.append(node)
        return names

    def unit(self, vectors: str, output: str = "") -> str:
        """Scales the rows of [N, D] to length 1; a zero row stays zero."""
        length = self.add("ReduceL2", vectors, axes=[-1], keepdims=1)
        return self.add("Div", vectors, self.add("Max", length, self.scalar(1e-12)), output=output)

    def model(
        self, inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]
    ) -> ModelProto:
        """Returns the checked model.

        Raises:
            onnx.checker.ValidationError: the graph is not valid ONNX.
        """
        graph = helper.make_graph(
            self._nodes, self._name, inputs, outputs, list(self._constants.values())
        )
        model = helper.make_model(
            graph,
            producer_name="tools.lite_model",
            opset_imports=[helper.make_opsetid("", self._opset)],
            ir_version=IR_VERSION,
        )
        checker.check_model(model, full_check=True)
        return model
