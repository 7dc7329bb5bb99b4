"""Render a stored model for Triton's native ONNX Runtime backend on a GPU.

<model>_image           native: PIXELS -> EMBEDDING, normalization in the graph
<model>_text            ensemble of the two below: TEXT -> EMBEDDING
<model>_text_tokenizer  Python backend: TEXT -> TOKENS (and MASK)
<model>_text_encoder    native: token ids (and a mask) -> EMBEDDING

Names, tensors and parameters are the same as with the Python backend, so clients see no difference.
Field names: Triton's model_config.proto and the README of its onnxruntime_backend.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from onnx import ModelProto, TensorProto, ValueInfoProto

from models import graph as model_graph
from models import triton_config
from models.errors import ModelError
from models.repository import (
    CODE,
    CODE_OF,
    CONFIG,
    IMAGE_SUFFIX,
    TEXT_SUFFIX,
    files,
    link,
    put,
    version,
)

Provider = Literal["tensorrt", "cuda"]
Precision = Literal["fp16", "fp32"]
TOKENIZER_SUFFIX, ENCODER_SUFFIX = "_text_tokenizer", "_text_encoder"
TOKENIZER_FILE = "tokenizer.json"
ENGINE_CACHE = "/var/cache/tensorrt"
"""Server folder for TensorRT's engines; with a volume there they are not rebuilt at each start."""
_TOKENIZED = ("TOKENS", "MASK")
_TYPES: dict[int, str] = {
    TensorProto.UINT8: "TYPE_UINT8",
    TensorProto.INT32: "TYPE_INT32",
    TensorProto.INT64: "TYPE_INT64",
    TensorProto.FLOAT: "TYPE_FP32",
}


class NotNative(ModelError, ValueError):
    """The native backend cannot serve this model as requested; the message names an alternative."""


def render_gpu(
    source: Path,
    target: Path,
    model: str,
    *,
    provider: Provider,
    precision: Precision,
    instances: int = 1,
    engine_cache: str = ENGINE_CACHE,
) -> None:
    """Write the four Triton models for one stored model into `target`.

    Weights are hard links if the file system supports them. The model keeps the version of the
    source, so a collection that was filled with another rendering can be searched with this one.

    Args:
        source: the repository with the model's image and text encoders.
        target: created if missing; other models in it are not changed.
        model: its name.
        provider: `tensorrt` builds engines at the first start and falls back to CUDA for operators
            that it lacks.
        precision: `fp16` only with TensorRT, which decides for each operator.
        instances: instances of each encoder on each GPU.
        engine_cache: folder on the server for TensorRT's engines.

    Raises:
        NotNative: FP16 was requested with CUDA, or a graph takes only one row.
        InvalidGraph: a graph is not an encoder.
        ValueError: a configuration is faulty, or `instances` is below 1.
        OSError: a file cannot be read or written.
    """
    if instances < 1:
        raise ValueError("instances must be at least 1")
    if precision == "fp16" and provider == "cuda":
        raise NotNative("the CUDA provider computes in the graph's own precision: use fp32")
    graphs = {
        suffix: model_graph.load(source / f"{model}{suffix}" / "1" / "model.onnx")
        for suffix in (IMAGE_SUFFIX, TEXT_SUFFIX)
    }
    if single_row(source, model):
        raise NotNative(
            f"{model} was exported for one row at a time, which the native backend cannot batch: "
            "use --provider cuda, which then runs it in the Python backend"
        )
    stamp = version(source, model)
    shared = {"version": stamp, "provider": provider, "precision": precision}
    group = f"instance_group {{ count: {instances} kind: KIND_GPU }}"

    image = triton_config.read(source / f"{model}{IMAGE_SUFFIX}" / CONFIG)
    _native(
        source / f"{model}{IMAGE_SUFFIX}",
        target / f"{model}{IMAGE_SUFFIX}",
        graphs[IMAGE_SUFFIX],
        image.max_batch_size,
        # How long a partial batch waits for more images.
        f"{group} dynamic_batching {{ max_queue_delay_microseconds: 1000 }} "
        + _accelerator(provider, precision, engine_cache, f"{model}{IMAGE_SUFFIX}_{stamp}"),
        {**triton_config.parameters(image), **shared},
    )
    text = triton_config.read(source / f"{model}{TEXT_SUFFIX}" / CONFIG)
    stated = {**triton_config.parameters(text), **shared}
    _native(
        source / f"{model}{TEXT_SUFFIX}",
        target / f"{model}{ENCODER_SUFFIX}",
        graphs[TEXT_SUFFIX],
        text.max_batch_size,
        f"{group} dynamic_batching {{ }} "
        + _accelerator(provider, precision, engine_cache, f"{model}{ENCODER_SUFFIX}_{stamp}"),
        stated,
    )
    _tokenizer(source, target, model, graphs[TEXT_SUFFIX], text.max_batch_size, stated)
    _ensemble(target, model, graphs[TEXT_SUFFIX], text, stated)


