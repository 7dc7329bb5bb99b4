"""Adding models of the supported layout, and what their graphs become."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from models import graph as model_graph
from models import repository as model_repository
from models import triton_config
from models.catalogue import InvalidCatalogue, read_catalogue
from models.layout import InvalidLayout, read_layout
from models.store import ModelStore, Origin, StoreError
from tests.support import tiny_model
from tests.support.triton_models import render_cpu

ORIGIN = Origin(source="file:///somewhere", licence="MIT")


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return tiny_model.write_layout(tmp_path / "layout")


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


def test_the_catalogue_can_be_read_and_has_the_promised_models() -> None:
    found = read_catalogue()
    assert {"lite", "ViT-B-32__openai", "ViT-L-14__openai", "ViT-B-16-SigLIP2__webli"} <= set(found)
    assert all(entry.bundled or entry.repository for entry in found.values())


def test_a_faulty_catalogue_names_the_entry(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.toml"
    path.write_text('[broken]\nlicence = "MIT"\n')
    with pytest.raises(InvalidCatalogue, match="broken"):
        read_catalogue(path)


def test_a_folder_becomes_a_model(layout: Path, store: ModelStore) -> None:
    spec = store.add(layout, "tiny", ORIGIN)
    assert (spec.name, spec.dimension, spec.width, spec.height) == ("tiny", 24, 64, 64)
    assert (spec.resize_mode, spec.interpolation) == ("shortest_edge_center_crop", "bicubic")
    assert spec.licence == "MIT"
    assert store.names() == ["lite", "tiny"]
    assert store.origin("tiny") == ORIGIN
    text = triton_config.read(store.repository("tiny") / "tiny_text" / "config.pbtxt")
    assert triton_config.parameters(text)["max_tokens"] == str(tiny_model.CONTEXT)


@pytest.mark.slow
def test_a_rendered_model_has_the_code(layout: Path, store: ModelStore, tmp_path: Path) -> None:
    store.add(layout, "tiny", ORIGIN)
    target = tmp_path / "served"
    for _ in range(2):
        render_cpu(store.repository("tiny"), target, "tiny")
    for half in ("tiny_image", "tiny_text"):
        assert (target / half / "1" / "model.py").exists()
        assert (target / half / "1" / "onnx_session.py").exists()
    spec = store.spec("tiny")
    assert model_repository.read_model_spec(target, "tiny").version == spec.version


def run(path: Path, feeds: dict[str, object]) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, feeds)[0]
    return found


@pytest.mark.slow
def test_pixels_are_normalized_in_the_graph(layout: Path, store: ModelStore) -> None:
    store.add(layout, "tiny", ORIGIN)
    pixels = np.random.default_rng(3).integers(0, 256, (3, 64, 64, 3), np.uint8)
    served = run(store.repository("tiny") / "tiny_image" / "1" / "model.onnx", {"PIXELS": pixels})
    planes = (pixels / 255.0 - np.array(tiny_model.MEAN)) / np.array(tiny_model.STD)
    raw = run(
        layout / "visual" / "model.onnx",
        {"image": planes.transpose(0, 3, 1, 2).astype(np.float32)},
    )
    expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    assert served.dtype == np.float32
    assert np.sum(served * expected, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert np.linalg.norm(served, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_texts_come_out_at_unit_length(layout: Path, store: ModelStore) -> None:
    store.add(layout, "tiny", ORIGIN)
    ids = np.zeros((2, tiny_model.CONTEXT), np.int32)
    ids[:, :3] = [[5, 6, 7], [8, 9, 10]]
    served = run(store.repository("tiny") / "tiny_text" / "1" / "model.onnx", {"text": ids})
    assert np.linalg.norm(served, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_external_weights_are_copied_with_the_graph(layout: Path, store: ModelStore) -> None:
    path = layout / "visual" / "model.onnx"
    model = onnx.load(path)
    path.unlink()
    onnx.save(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    store.add(layout, "tiny", ORIGIN)
    folder = store.repository("tiny") / "tiny_image" / "1"
    assert (folder / "model.onnx.data").exists()
    assert run(folder / "model.onnx", {"PIXELS": np.zeros((1, 64, 64, 3), np.uint8)}).shape == (
        1,
        24,
    )
    before = store.spec("tiny").version
    (folder / "model.onnx.data").write_bytes(b"other")
    assert store.spec("tiny").version != before


@pytest.mark.parametrize(
    ("file", "field", "value"),
    [
        ("visual/preprocess_cfg.json", "resize_mode", "longest"),
        ("visual/preprocess_cfg.json", "interpolation", "random"),
        ("visual/preprocess_cfg.json", "mean", [0.5]),
        ("visual/preprocess_cfg.json", "std", [0, 1, 1]),
        ("config.json", "embed_dim", "many"),
    ],
)
def test_an_unsupported_feature_is_named(
    layout: Path, file: str, field: str, value: object
) -> None:
    path = layout / file
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(InvalidLayout, match=field):
        read_layout(layout)


def test_a_missing_file_is_named(layout: Path, store: ModelStore) -> None:
    (layout / "textual" / "tokenizer.json").unlink()
    with pytest.raises(InvalidLayout, match=r"tokenizer\.json"):
        store.add(layout, "tiny", ORIGIN)
    assert store.names() == ["lite"]


def test_a_file_that_is_not_a_model_leaves_no_files(layout: Path, store: ModelStore) -> None:
    (layout / "visual" / "model.onnx").write_bytes(b"no model at all")
    with pytest.raises(model_graph.InvalidGraph):
        store.add(layout, "tiny", ORIGIN)
    assert store.names() == ["lite"]


@pytest.mark.parametrize("name", ["", "../x", "a/b", "lite", ".hidden"])
def test_invalid_names_are_refused(layout: Path, store: ModelStore, name: str) -> None:
    with pytest.raises(StoreError):
        store.add(layout, name, ORIGIN)


def test_removing(layout: Path, store: ModelStore) -> None:
    store.add(layout, "tiny", ORIGIN)
    store.remove("tiny")
    assert store.names() == ["lite"]
    with pytest.raises(StoreError, match="no model"):
        store.remove("tiny")
    with pytest.raises(StoreError, match="bundled"):
        store.remove("lite")


def test_siglip_texts_are_canonicalized(layout: Path) -> None:
    path = layout / "config.json"
    config = json.loads(path.read_text())
    config["text_cfg"]["tokenizer_kwargs"] = {"clean": "canonicalize"}
    path.write_text(json.dumps(config))
    assert read_layout(layout).clean == "canonicalize"


def test_the_padding_token_can_stand_elsewhere(layout: Path) -> None:
    shutil.copy(layout / "textual" / "tokenizer_config.json", layout / "kept.json")
    (layout / "textual" / "tokenizer_config.json").unlink()
    assert read_layout(layout).pad_token == "[PAD]"
