"""Makes `triton_models/lite_image` and `lite_text`'s weights, and checks them."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from tools.lite_model import (
    calibration,
    checks,
    efficientnet,
    image_graph,
    minilm,
    quantization,
    reference,
    semantics,
    sources,
    tokens,
    torch_file,
    wordnet,
)

REPOSITORY = Path(__file__).resolve().parents[2] / "triton_models"
BATCH = 64
CHECKED_TEXTS = ("tennis", "a red dog running over the beach at sunset", "", "naïve café " * 80)
CHECKED_IMAGES = 3


def encoder(model: onnx.ModelProto, tokenizer: Tokenizer) -> semantics.Encode:
    """Returns a function that embeds texts, texts of similar length together."""
    session = checks.session(model)

    def encode(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        vectors = np.empty((len(texts), minilm.WIDTH), np.float32)
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            ids, mask = tokens.encode(tokenizer, [texts[index] for index in batch])
            feeds = {"INPUT_IDS": ids, "ATTENTION_MASK": mask}
            vectors[batch] = session.run(None, feeds)[0]
        return vectors

    return encode


def make_text(found: sources.Sources) -> tuple[onnx.ModelProto, semantics.Semantics]:
    """Builds and checks the text tower, and on the way the table the image tower needs."""
    tensors = load_file(found.text)
    tokenizer = tokens.load(found.tokenizer)
    plain = minilm.build(tensors, int8=False, mean=None, whiten=None)
    nouns = wordnet.read_nouns(found.nouns)
    classes = sources.class_offsets(found.synsets)
    meaning = semantics.build(nouns, classes, encoder(plain, tokenizer))
    print(f"semantics: {len(classes)} classes, {meaning.nodes} synsets of {len(nouns)}")

    graph = {"mean": meaning.mean, "whiten": meaning.whiten}
    full = minilm.build(tensors, int8=False, **graph)
    small = minilm.build(tensors, int8=True, **graph)
    batch = tokens.encode(tokenizer, CHECKED_TEXTS)
    print(f"text FP32 against NumPy: {checks.text(full, tensors, meaning, batch):.1e}")
    rounded = reference.dequantized(tensors)
    print(f"text int8 against NumPy: {checks.text(small, rounded, meaning, batch):.1e}")
    words = [nouns[offset].words[0] for offset in classes]
    close = checks.cosines(encoder(small, tokenizer)(words), encoder(full, tokenizer)(words))
    checks.hold_text(close)
    print(f"text int8 against FP32: {close}")
    return small, meaning


def make_image(
    found: sources.Sources, table: npt.NDArray[np.float32], *, reduce_range: bool
) -> onnx.ModelProto:
    """Builds, quantizes and checks the image tower."""
    network = efficientnet.network(torch_file.read_weights(found.weights))
    classifier = image_graph.classifier(network)
    full = image_graph.join(classifier, table)
    pixels = np.stack(list(calibration.crops(found.photographs)))
    worst = checks.image(full, network, pixels[:: len(pixels) // CHECKED_IMAGES])
    print(f"image FP32 against NumPy: {worst:.1e}")
    quantized = quantization.quantize(classifier, found.photographs, reduce_range=reduce_range)
    small = image_graph.join(quantized, table)
    embeddings = [
        np.concatenate(
            [
                session.run(["EMBEDDING"], {"PIXELS": pixels[i : i + 32]})[0]
                for i in range(0, len(pixels), 32)
            ]
        )
        for session in (checks.session(small), checks.session(full))
    ]
    close = checks.cosines(*embeddings)
    checks.hold_image(close)
    print(f"image int8 against FP32: {close}")
    return small


def put(path: Path, content: bytes) -> int:
    """Writes a file by replacing it; returns its size.

    Served repositories hold hard links to these files: writing into one would change the
    model under a running server.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_bytes(content)
    fresh.replace(path)
    return len(content)


def main() -> None:
    """Makes both halves; writes nothing unless every check holds."""
    parser = argparse.ArgumentParser(prog="tools.lite_model", description=__doc__)
    parser.add_argument("--nouns", type=Path, required=True, help="WordNet 3.0's data.noun")
    parser.add_argument("--output", type=Path, default=REPOSITORY, help="model repository")
    parser.add_argument("--full-range", action="store_true", help="8-bit image weights")
    arguments = parser.parse_args()

    found = sources.find(arguments.nouns)
    text, meaning = make_text(found)
    image = make_image(found, meaning.table, reduce_range=not arguments.full_range)
    for name, model in (("lite_image", image), ("lite_text", text)):
        size = put(arguments.output / name / "1" / "model.onnx", model.SerializeToString())
        print(f"{name}: {size / 1e6:.1f} MB")
    put(arguments.output / "lite_text" / "1" / "tokenizer.json", found.tokenizer.read_bytes())


if __name__ == "__main__":
    main()
