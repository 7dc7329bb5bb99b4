"""Read and write Triton's `config.pbtxt` with tritonclient's protobuf classes."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from google.protobuf import text_format  # type: ignore[import-untyped]

_MODULE = "tritonclient_model_config_pb2"


def _protobuf() -> ModuleType:
    """Load only the generated module with the configuration's messages.

    `import tritonclient.grpc` also loads the gRPC stubs, which reject any grpcio older than the one
    they were generated with; we install tritonclient for HTTP only, and do not use gRPC.
    """
    if _MODULE in sys.modules:
        return sys.modules[_MODULE]
    package = importlib.util.find_spec("tritonclient")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("tritonclient is not installed")
    path = Path(package.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"{path} does not exist")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
    spec.loader.exec_module(module)
    return module


# The message class exists only at run time, so a type checker cannot know it.
ModelConfig = Any


def read(path: Path) -> ModelConfig:
    """The configuration in this file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a model configuration; the message names the file and the line.
    """
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), _protobuf().ModelConfig())
    except text_format.ParseError as error:
        raise ValueError(f"{path}:{error}") from error


def parse(text: str) -> ModelConfig:
    """The configuration in this text; raises ValueError if it is not a model configuration."""
    try:
        return text_format.Parse(text, _protobuf().ModelConfig())
    except text_format.ParseError as error:
        raise ValueError(str(error)) from error


def write(config: ModelConfig) -> str:
    """The configuration in protobuf's text format."""
    return str(text_format.MessageToString(config))


def parameters(config: ModelConfig) -> dict[str, str]:
    """The configuration's parameters by name."""
    return {key: value.string_value for key, value in config.parameters.items()}


def set_instances(config: ModelConfig, count: int, *, gpu: bool) -> None:
    """Replace the instance groups by `count` instances on the CPU, or on every GPU."""
    group = _protobuf().ModelInstanceGroup
    del config.instance_group[:]
    config.instance_group.add(count=count, kind=group.KIND_GPU if gpu else group.KIND_CPU)
