"""What is rendered for Triton, and what counts as another version of a model."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from adapters.embedder.spec import ModelSpec
from models import repository as model_repository
from models import triton_config

REPOSITORY = Path(__file__).parents[3] / "triton_models"


def render(target: Path, source: Path = REPOSITORY, **changes: Any) -> None:
    settings: dict[str, Any] = {
        "python_env": Path("/venv"),
        "image_instances": 2,
        "text_instances": 1,
        "threads": 3,
        "provider": "cpu",
    }
    model_repository.render(source, target, **{**settings, **changes})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the repository with small weights."""
    copy = tmp_path / "source"
    shutil.copytree(REPOSITORY, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for weights in copy.glob("*/1/model.onnx"):
        weights.write_bytes(b"weights")
    return copy


def parameters(repository: Path, name: str) -> dict[str, str]:
    return triton_config.parameters(triton_config.read(repository / name / "config.pbtxt"))


@pytest.mark.slow
def test_the_bundled_model_states_its_contract() -> None:
    spec = model_repository.read_model_spec(REPOSITORY, "lite")
    assert (spec.name, spec.width, spec.height, spec.dimension) == ("lite", 260, 260, 384)
    assert (spec.resize_mode, spec.interpolation, spec.background) == (
        "stretch",
        "bicubic",
        "white",
    )
    assert spec.min_score == pytest.approx(0.20)
    assert spec.version == model_repository.version(REPOSITORY, "lite")


def test_the_checked_in_configuration_names_no_environment() -> None:
    for path in REPOSITORY.glob("*/config.pbtxt"):
        assert model_repository.ENVIRONMENT not in path.read_text(encoding="utf-8")


def test_settings_are_filled_in(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "target"
    render(target, source)
    version = model_repository.version(source, "lite")
    for name, count in (("lite_image", 2), ("lite_text", 1)):
        found = parameters(target, name)
        assert found["EXECUTION_ENV_PATH"] == "/venv"
        assert (found["threads"], found["provider"]) == ("3", "cpu")
        assert found["version"] == version
        group = triton_config.read(target / name / "config.pbtxt").instance_group
        assert [(each.count, each.kind) for each in group] == [(count, 2)]  # KIND_CPU
        assert (target / name / "1" / "model.onnx").read_bytes() == b"weights"
    assert ModelSpec.from_triton_parameters(parameters(target, "lite_image")).version == version


def test_a_gpu_gets_instances_on_the_gpu(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "target"
    render(target, source, provider="cuda", python_env=None)
    config = triton_config.read(target / "lite_image" / "config.pbtxt")
    assert [each.kind for each in config.instance_group] == [1]  # KIND_GPU
    assert "EXECUTION_ENV_PATH" not in parameters(target, "lite_image")


def test_rendering_again_follows_the_source(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "target"
    render(target, source)
    (target / "other_image").mkdir()
    stale = target / "lite_image" / "1" / "old.bin"
    stale.write_bytes(b"old")
    fresh = source / "lite_image" / "1" / "model.onnx"
    fresh.unlink()
    fresh.write_bytes(b"other weights")
    render(target, source, threads=1)
    assert (target / "lite_image" / "1" / "model.onnx").read_bytes() == b"other weights"
    assert parameters(target, "lite_image")["threads"] == "1"
    assert not stale.exists()
    assert (target / "other_image").exists()
    assert not list(target.rglob(".render-*"))


def test_settings_do_not_make_another_version(tmp_path: Path, source: Path) -> None:
    before = model_repository.version(source, "lite")
    render(tmp_path / "target", source, threads=1, image_instances=4)
    assert model_repository.version(tmp_path / "target", "lite") == before


@pytest.mark.parametrize("file", ["lite_image/1/model.onnx", "lite_text/1/tokenizer.json"])
def test_other_weights_make_another_version(source: Path, file: str) -> None:
    before = model_repository.version(source, "lite")
    (source / file).write_bytes(b"other")
    assert model_repository.version(source, "lite") != before


def test_other_preprocessing_makes_another_version(source: Path) -> None:
    before = model_repository.version(source, "lite")
    path = source / "lite_image" / "config.pbtxt"
    path.write_text(path.read_text().replace('"stretch"', '"shortest_edge_center_crop"'))
    assert model_repository.version(source, "lite") != before


@pytest.mark.parametrize(
    "changes", [{"image_instances": 0}, {"text_instances": 0}, {"threads": -1}, {"provider": "x"}]
)
def test_senseless_settings_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"instances|provider"):
        render(tmp_path, **changes)


def test_an_incomplete_model_is_refused(tmp_path: Path, source: Path) -> None:
    shutil.rmtree(source / "lite_text")
    with pytest.raises(ValueError, match="text models"):
        render(tmp_path / "target", source)


def test_a_faulty_configuration_is_named(source: Path) -> None:
    path = source / "lite_text" / "config.pbtxt"
    path.write_text("no such field: 1")
    with pytest.raises(ValueError, match=r"lite_text/config\.pbtxt"):
        model_repository.version(source, "lite")
