"""Token ids and pixels against what the real open_clip answered: tools/open_clip_reference.py."""

import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image
from transformers import CLIPTokenizer

from imaging.decode import decode
from models import repository as model_repository
from models.gpu import render_gpu
from models.layout import InvalidLayout, read_layout
from models.store import ModelStore, Origin
from tests.support import open_clip_samples as samples
from tests.support import tiny_model, tokenizers_like
from tests.support.triton_models import as_texts, give_backend, infer, python_model, render_cpu

ANSWERS: dict[str, Any] = json.loads(samples.ANSWERS.read_text())
TOKENS: dict[str, list[int]] = ANSWERS["tokens"]
CONTEXT = 77
PRESETS = list(ANSWERS["presets"])


def clip_tokenizer() -> Any:
    """Hugging Face's CLIPTokenizer with CLIP's whole vocabulary, as exports hold it."""
    lines = lzma.decompress(samples.MERGES.read_bytes()).decode().splitlines()
    merges = [(first, second) for first, second in (line.split(" ") for line in lines)]
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    # CLIP numbers bytes that can be shown first; the others have characters from 256 on.
    alphabet = [chr(byte) for byte in shown] + [chr(256 + each) for each in range(256 - len(shown))]
    words = [*alphabet, *(f"{each}</w>" for each in alphabet), *(a + b for a, b in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    assert len(vocabulary) == len(words) == 49408
    return CLIPTokenizer(vocab=vocabulary, merges=merges)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tokenized(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[str]], Any]:
    """Texts to ids in both renderings of a layout that is as open_clip's models are exported."""
    folder = tmp_path_factory.mktemp("clip")
    layout = tokenizers_like.write_layout(
        folder / "layout", clip_tokenizer(), {"context_length": CONTEXT}
    )
    stated = json.loads((layout / "textual" / "tokenizer_config.json").read_text())
    assert stated["pad_token"] == "<|endoftext|>"
    store = ModelStore(folder / "store")
    store.add(layout, "clip", Origin(source="file:///x"))
    render_gpu(store.repository("clip"), folder / "gpu", "clip", provider="cuda", precision="fp32")
    render_cpu(store.repository("clip"), folder / "cpu", "clip")

    def ids(texts: list[str]) -> Any:
        found = infer(folder / "gpu", "clip_text_tokenizer", {"TEXT": as_texts(texts)})["TOKENS"]
        encoder = python_model(folder / "cpu" / "clip_text")
        encodings = encoder._tokenizer.encode_batch([encoder._clean(text) for text in texts])
        assert found.tolist() == [each.ids for each in encodings]
        return found

    return ids


def padded(ids: list[int]) -> list[int]:
    return ids + [0] * (CONTEXT - len(ids))


@pytest.mark.slow
def test_token_ids_are_those_of_open_clip(
    tokenized: Callable[[list[str]], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    give_backend(monkeypatch)
    assert list(TOKENS) == [*samples.TEXTS, *samples.SPECIAL_TEXTS]
    assert sum(len(TOKENS[text]) == CONTEXT for text in samples.TEXTS) >= 5
    for text, found in zip(samples.TEXTS, tokenized(samples.TEXTS).tolist(), strict=True):
        assert found == padded(TOKENS[text]), text


@pytest.mark.slow
def test_texts_that_spell_out_tokens_are_read_as_hugging_face_does(
    tokenized: Callable[[list[str]], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one difference: see docs/decisions/0039-open-clip-inputs.md."""
    give_backend(monkeypatch)
    theirs = clip_tokenizer()
    for text, found in zip(
        samples.SPECIAL_TEXTS, tokenized(samples.SPECIAL_TEXTS).tolist(), strict=True
    ):
        assert found != padded(TOKENS[text]), text
        assert found == padded(theirs(text.lower())["input_ids"]), text


@pytest.mark.slow
@pytest.mark.parametrize("clean", ["whitespace", "lower", "canonicalize"])
def test_texts_are_cleaned_as_open_clip_does(
    clean: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its HFTokenizer does before Hugging Face's tokenizer: for SigLIP and XLM-RoBERTa."""
    give_backend(monkeypatch)
    text = {"context_length": 20, "hf_tokenizer_name": "any", "tokenizer_kwargs": {"clean": clean}}
    layout = tokenizers_like.write_layout(tmp_path / "layout", tokenizers_like.clip(), text)
    store = ModelStore(tmp_path / "store")
    store.add(layout, "any", Origin(source="file:///x"))
    render_cpu(store.repository("any"), tmp_path / "cpu", "any")
    encoder = python_model(tmp_path / "cpu" / "any_text")
    assert list(ANSWERS["cleaned"]) == samples.TEXTS
    for sample, wanted in ANSWERS["cleaned"].items():
        assert encoder._clean(sample) == wanted[clean], sample


def test_only_open_clips_tokenizer_pads_with_the_first_token(tmp_path: Path) -> None:
    clip = tokenizers_like.clip()
    plain = tokenizers_like.write_layout(tmp_path / "plain", clip, {"context_length": 9})
    named = tokenizers_like.write_layout(
        tmp_path / "named", clip, {"context_length": 9, "hf_tokenizer_name": "x"}
    )
    other = tokenizers_like.write_layout(
        tmp_path / "other", tokenizers_like.xlm_roberta(), {"context_length": 9}
    )
    found = [(each.pad_token, each.clean) for each in map(read_layout, (plain, named, other))]
    assert found == [
        ("!", "simple_tokenizer"),
        ("<|endoftext|>", "whitespace"),
        ("<pad>", "as_given"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"strip_sep_token": True}},
        {"hf_tokenizer_name": "x", "tokenizer_mode": "clips"},
        {"tokenizer_kwargs": {"reduction_mask": "random"}},
        {"tokenizer_kwargs": {"clean": "canonicalize"}},
        {"tokenizer_kwargs": {"clean": "other"}},
    ],
)
def test_a_tokenizer_that_differs_from_open_clip_is_refused(
    text: dict[str, Any], tmp_path: Path
) -> None:
    layout = tokenizers_like.write_layout(
        tmp_path / "layout", tokenizers_like.clip(), {"context_length": 9, **text}
    )
    (reason,) = {"strip_sep_token", "tokenizer_mode", "reduction_mask", "clean"} & {
        *text,
        *text.get("tokenizer_kwargs", {}),
    }
    with pytest.raises(InvalidLayout, match=reason):
        read_layout(layout)


class Prepared:
    """Pictures as a model is given them: through the layout, the decoder and the served graph."""

    def __init__(self, folder: Path, preset: str) -> None:
        stated: dict[str, Any] = ANSWERS["presets"][preset]
        self.mean, self.std = (np.array(stated[key], np.float32) for key in ("mean", "std"))
        layout = tiny_model.write_layout(folder / "layout")
        (layout / "visual" / "preprocess_cfg.json").write_text(json.dumps(stated))
        config = json.loads((layout / "config.json").read_text()) | {"embed_dim": 3}
        (layout / "config.json").write_text(json.dumps(config))
        onnx.save(mean_colour(), layout / "visual" / "model.onnx")
        store = ModelStore(folder / "store")
        store.add(layout, "any", Origin(source="file:///x"))
        repository = store.repository("any")
        self._spec = model_repository.read_model_spec(repository, "any")
        served = onnx.load(repository / "any_image" / "1" / "model.onnx")
        shape: list[str | int | None] = ["n", 3, self._spec.height, self._spec.width]
        served.graph.output.append(helper.make_tensor_value_info("image", TensorProto.FLOAT, shape))
        self._session = onnxruntime.InferenceSession(served.SerializeToString())
        with io.BytesIO(lzma.decompress(samples.PIXELS.read_bytes())) as file:
            stored = np.load(file)
            self._theirs = {
                name.removeprefix(f"{preset}/"): stored[name].astype(np.float32)
                for name in stored.files
                if name.startswith(f"{preset}/")
            }

    def farthest(self, image: Image.Image, answer: str) -> float:
        """The largest difference to open_clip's answer, after normalization, in 1/255."""
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)
        pixels = decode(buffer.getvalue(), self._spec, max_pixels=10**8).pixels
        (normal,) = self._session.run(["image"], {"PIXELS": pixels[None]})
        ours = samples.kept(normal[0].transpose(1, 2, 0))
        theirs = (self._theirs[answer] / 255 - self.mean) / self.std
        assert ours.shape == theirs.shape
        return float((np.abs(ours - theirs) * self.std * 255).max())


def mean_colour() -> onnx.ModelProto:
    """An image encoder that takes any size."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["embedding"]),
        ],
        "encoder",
        [image],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3])],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name="tests"
    )


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_pixels_are_those_of_open_clip(preset: str, tmp_path: Path) -> None:
    prepared = Prepared(tmp_path, preset)
    for name, image in samples.opaque().items():
        assert prepared.farthest(image, name) <= 1.001, name
    # open_clip's transform resizes a picture of few colours to the nearest pixel, where its data
    # loader, and we, make RGB of it first. What lies under transparent pixels it shows.
    for name, image in (samples.indexed() | samples.transparent()).items():
        assert prepared.farthest(image, name) <= 1.001, name
        assert prepared.farthest(image, f"{name}, raw") > 8, name


def test_the_presets_are_of_several_kinds() -> None:
    stated = ANSWERS["presets"].values()
    assert {each["resize_mode"] for each in stated} == {"shortest", "squash"}
    assert {each["interpolation"] for each in stated} == {"bicubic", "bilinear"}
    assert {str(each["size"]) for each in stated} == {"224", "[192, 256]"}


def test_no_square_is_resized_bicubically_whatever_is_stated(tmp_path: Path) -> None:
    """As open_clip does where the shorter edge decides."""
    layout = tiny_model.write_layout(tmp_path / "layout")
    path = layout / "visual" / "preprocess_cfg.json"
    stated = json.loads(path.read_text()) | {"interpolation": "bilinear"}
    found = []
    for size, mode in ((64, "shortest"), ([48, 64], "shortest"), ([48, 64], "squash")):
        path.write_text(json.dumps(stated | {"size": size, "resize_mode": mode}))
        found.append(read_layout(layout).interpolation)
    assert found == ["bilinear", "bicubic", "bilinear"]
