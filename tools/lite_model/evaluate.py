"""Measures a model's retrieval: does a picture's caption find it among all the others?

Run as ``python -m tools.lite_model.evaluate FOLDER``. Below FOLDER, each PNG has beside it a
`.txt` whose first line is its caption, as in Tux Paint's stamps.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

from tools.lite_model import tokens
from tools.lite_model.image_graph import SIDE

REPOSITORY = Path(__file__).resolve().parents[2] / "triton_models"
BATCH = 32
Floats = npt.NDArray[np.float32]


def captioned(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yields pictures that have a caption."""
    for image in sorted(folder.rglob("*.png")):
        caption = image.with_suffix(".txt")
        if caption.exists():
            yield image, caption.read_text(encoding="utf-8").split("\n", 1)[0].strip()


def pixels(image: Path) -> npt.NDArray[np.uint8]:
    """Returns a picture on white, stretched, as the model takes it."""
    with Image.open(image) as opened:
        layered = opened.convert("RGBA")
    paper = Image.new("RGBA", layered.size, "white")
    paper.alpha_composite(layered)
    return np.asarray(paper.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _batches(items: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def embed(repository: Path, images: list[Path], captions: list[str]) -> tuple[Floats, Floats]:
    """Returns the embeddings of pictures and captions, each [N, 384]."""
    image, text = (
        onnxruntime.InferenceSession(str(repository / name / "1" / "model.onnx"))
        for name in ("lite_image", "lite_text")
    )
    tokenizer = tokens.load(repository / "lite_text" / "1" / "tokenizer.json")
    seen = [
        image.run(["EMBEDDING"], {"PIXELS": np.stack([pixels(each) for each in batch])})[0]
        for batch in _batches(images)
    ]
    read = []
    for batch in _batches(captions):
        ids, mask = tokens.encode(tokenizer, batch)
        read.append(text.run(None, {"INPUT_IDS": ids, "ATTENTION_MASK": mask})[0])
    return np.concatenate(seen), np.concatenate(read)


def ranks(images: Floats, texts: Floats, captions: list[str]) -> npt.NDArray[np.int64]:
    """Returns for each caption the rank, from 1, of the best picture that bears it."""
    scores = texts @ images.T
    names = np.array(captions)
    best = [row[names == name].max() for row, name in zip(scores, captions, strict=True)]
    return np.asarray(1 + (scores > np.array(best)[:, None]).sum(axis=1))


def main() -> None:
    """Prints recall at 1, 5 and 10, and the median rank."""
    parser = argparse.ArgumentParser(prog="tools.lite_model.evaluate", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repository", type=Path, default=REPOSITORY)
    arguments = parser.parse_args()
    images, captions = map(list, zip(*captioned(arguments.folder), strict=True))
    found = ranks(*embed(arguments.repository, images, captions), captions)
    recall = "  ".join(f"R@{k} {np.mean(found <= k):.3f}" for k in (1, 5, 10))
    print(f"{len(found)} pictures: {recall}  median rank {np.median(found):.0f}")


if __name__ == "__main__":
    main()
