"""Asks the real open_clip for its tokens and pixels, and keeps the answers for the tests.

Run from the repository's root in an environment of its own, as PyTorch is large:

    python3.11 -m venv reference-venv
    reference-venv/bin/pip install open_clip_torch==3.3.0
    reference-venv/bin/python -m tools.open_clip_reference

It writes tests/unit/data/open_clip; the README there says what is in it and under which licence.
No weights are needed. The same versions give the same files byte for byte.
"""

import gzip
import io
import json
import lzma
from importlib.metadata import version
from typing import Any

import numpy as np
import open_clip
from open_clip.pretrained import get_pretrained_cfg
from open_clip.tokenizer import SimpleTokenizer, default_bpe, get_clean_fn
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from PIL import Image

from tests.support import open_clip_samples as samples

PACKAGES = ("open_clip_torch", "torch", "torchvision", "pillow", "ftfy", "regex")
CLEANINGS = ("whitespace", "lower", "canonicalize")
PRESETS = {
    "clip": ("ViT-B-32", "openai", None),
    "siglip2": ("ViT-B-16-SigLIP2", "webli", None),
    "bilinear": ("MobileCLIP-B", "datacompdr", None),
    # No model with weights is like this; open_clip has rules of its own for it.
    "no square": ("MobileCLIP-B", "datacompdr", (192, 256)),
}
"""Name -> open_clip's model and weights, and the size (height, width) if not the model's own."""


def main() -> None:
    """Writes the answers."""
    tokenizer = SimpleTokenizer()
    presets = {name: preset(*arguments) for name, arguments in PRESETS.items()}
    answers = {
        "made_with": {name: version(name) for name in PACKAGES},
        "presets": {name: vars(stated) for name, stated in presets.items()},
        "tokens": {
            text: tokens(tokenizer, text) for text in [*samples.TEXTS, *samples.SPECIAL_TEXTS]
        },
        "cleaned": {
            text: {name: get_clean_fn(name)(text) for name in CLEANINGS} for text in samples.TEXTS
        },
    }
    pixels = {
        f"{name}/{sample}": prepared(stated, image)
        for name, stated in presets.items()
        for sample, image in samples.reference_images().items()
    }
    together = io.BytesIO()
    np.savez(together, **pixels)
    samples.DATA.mkdir(parents=True, exist_ok=True)
    samples.ANSWERS.write_text(lines(answers), encoding="ascii")
    samples.PIXELS.write_bytes(packed(together.getvalue()))
    samples.MERGES.write_bytes(packed(merges()))
    for path in sorted(samples.DATA.iterdir()):
        print(f"{path.stat().st_size:8} {path.name}")


def lines(answers: dict[str, dict[str, Any]]) -> str:
    """Returns JSON with an answer a line, so that a change of one is seen as such."""
    sections = []
    for name, section in answers.items():
        each = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in section.items())
        sections.append(f'"{name}": {{\n' + ",\n".join(each) + "\n}")
    return "{\n" + ",\n".join(sections) + "\n}\n"


def packed(content: bytes) -> bytes:
    """Returns the content as an .xz file."""
    return lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)


def preset(model: str, weights: str, size: tuple[int, int] | None) -> PreprocessCfg:
    """Returns how open_clip prepares pictures for a model, as its `create_model` works it out."""
    config = open_clip.get_model_config(model)
    own = {"size": size or config["vision_cfg"]["image_size"]}
    stated = merge_preprocess_dict(own, get_pretrained_cfg(model, weights))
    return PreprocessCfg(**merge_preprocess_dict(PreprocessCfg(), stated))


def tokens(tokenizer: SimpleTokenizer, text: str) -> list[int]:
    """Returns the numbers up to the end's; nothing but zeros come after it."""
    row = tokenizer([text])[0].tolist()
    end = len(row) - row[::-1].index(tokenizer.eot_token_id)
    assert not any(row[end:])
    return row[:end]


def prepared(stated: PreprocessCfg, image: Image.Image) -> Any:
    """Returns some of the pixels; rounding them to integers undoes the normalization exactly."""
    normal = image_transform_v2(stated, is_train=False)(image).numpy().transpose(1, 2, 0)
    mean, std = (np.array(each, np.float32) for each in (stated.mean, stated.std))
    pixels = np.rint((normal * std + mean) * 255).astype(np.uint8)
    again = (pixels.astype(np.float32) / 255 - mean) / std
    assert np.abs(again - normal).max() < 1e-5
    return samples.kept(pixels)


def merges() -> bytes:
    """Returns CLIP's merges, one a line: those of the vocabulary's file that open_clip reads."""
    with gzip.open(default_bpe()) as file:
        lines = file.read().split(b"\n")
    return b"\n".join(lines[1 : 49152 - 256 - 2 + 1]) + b"\n"


if __name__ == "__main__":
    main()
