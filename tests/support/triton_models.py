"""Runs rendered Triton models in this process: what `model.py` and the ONNX graphs compute."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from google.protobuf import json_format  # type: ignore[import-untyped]

from models import repository as model_repository
from models import triton_config


def render_cpu(source: Path, target: Path, name: str) -> None:
    """The model as it is served on a machine without a GPU, with Triton's own Python."""
    model_repository.render(
        source,
        target,
        python_env=None,
        image_instances=1,
        text_instances=1,
        threads=1,
        provider="cpu",
        names=[name],
    )


class TritonError(Exception):
    """Triton's error class, as far as the models use it."""

    INTERNAL, INVALID_ARG = 1, 2


@dataclass
class Response:
    """Triton's InferenceResponse."""

    output_tensors: list[Any] = field(default_factory=list)
    error: TritonError | None = None


@dataclass
class Tensor:
    """Triton's Tensor."""

    name: str
    array: Any

    def as_numpy(self) -> Any:
        return self.array


def give_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the Python backend's module for the duration of a test."""
    module = ModuleType("triton_python_backend_utils")
    module.__dict__.update(
        TritonError=TritonError,
        InferenceResponse=Response,
        Tensor=Tensor,
        Logger=SimpleNamespace(
            log_info=lambda _: None, log_warn=lambda _: None, log_error=lambda _: None
        ),
        get_input_tensor_by_name=lambda request, name: request[name],
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)


def python_model(folder: Path) -> Any:
    """An initialized `model.py`; its neighbours are imported from its own folder."""
    for shared in ("onnx_session", "tokenization"):
        sys.modules.pop(shared, None)
    spec = importlib.util.spec_from_file_location(folder.name, folder / "1" / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(folder / "1"))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    config = triton_config.read(folder / "config.pbtxt")
    model = module.TritonPythonModel()
    model.initialize(
        {
            "model_name": folder.name,
            "model_instance_name": f"{folder.name}_0",
            "model_instance_device_id": "0",
            "model_repository": str(folder),
            "model_version": "1",
            "model_config": json.dumps(
                json_format.MessageToDict(config, preserving_proto_field_name=True)
            ),
        }
    )
    return model


def infer(repository: Path, name: str, feeds: dict[str, Any]) -> dict[str, Any]:
    """Triton's answer to one request, by the configuration; also for ensembles."""
    folder = repository / name
    config = triton_config.read(folder / "config.pbtxt")
    if config.platform == "ensemble":
        known = dict(feeds)
        for step in config.ensemble_scheduling.step:
            given = {key: known[value] for key, value in step.input_map.items()}
            found = infer(repository, step.model_name, given)
            known |= {value: found[key] for key, value in step.output_map.items()}
        return {each.name: known[each.name] for each in config.output}
    if config.backend == "onnxruntime":
        session = onnxruntime.InferenceSession(
            str(folder / "1" / "model.onnx"), providers=["CPUExecutionProvider"]
        )
        wanted = [each.name for each in config.output]
        return dict(zip(wanted, session.run(wanted, feeds), strict=True))
    request = {key: Tensor(key, value) for key, value in feeds.items()}
    (response,) = python_model(folder).execute([request])
    assert response.error is None, response.error
    return {each.name: each.as_numpy() for each in response.output_tensors}


def as_texts(texts: list[str]) -> Any:
    """The TEXT tensor, [N, 1]."""
    return np.array([[text.encode()] for text in texts], dtype=np.object_)