def single_row(source: Path, model: str) -> bool:
    """Whether one of the model's graphs was exported for a batch of one; raises InvalidGraph."""
    return any(
        model_graph.batch_limit(model_graph.load(source / f"{model}{suffix}" / "1" / "model.onnx"))
        is not None
        for suffix in (IMAGE_SUFFIX, TEXT_SUFFIX)
    )


def _dims(value: ValueInfoProto) -> list[int]:
    """The dimensions of one row; -1 where the graph takes any size."""
    return [dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim[1:]]


def _type(value: ValueInfoProto) -> str:
    kind = value.type.tensor_type.elem_type
    if kind not in _TYPES:
        raise model_graph.InvalidGraph(f"{value.name} is of a type that is not supported: {kind}")
    return _TYPES[kind]


def _tensor(kind: str, name: str, value: ValueInfoProto) -> str:
    return f'{kind} {{ name: "{name}" data_type: {_type(value)} dims: {_dims(value)} }}'


def _embedding(graph: ModelProto) -> ValueInfoProto:
    outputs: list[ValueInfoProto] = list(graph.graph.output)
    found = next((each for each in outputs if each.name == model_graph.OUTPUT), None)
    if found is None or not _dims(found) or _dims(found)[0] < 1:
        raise model_graph.InvalidGraph(
            f"the graph has no output {model_graph.OUTPUT} of known size"
        )
    return found


def _accelerator(provider: Provider, precision: Precision, cache: str, prefix: str) -> str:
    if provider == "cuda":
        # TF32 would reduce the precision of FP32 on GPUs that support it.
        stated = {"use_tf32": "0"}
    else:
        stated = {
            "precision_mode": precision.upper(),
            # The sums in layer normalization exceed FP16's range in large transformers.
            "trt_layer_norm_fp32_fallback": "1",
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": cache,
            "trt_engine_cache_prefix": prefix,
        }
    lines = " ".join(f'parameters {{ key: "{k}" value: "{v}" }}' for k, v in stated.items())
    return (
        "optimization { execution_accelerators { "
        f'gpu_execution_accelerator {{ name: "{provider}" {lines} }} }} }}'
    )


def _warm_up(graph: ModelProto, batch: int, length: int) -> str:
    """Warm-up with one row and a full batch: TensorRT builds engines for the sizes it has seen.

    `length` replaces a size that the graph leaves open. Without warm-up, the first searches would
    wait for the build, and each larger batch would cause another one.
    """
    samples = []
    for size in sorted({1, batch}):
        fields = " ".join(
            f'inputs {{ key: "{value.name}" value {{ data_type: {_type(value)} '
            f"dims: {[length if dim < 0 else dim for dim in _dims(value)]} zero_data: true }} }}"
            for value in model_graph.inputs(graph)
        )
        samples.append(f'model_warmup {{ name: "rows_{size}" batch_size: {size} {fields} }}')
    return "\n".join(samples)


