"""Small tokenizers of the kinds that CLIP models have, in Hugging Face's own classes.

Vocabularies are trained here on a few sentences; everything else is the reference's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer, XLMRobertaTokenizer
from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

from tests.support import tiny_model

SENTENCES = [
    "a photo of a cat on a red sofa",
    "two dogs playing on the beach, waves behind them",
    "it's the children's birthday; they're eating 25 cakes",
    "Ein Hund läuft über die Straße",
    "un château près de la rivière en été",
    "猫がソファで寝ている",
    "кошка спит на диване",
    "a man riding a bicycle through the rain at night",
] * 4


def _merges(trained: Tokenizer) -> list[tuple[str, str]]:
    found = json.loads(trained.to_str())["model"]["merges"]
    return [tuple(each) for each in found]


def clip() -> Any:
    """Byte-level BPE with `</w>` at the end of words: all bytes twice, then merges, as CLIP's."""
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(
            vocab_size=900,
            initial_alphabet=alphabet,
            end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )
    merges = _merges(trained)
    words = [*alphabet, *(f"{each}</w>" for each in alphabet), *(a + b for a, b in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges)  # type: ignore[arg-type]


def gemma(side: str) -> Any:
    """SigLIP 2's: BPE over `▁`, bytes for what is unknown, lower case, `<eos>` at the end."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(" ", "▁")]
    )
    trained.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=400, show_progress=False))
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    words = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *trained.get_vocab()]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    return Siglip2Tokenizer(
        vocab=vocabulary,
        merges=_merges(trained),  # type: ignore[arg-type]
        add_bos_token=False,
        add_eos_token=True,
        padding_side=side,
    )


def xlm_roberta() -> Any:
    """Unigram over `▁` with `<s>` and `</s>` around it."""
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    trained.train_from_iterator(
        SENTENCES, trainers.UnigramTrainer(vocab_size=200, unk_token="<unk>", show_progress=False)
    )
    pieces = [tuple(each) for each in json.loads(trained.to_str())["model"]["vocab"]]
    special = [(each, 0.0) for each in ("<s>", "<pad>", "</s>", "<unk>")]
    pieces = [*special, *(each for each in pieces if each[0] != "<unk>"), ("<mask>", 0.0)]
    return XLMRobertaTokenizer(vocab=pieces)


def write_layout(folder: Path, tokenizer: Any, text: dict[str, Any]) -> Path:
    """A layout whose tokenizer files are as the reference saves them; `text` is its text_cfg."""
    layout = tiny_model.write_layout(folder)
    for stale in (layout / "textual").glob("*.json"):
        stale.unlink()
    tokenizer.save_pretrained(layout / "textual")
    config = json.loads((layout / "config.json").read_text())
    config["text_cfg"] = text
    (layout / "config.json").write_text(json.dumps(config))
    graph = onnx.load(layout / "textual" / "model.onnx")
    graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value = text["context_length"]
    onnx.save(graph, layout / "textual" / "model.onnx")
    return layout
