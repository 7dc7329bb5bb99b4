"""Texts to token ids, the way the text model's `model.py` does it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from tools.lite_model.minilm import MAX_TOKENS

Ids = npt.NDArray[np.int64]


def load(path: Path) -> Tokenizer:
    """Returns the tokenizer with truncation at 128 and padding to the longest of a batch."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding()  # [PAD] has id 0, which is the library's own
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Ids, Ids]:
    """Returns ids and mask, each [N, L] with L the longest text's tokens."""
    encodings = tokenizer.encode_batch(list(texts))
    ids = np.array([encoding.ids for encoding in encodings], np.int64)
    return ids, np.array([encoding.attention_mask for encoding in encodings], np.int64)
