"""A served model against the reference: Hugging Face's processors and the graphs as exported."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from transformers import AutoTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from adapters.embedder.spec import ModelSpec
from adapters.embedder.triton import TritonEmbedder
from imaging.decode import decode
from stack.install.preparation import Cache
from stack.settings import StackSettings
from stack.triton_models import load, unload
from tests.conftest import ROOT, Servers, run_image_search
from tests.support import clip_model, tiny_model
from tests.support.hub_server import hub

SAMPLES = sorted((ROOT / "images").rglob("*.jpg"))[::6]
NAME = "ViT-B-32__openai"
SIDE = clip_model.SIDE
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


def all_images() -> Iterator[Image.Image]:
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
    for image in all_images():
        ours = decode(png(image), spec, max_pixels=10**8).pixels.astype(int)
        theirs = reference(image, do_rescale=False, do_normalize=False, return_tensors="np")
        wanted = theirs["pixel_values"][0].transpose(1, 2, 0).astype(int)
        worst = max(worst, int(np.abs(ours - wanted).max()))
    assert worst <= 1, f"off by {worst}/255"


@pytest.mark.timeout(300)
async def test_embeddings_are_those_of_the_reference(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CLIP ViT-B/32 with random weights: from a hub by its name, to Triton, to vectors."""
    layout = clip_model.write_layout(tmp_path / "layout", seed=5)
    monkeypatch.setenv("MODELS_DIR", str(tmp_path / "models"))
    for name, value in servers.environment.items():
        monkeypatch.setenv(name, value)
    with hub(layout) as server:
        here = {**servers.environment, "HF_ENDPOINT": server.url, "CACHE_DIR": str(tmp_path / "c")}
        done = run_image_search(
            {**here, "MODELS_DIR": str(tmp_path / "models")}, "models", "pull", NAME
        )
    # Its dimension, size and context are the catalogue's, so there is nothing to remark.
    assert "note:" not in done.stderr
    settings = StackSettings()
    await load(settings, NAME, Cache(settings.cache, print))
    embedder = TritonEmbedder(servers.triton_url)
    try:
        raw = onnxruntime.InferenceSession(str(layout / "visual" / "model.onnx"))
        spec = await embedder.spec(NAME)
        images = list(all_images())[:24]
        pixels = np.stack([decode(png(i), spec, max_pixels=10**8).pixels for i in images])
        served = await embedder.embed_images(NAME, pixels)
        prepared = processor(SIDE)(images, return_tensors="np")["pixel_values"].astype(np.float32)
        assert_same(served, raw.run(None, {"image": prepared})[0])

        tokenizer = AutoTokenizer.from_pretrained(layout / "textual")
        tokens = tokenizer(
            TEXTS,
            padding="max_length",
            truncation=True,
            max_length=clip_model.CONTEXT,
            return_tensors="np",
        )["input_ids"].astype(np.int32)
        raw = onnxruntime.InferenceSession(str(layout / "textual" / "model.onnx"))
        assert_same(await embedder.embed_texts(NAME, TEXTS), raw.run(None, {"text": tokens})[0])
    finally:
        await unload(settings, NAME)
        await embedder.close()


def assert_same(served: np.ndarray, raw: np.ndarray) -> None:
    """Cosine above 0.999 in each row, of rows that are not all alike anyway."""
    wanted = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    assert (wanted @ wanted.T).min() < 0.95
    assert np.sum(served * wanted, axis=1).min() > 0.999
