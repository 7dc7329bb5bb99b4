"""Token ids and pixels against Hugging Face's tokenizers and image processors."""

import html
import json
import re
import string
from io import BytesIO
from pathlib import Path
from typing import Any

import ftfy
import numpy as np
import onnxruntime
import pytest
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from adapters.embedder.spec import ModelSpec
from imaging.decode import decode
from models.gpu import render_gpu
from models.layout import InvalidLayout, read_layout
from models.store import ModelStore, Origin
from tests.support import tiny_model, tokenizers_like
from tests.support.triton_models import as_texts, give_backend, infer, render_cpu

SIDE = 224
TEXTS = [
    "a photo of a cat",
    "  Two   dogs,\tplaying!\r\n on the Beach ",
    "Été à Kyōto 京都 — Straße ÅNGSTRÖM",
    "e\u0301te\u0301 decomposed, ﬁ ligature, İstanbul",
    "🏯🐈‍⬛ 👩🏽‍🚀 emoji 🇨🇭",
    "кошка спит на диване 猫がソファで寝ている",
    "it's they're we'll I'd 25,000 3rd",
    "no-break\u00a0space zero\u200bwidth",
    "punctuation!? (all) {of} [it] <tags> #1 & 50% $5 ~ `x` \\ / | ^ @ + = * \" ' : ; . ,",
    "a man riding a bicycle through the rain at night " * 40,
    "x" * 500,
    "x",
    " \n\t ",
    "",
]
KINDS = {
    "clip": (tokenizers_like.clip, 77, "whitespace"),
    "clip short": (tokenizers_like.clip, 5, "whitespace"),
    "siglip2": (lambda: tokenizers_like.gemma("right"), 64, "canonicalize"),
    "siglip2 padded left": (lambda: tokenizers_like.gemma("left"), 64, "canonicalize"),
    "multilingual": (tokenizers_like.xlm_roberta, 77, "whitespace"),
}


def cleaned(text: str, clean: str) -> str:
    """As open_clip's HFTokenizer does before Hugging Face's: see `get_clean_fn` there."""
    mended = re.sub(r"\s+", " ", html.unescape(html.unescape(ftfy.fix_text(text)))).strip()
    if clean == "whitespace":
        return mended
    bare = mended.replace("_", " ").lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\s+", " ", bare).strip()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_token_ids_are_those_of_the_reference(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, length, clean = KINDS[kind]
    tokenizer = make()
    text = {
        "context_length": length,
        "hf_tokenizer_name": "given",
        "tokenizer_kwargs": {"clean": clean},
    }
    layout = tokenizers_like.write_layout(tmp_path / "layout", tokenizer, text)
    store = ModelStore(tmp_path / "store")
    store.add(layout, "kind", Origin(source="file:///x"))
    give_backend(monkeypatch)
    render_gpu(
        store.repository("kind"), tmp_path / "gpu", "kind", provider="cuda", precision="fp32"
    )
    found = infer(tmp_path / "gpu", "kind_text_tokenizer", {"TEXT": as_texts(TEXTS)})["TOKENS"]
    wanted = [
        tokenizer(
            cleaned(text, clean),
            padding="max_length",
            truncation=True,
            max_length=length,
        )["input_ids"]
        for text in TEXTS
    ]
    assert found.shape == (len(TEXTS), length)
    assert len({tuple(row) for row in wanted}) > len(TEXTS) / 2
    assert found.tolist() == wanted

    render_cpu(store.repository("kind"), tmp_path / "cpu", "kind")
    served = infer(tmp_path / "cpu", "kind_text", {"TEXT": as_texts(TEXTS)})["EMBEDDING"]
    raw = onnxruntime.InferenceSession(str(layout / "textual" / "model.onnx"))
    plain = raw.run(None, {"text": np.array(wanted, np.int32)})[0]
    lengths = np.linalg.norm(plain, axis=1)
    cosines = np.sum(served * plain, axis=1)[lengths > 0] / lengths[lengths > 0]
    assert cosines.min() > 0.999


def test_an_unsupported_padding_side_is_named(tmp_path: Path) -> None:
    layout = tiny_model.write_layout(tmp_path / "layout")
    path = layout / "textual" / "tokenizer_config.json"
    path.write_text(json.dumps({"pad_token": "[PAD]", "padding_side": "top"}))
    with pytest.raises(InvalidLayout, match="padding_side"):
        read_layout(layout)


def spec(mode: str) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "name": "reference",
            "version": "0123456789ab",
            "dimension": 512,
            "width": SIDE,
            "height": SIDE,
            "resize_mode": mode,
            "licence": "MIT",
        }
    )


def images() -> list[Image.Image]:
    """Smooth and noisy ones of many shapes: tiny, large, nearly square, panoramas, odd sizes."""
    random = np.random.default_rng(7)
    sizes = [(224, 224), (225, 224), (224, 225), (37, 23), (1, 1), (1, 300), (1200, 90), (91, 1000)]
    sizes += [(int(w), int(h)) for w, h in random.integers(50, 700, (24, 2))]
    found = []
    for index, (width, height) in enumerate(sizes):
        if index % 2:
            pixels = random.integers(0, 256, (height, width, 3), np.uint8)
        else:
            across = np.linspace(0, 255, width)[None, :, None]
            down = np.linspace(255, 0, height)[:, None, None]
            pixels = (across * [1, 0.5, 0] + down * [0, 0.5, 1]).astype(np.uint8)
        found.append(Image.fromarray(pixels))
    return found


def ours(image: Image.Image, mode: str) -> Any:
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return decode(buffer.getvalue(), spec(mode), max_pixels=10**8).pixels.astype(int)


def theirs(processor: Any, image: Image.Image) -> Any:
    raw = processor(image, do_rescale=False, do_normalize=False, return_tensors="np")
    return raw["pixel_values"][0].transpose(1, 2, 0).astype(int)


@pytest.mark.slow
def test_cropped_pixels_are_those_of_clip() -> None:
    sizes: dict[str, Any] = {
        "size": {"shortest_edge": SIDE},
        "crop_size": {"height": SIDE, "width": SIDE},
    }
    whole = CLIPImageProcessorPil(**sizes, do_center_crop=False)
    cropping = CLIPImageProcessorPil(**sizes)
    same_crop = 0
    for image in images():
        found, scaled = ours(image, "shortest_edge_center_crop"), theirs(whole, image)
        # torchvision's CenterCrop, which open_clip uses, rounds half to even ...
        top, left = (round((edge - SIDE) / 2) for edge in scaled.shape[:2])
        wanted = scaled[top : top + SIDE, left : left + SIDE]
        assert np.abs(found - wanted).max() <= 1, image.size
        # ... and CLIPImageProcessor down, which is the same for three sizes of four.
        if all(round((e - SIDE) / 2) == (e - SIDE) // 2 for e in scaled.shape[:2]):
            assert np.abs(found - theirs(cropping, image)).max() <= 1, image.size
            same_crop += 1
    assert same_crop >= 16


@pytest.mark.slow
def test_stretched_pixels_are_those_of_siglip() -> None:
    processor = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    for image in images():
        assert np.abs(ours(image, "stretch") - theirs(processor, image)).max() <= 1, image.size