def _native(
    source: Path,
    target: Path,
    graph: ModelProto,
    batch: int,
    serving: str,
    parameters: dict[str, str],
) -> None:
    tensors = [_tensor("input", value.name, value) for value in model_graph.inputs(graph)]
    tensors.append(_tensor("output", model_graph.OUTPUT, _embedding(graph)))
    length = int(parameters.get("max_tokens", "1"))
    _write(
        target,
        f'platform: "onnxruntime_onnx" backend: "onnxruntime" max_batch_size: {batch}\n'
        + "\n".join([*tensors, serving, _warm_up(graph, batch, length)]),
        parameters,
        {
            path.name: path
            for path in (source / each for each in files(source))
            if path.suffix != ".py" and path.name != TOKENIZER_FILE
        },
    )


def _tokenizer(
    source: Path, target: Path, model: str, graph: ModelProto, batch: int, stated: dict[str, str]
) -> None:
    pairs = zip(_TOKENIZED, model_graph.inputs(graph), strict=False)
    tensors = [_tensor("output", name, value) for name, value in pairs]
    text = CODE / CODE_OF[TEXT_SUFFIX] / "1"
    _write(
        target / f"{model}{TOKENIZER_SUFFIX}",
        f'backend: "python" max_batch_size: {batch}\n'
        'input { name: "TEXT" data_type: TYPE_STRING dims: [ 1 ] }\n'
        + "\n".join(tensors)
        + "\ninstance_group { count: 1 kind: KIND_CPU } dynamic_batching { }",
        stated,
        {
            "model.py": CODE / "tokenizer" / "1" / "model.py",
            "tokenization.py": text / "tokenization.py",
            TOKENIZER_FILE: source / f"{model}{TEXT_SUFFIX}" / "1" / TOKENIZER_FILE,
        },
    )


def _ensemble(
    target: Path,
    model: str,
    graph: ModelProto,
    text: triton_config.ModelConfig,
    stated: dict[str, str],
) -> None:
    pairs = list(zip(_TOKENIZED, model_graph.inputs(graph), strict=False))
    made = " ".join(f'output_map {{ key: "{name}" value: "{name}" }}' for name, _ in pairs)
    taken = " ".join(
        f'input_map {{ key: "{value.name}" value: "{name}" }}' for name, value in pairs
    )
    _write(
        target / f"{model}{TEXT_SUFFIX}",
        f'platform: "ensemble" max_batch_size: {text.max_batch_size}\n'
        'input { name: "TEXT" data_type: TYPE_STRING dims: [ 1 ] }\n'
        + _tensor("output", model_graph.OUTPUT, _embedding(graph))
        + "\nensemble_scheduling {\n"
        f'step {{ model_name: "{model}{TOKENIZER_SUFFIX}" model_version: -1 '
        f'input_map {{ key: "TEXT" value: "TEXT" }} {made} }}\n'
        f'step {{ model_name: "{model}{ENCODER_SUFFIX}" model_version: -1 {taken} '
        f'output_map {{ key: "{model_graph.OUTPUT}" value: "{model_graph.OUTPUT}" }} }}\n}}',
        stated,
        {},
    )


def _write(target: Path, body: str, parameters: dict[str, str], held: dict[str, Path]) -> None:
    """Write one Triton model: its configuration, and links to the files of its version 1."""
    config = triton_config.parse(f'name: "{target.name}"\n{body}')
    for key, value in parameters.items():
        if key != "threads":  # applies to the CPU only
            config.parameters[key].string_value = value
    folder = target / "1"
    folder.mkdir(parents=True, exist_ok=True)  # an ensemble needs an empty one
    for stale in folder.iterdir():  # files of another rendering; the server's byte code may stay
        if stale.is_file() and stale.name not in held:
            stale.unlink()
    for name, path in held.items():
        link(path, folder / name)
    put(target / CONFIG, triton_config.write(config).encode())
