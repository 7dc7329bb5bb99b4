"""The bundled model, as Triton runs it: fixed pictures keep their classes, queries their order."""

import importlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models import triton_config
from tests.support.triton_models import Response, Tensor, TritonError, give_backend

onnxruntime = importlib.import_module("onnxruntime")  # it has no types

REPOSITORY = Path(__file__).parents[3] / "triton_models"
IMAGE_FOLDER = Path(__file__).parents[1] / "data" / "lite"
# ImageNet's Egyptian cat, espresso and (it sees the launch tower) drilling platform: what the
# classifier says in FP32.
CLASSES = {"chelsea": 285, "coffee": 967, "rocket": 540}
QUERIES = {"chelsea": "a cat", "coffee": "a cup of coffee", "rocket": "a rocket launch"}


Request = dict[str, Tensor]


@pytest.fixture
def pb_utils(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module that the Python backend gives a model, and no trace of it afterwards."""
    give_backend(monkeypatch)
    monkeypatch.delitem(sys.modules, "onnx_session", raising=False)


def load(name: str, **overrides: str) -> Any:
    """Initializes a model's `model.py` as the Python backend would."""
    folder = REPOSITORY / name
    stated = triton_config.parameters(triton_config.read(folder / "config.pbtxt")) | overrides
    config = {"parameters": {key: {"string_value": value} for key, value in stated.items()}}
    spec = importlib.util.spec_from_file_location(f"{name}_model", folder / "1" / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(folder / "1"))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    model = module.TritonPythonModel()
    model.initialize(
        {
            "model_name": name,
            "model_instance_name": f"{name}_0",
            "model_instance_device_id": "0",
            "model_repository": str(folder),
            "model_version": "1",
            "model_config": json.dumps(config),
        }
    )
    return model


@pytest.fixture
def image_model(pb_utils: None) -> Iterator[Any]:
    model = load("lite_image", threads="1")
    yield model
    model.finalize()


@pytest.fixture
def text_model(pb_utils: None) -> Iterator[Any]:
    model = load("lite_text", threads="1")
    yield model
    model.finalize()


def pixels(name: str) -> Any:
    """A test picture, which has the model's size already, as [1, 260, 260, 3]."""
    with Image.open(IMAGE_FOLDER / f"{name}.jpg") as image:
        return np.asarray(image)[None]


def texts(*queries: str | bytes) -> Request:
    encoded = [query.encode() if isinstance(query, str) else query for query in queries]
    return {"TEXT": Tensor("TEXT", np.array(encoded, object)[:, None])}


def vectors(responses: list[Response]) -> Any:
    """The embeddings of all responses, none of which may be an error."""
    assert [response.error for response in responses] == [None] * len(responses)
    return np.concatenate([response.output_tensors[0].as_numpy() for response in responses])


def test_test_images_keep_their_classes() -> None:
    session = onnxruntime.InferenceSession(str(REPOSITORY / "lite_image/1/model.onnx"))
    batch = np.concatenate([pixels(name) for name in CLASSES])
    logits = session.run(["LOGITS"], {"PIXELS": batch})[0]
    assert logits.argmax(axis=1).tolist() == list(CLASSES.values())


@pytest.mark.slow
def test_queries_find_their_images(image_model: Any, text_model: Any) -> None:
    images = [{"PIXELS": Tensor("PIXELS", pixels(name))} for name in QUERIES]
    scores = (
        vectors(text_model.execute([texts(*QUERIES.values())]))
        @ vectors(image_model.execute(images)).T
    )
    assert scores.argmax(axis=1).tolist() == [0, 1, 2]
    assert np.diag(scores).min() > 0.20  # the model's own cut-off
    assert (scores - np.diag(np.diag(scores))).max() < 0.20


@pytest.mark.slow
def test_vectors_have_unit_length_and_the_stated_dimension(
    image_model: Any, text_model: Any
) -> None:
    image = vectors(image_model.execute([{"PIXELS": Tensor("PIXELS", pixels("coffee"))}]))
    text = vectors(text_model.execute([texts("tennis", "", "🎾", "x" * 100_000)]))
    for found, count in ((image, 1), (text, 4)):
        assert found.shape == (count, 384)
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)


def test_a_batch_does_not_change_a_text(text_model: Any) -> None:
    alone = vectors(text_model.execute([texts("tennis")]))
    queries = texts("a much longer text that makes the tokenizer pad", "tennis")
    together = vectors(text_model.execute([queries]))
    np.testing.assert_allclose(together[1:], alone, atol=1e-5)


@pytest.mark.slow
def test_requests_of_a_batch_get_their_own_answers(image_model: Any) -> None:
    both = np.concatenate([pixels("chelsea"), pixels("coffee")])
    requests = [{"PIXELS": Tensor("PIXELS", each)} for each in (pixels("rocket"), both)]
    found = [response.output_tensors[0].as_numpy() for response in image_model.execute(requests)]
    assert [len(each) for each in found] == [1, 2]
    alone = vectors(image_model.execute([{"PIXELS": Tensor("PIXELS", pixels("coffee"))}]))
    assert float((found[1][1:] * alone).sum()) > 0.999


def test_a_text_that_is_not_utf8_fails_alone(text_model: Any) -> None:
    before, bad, after = text_model.execute([texts("cat"), texts(b"\xff"), texts("dog")])
    assert "UTF-8" in str(bad.error)
    assert bad.error.args[1] == TritonError.INVALID_ARG
    assert vectors([before, after]).shape == (2, 384)


def test_a_failed_run_is_an_error_not_a_crash(image_model: Any) -> None:
    wrong = {"PIXELS": Tensor("PIXELS", np.zeros((1, 7, 7, 3), np.uint8))}
    (response,) = image_model.execute([wrong])
    assert "lite_image" in str(response.error)


def test_an_unknown_provider_is_refused(pb_utils: None) -> None:
    with pytest.raises(ValueError, match="provider"):
        load("lite_image", provider="abacus")


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_missing_processor_is_not_replaced_silently(pb_utils: None) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has the processor")
    with pytest.raises((RuntimeError, ValueError), match="CUDA"):
        load("lite_image", provider="cuda")


def test_shared_code_is_the_same_in_every_model() -> None:
    copies = {path.read_bytes() for path in REPOSITORY.glob("*/1/onnx_session.py")}
    assert len(copies) == 1
    for kind in ("image", "text"):
        assert len({path.read_bytes() for path in REPOSITORY.glob(f"*_{kind}/1/model.py")}) == 1


def test_the_model_is_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in REPOSITORY.rglob("*") if path.is_file()) < 40e6
