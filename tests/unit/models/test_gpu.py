"""The GPU rendering: configurations that fit graphs and each other, and the same embeddings."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

from adapters.embedder.spec import ModelSpec
from cli.__main__ import build
from models import repository as model_repository
from models import triton_config
from models.gpu import NotNative, render_gpu
from models.store import ModelStore, Origin
from tests.support import tiny_model
from tests.support.triton_models import (
    Tensor,
    TritonError,
    as_texts,
    give_backend,
    infer,
    python_model,
    render_cpu,
)

TEXTS = ["a photo of a cat", "", "  Two   dogs,\tplaying!  ", "京都 🏯 Été", "many words " * 99]
HALVES = ("image", "text", "text_tokenizer", "text_encoder")
TYPES = {TensorProto.UINT8: 2, TensorProto.INT32: 8, TensorProto.INT64: 9, TensorProto.FLOAT: 11}


@pytest.fixture(params=["tiny", "masked", "lite"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, Path]:
    """A model's name, its GPU rendering and its CPU rendering."""
    store = ModelStore(tmp_path / "store")
    name = request.param
    if name != "lite":
        layout = tiny_model.write_layout(tmp_path / "layout")
        if name == "masked":
            take_a_mask(layout)
        store.add(layout, name, Origin(source="file:///x", licence="MIT"))
    gpu, cpu = tmp_path / "gpu", tmp_path / "cpu"
    render_gpu(store.repository(name), gpu, name, provider="tensorrt", precision="fp16")
    render_cpu(store.repository(name), cpu, name)
    return name, gpu, cpu


def take_a_mask(layout: Path) -> None:
    """Give the text graph an attention mask, INT64, in place of its own; and an open length."""
    path = layout / "textual" / "model.onnx"
    model = onnx.load(path)
    nodes = [each for each in model.graph.node if each.output[0] not in ("padding", "real", "mask")]
    del model.graph.node[:]
    cast = helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT)
    model.graph.node.extend([cast, *nodes])
    del model.graph.input[:]
    for name in ("text", "attention_mask"):
        value = helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        model.graph.input.append(value)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def config(repository: Path, name: str) -> Any:
    return triton_config.read(repository / name / "config.pbtxt")


def described(tensors: Any) -> dict[str, tuple[int, list[int]]]:
    return {each.name: (each.data_type, list(each.dims)) for each in tensors}


@pytest.mark.slow
def test_all_four_can_be_parsed_and_have_the_parameters(both: tuple[str, Path, Path]) -> None:
    name, gpu, cpu = both
    assert sorted(path.name for path in gpu.iterdir()) == sorted(f"{name}_{h}" for h in HALVES)
    for half in HALVES:
        assert config(gpu, f"{name}_{half}").name == f"{name}_{half}"
        assert (gpu / f"{name}_{half}" / "1").is_dir()
    specs = [
        ModelSpec.from_triton_parameters(
            triton_config.parameters(config(repository, f"{name}_image"))
        )
        for repository in (gpu, cpu)
    ]
    assert specs[0] == specs[1]


@pytest.mark.slow
def test_clients_see_the_same_tensors(both: tuple[str, Path, Path]) -> None:
    name, gpu, cpu = both
    for half in ("image", "text"):
        ours, other = config(gpu, f"{name}_{half}"), config(cpu, f"{name}_{half}")
        assert described(ours.input) == described(other.input)
        assert described(ours.output) == described(other.output)
        assert ours.max_batch_size == other.max_batch_size


@pytest.mark.slow
def test_native_configurations_fit_the_graphs(both: tuple[str, Path, Path]) -> None:
    name, gpu, _ = both
    for half in ("image", "text_encoder"):
        found = config(gpu, f"{name}_{half}")
        assert (found.platform, found.backend) == ("onnxruntime_onnx", "onnxruntime")
        assert [group.kind for group in found.instance_group] == [1]  # KIND_GPU
        assert found.HasField("dynamic_batching")
        graph = onnx.load(gpu / f"{name}_{half}" / "1" / "model.onnx").graph
        real = {
            value.name: (
                TYPES[value.type.tensor_type.elem_type],
                [dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim],
            )
            for value in [*graph.input, *graph.output]
        }
        assert set(described(found.input)) == {value.name for value in graph.input}
        for tensor, (kind, dims) in {**described(found.input), **described(found.output)}.items():
            assert real[tensor] == (kind, [-1, *dims])
        assert [each.batch_size for each in found.model_warmup] == [1, found.max_batch_size]
        for sample in found.model_warmup:
            assert {k: v.data_type for k, v in sample.inputs.items()} == {
                key: kind for key, (kind, _) in described(found.input).items()
            }
            assert all(dim > 0 for value in sample.inputs.values() for dim in value.dims)


@pytest.mark.slow
def test_the_ensemble_is_consistent(both: tuple[str, Path, Path]) -> None:
    name, gpu, _ = both
    ensemble = config(gpu, f"{name}_text")
    assert ensemble.platform == "ensemble"
    assert not ensemble.instance_group
    known = described(ensemble.input)
    for step in ensemble.ensemble_scheduling.step:
        part = config(gpu, step.model_name)
        assert part.max_batch_size >= ensemble.max_batch_size
        assert set(step.input_map) == set(described(part.input))
        for tensor, source in step.input_map.items():
            (kind, dims), (made, shape) = described(part.input)[tensor], known[source]
            assert kind == made
            assert dims == shape
        for tensor, goal in step.output_map.items():
            known[goal] = described(part.output)[tensor]
    for tensor, wanted in described(ensemble.output).items():
        assert known[tensor] == wanted


