"""A served model against the reference: Hugging Face's processors and the graphs as exported."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from transformers import PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from adapters.model_spec import ModelSpec
from adapters.model_store import ModelStore, Origin
from adapters.picture import decode
from adapters.triton_clip import TritonEmbedder
from adapters.triton_control import TritonControl
from stack.models import load, store, unload
from stack.preparation import Cache
from stack.settings import StackSettings
from tests import tiny_model
from tests.conftest import ROOT, Servers

SAMPLES = sorted((ROOT / "images").rglob("*.jpg"))[::6]
SIDE = 224
TEXTS = [
    "a photo of a cat",
    "  Two   dogs,\tplaying!  ",
    "Été à Kyōto 京都 🏯",
    "x",
    "it's the 3rd of May's 25,000 words " * 10,
    "",
]


def png(image: Image.Image) -> bytes:
    """Lossless, so that both sides see the same pixels."""
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def pictures() -> Iterator[Image.Image]:
    """Photographs and noise, upright and lying, of sizes whose crop needs no rounding."""
    for path in SAMPLES:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        for size in ((448, 336), (300, 300), (224, 512), (1120, 448)):
            yield image.resize(size)
    noise = np.random.default_rng(4).integers(0, 256, (336, 448, 3), np.uint8)
    yield Image.fromarray(noise)


def processor(side: int) -> CLIPImageProcessorPil:
    """CLIP's, at this size."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=tiny_model.MEAN,
        image_std=tiny_model.STD,
    )


def test_pixels_are_those_of_the_reference() -> None:
    spec = ModelSpec(
        name="clip",
        version="0123456789ab",
        dimension=512,
        width=SIDE,
        height=SIDE,
        resize_mode="shortest_edge_center_crop",
        licence="MIT",
    )
    reference, worst = processor(SIDE), 0
    for image in pictures():
        ours = decode(png(image), spec, max_pixels=10**8).pixels.astype(int)
        theirs = reference(image, do_rescale=False, do_normalize=False, return_tensors="np")
        wanted = theirs["pixel_values"][0].transpose(1, 2, 0).astype(int)
        worst = max(worst, int(np.abs(ours - wanted).max()))
    assert worst <= 1, f"off by {worst}/255"


@pytest.mark.timeout(300)
async def test_embeddings_are_those_of_the_reference(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = tiny_model.write_layout(tmp_path / "layout", seed=5)
    monkeypatch.setenv("MODELS_DIR", str(tmp_path / "models"))
    for name, value in servers.environment.items():
        monkeypatch.setenv(name, value)
    settings = StackSettings()
    assert isinstance(store(settings), ModelStore)
    store(settings).add(layout, "exact", Origin(source="file:///x"))
    await load(settings, "exact", Cache(settings.cache, print))
    embedder, control = TritonEmbedder(servers.triton_url), TritonControl(servers.triton_url)
    try:
        spec = await embedder.spec("exact")
        raw = onnxruntime.InferenceSession(str(layout / "visual" / "model.onnx"))
        reference = processor(tiny_model.SIDE)
        images = list(pictures())[:24]
        pixels = np.stack([decode(png(i), spec, max_pixels=10**8).pixels for i in images])
        served = await embedder.embed_images("exact", pixels)
        prepared = reference(images, return_tensors="np")["pixel_values"].astype(np.float32)
        assert_same(served, raw.run(None, {"image": prepared})[0])

        tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_file=str(layout / "textual" / "tokenizer.json"), pad_token="[PAD]"
        )
        tokens = tokenizer(
            [" ".join(text.split()) for text in TEXTS],
            padding="max_length",
            truncation=True,
            max_length=tiny_model.CONTEXT,
            return_tensors="np",
        )["input_ids"].astype(np.int32)
        raw = onnxruntime.InferenceSession(str(layout / "textual" / "model.onnx"))
        # The mean over random token vectors: one token that differs shows as a cosine below 0.999.
        assert_same(await embedder.embed_texts("exact", TEXTS), raw.run(None, {"text": tokens})[0])
    finally:
        await unload(settings, "exact")
        await embedder.close()
        await control.close()


def assert_same(served: np.ndarray, raw: np.ndarray) -> None:
    """Cosine above 0.999 in each row."""
    wanted = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    assert np.sum(served * wanted, axis=1).min() > 0.999