@pytest.mark.slow
def test_token_ids_are_those_of_the_other_rendering(
    both: tuple[str, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, gpu, cpu = both
    give_backend(monkeypatch)
    found = infer(gpu, f"{name}_text_tokenizer", {"TEXT": as_texts(TEXTS)})
    encoder = python_model(cpu / f"{name}_text")
    encodings = encoder._tokenizer.encode_batch([encoder._clean(text) for text in TEXTS])
    assert found["TOKENS"].tolist() == [each.ids for each in encodings]
    if "MASK" in found:
        assert found["MASK"].tolist() == [each.attention_mask for each in encodings]
    outputs = {each.name: each for each in config(gpu, f"{name}_text_tokenizer").output}
    assert set(found) == set(outputs)
    assert ("MASK" in found) == (name != "tiny")
    for tensor, array in found.items():
        assert array.dtype == {8: np.int32, 9: np.int64}[outputs[tensor].data_type]


@pytest.mark.slow
def test_embeddings_are_those_of_the_other_rendering(
    both: tuple[str, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, gpu, cpu = both
    give_backend(monkeypatch)
    height, width, _ = config(gpu, f"{name}_image").input[0].dims
    pixels = np.random.default_rng(6).integers(0, 256, (3, height, width, 3), np.uint8)
    for half, feeds in (("image", {"PIXELS": pixels}), ("text", {"TEXT": as_texts(TEXTS)})):
        ours, other = (infer(each, f"{name}_{half}", feeds)["EMBEDDING"] for each in (gpu, cpu))
        assert ours.dtype == np.float32
        kept = np.linalg.norm(other, axis=1) > 0  # the tiny model has nothing to say on ""
        assert kept.sum() >= len(other) - 1
        assert np.sum(ours * other, axis=1)[kept].min() > 0.9999


@pytest.mark.slow
def test_a_text_that_is_not_utf8_fails_alone(
    both: tuple[str, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, gpu, _ = both
    give_backend(monkeypatch)
    bad = {"TEXT": Tensor("TEXT", np.array([[b"\xff"]], dtype=np.object_))}
    good = {"TEXT": Tensor("TEXT", as_texts(["cat", "dog"]))}
    responses = python_model(gpu / f"{name}_text_tokenizer").execute([good, bad, good])
    assert [each.error is None for each in responses] == [True, False, True]
    assert responses[1].error.args[1] == TritonError.INVALID_ARG
    assert len(responses[2].output_tensors[0].as_numpy()) == 2


@pytest.mark.slow
def test_accelerators(tmp_path: Path) -> None:
    def options(**given: Any) -> dict[str, dict[str, str]]:
        render_gpu(model_repository.CODE, tmp_path, "lite", **given)
        found = config(tmp_path, "lite_image").optimization.execution_accelerators
        return {each.name: dict(each.parameters) for each in found.gpu_execution_accelerator}

    half = options(provider="tensorrt", precision="fp16", engine_cache="/engines")["tensorrt"]
    assert (half["precision_mode"], half["trt_engine_cache_path"]) == ("FP16", "/engines")
    assert options(provider="tensorrt", precision="fp32")["tensorrt"]["precision_mode"] == "FP32"
    assert set(options(provider="cuda", precision="fp32")) == {"cuda"}
    with pytest.raises(NotNative, match="fp32"):
        options(provider="cuda", precision="fp16")


def single(layout: Path) -> Path:
    """A layout whose image graph takes one picture only."""
    path = layout / "visual" / "model.onnx"
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, path)
    return layout


@pytest.mark.slow
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELS_DIR", str(tmp_path / "models"))
    run = CliRunner().invoke

    def render(name: str, *options: str) -> Any:
        return run(build(), ["models", "render", name, "--to", str(tmp_path / "out"), *options])

    done = render("lite", "--target", "gpu")
    assert done.exit_code == 0, done.output
    assert "--load-model=lite_text" in done.output
    assert config(tmp_path / "out", "lite_text").platform == "ensemble"
    assert render("lite", "--target", "cpu").exit_code == 0
    assert config(tmp_path / "out", "lite_text").backend == "python"
    assert "no model" in str(render("absent", "--target", "gpu").exception)
    refused = render("lite", "--target", "gpu", "--provider", "cuda", "--precision", "fp16")
    assert "fp32" in str(refused.exception)

    layout = single(tiny_model.write_layout(tmp_path / "one"))
    assert run(build(), ["models", "add", "one", "--from", str(layout)]).exit_code == 0
    assert "--provider cuda" in str(render("one", "--target", "gpu").exception)
    assert render("one", "--target", "gpu", "--provider", "cuda").exit_code == 0
    served = config(tmp_path / "out", "one_image")
    assert (served.backend, served.parameters["provider"].string_value) == ("python", "cuda")
    assert json.dumps(sorted(p.name for p in (tmp_path / "out").iterdir())).count("one_") == 2
