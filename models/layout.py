"""Read a model folder in immich-app's ONNX layout.

config.json                    open_clip's: embed_dim, vision_cfg, text_cfg
visual/model.onnx              float pixels [N, 3, H, W] -> embedding
visual/preprocess_cfg.json     open_clip's: size, mean, std, interpolation, resize_mode
textual/model.onnx             token ids [N, L] (and an attention mask) -> embedding
textual/tokenizer.json         Hugging Face tokenizers
textual/tokenizer_config.json  names the padding token

Tokenization follows open_clip, which has three cases:
- `text_cfg.hf_tokenizer_name` is set: texts are cleaned, then Hugging Face's tokenizer is used.
- It is not set, and the tokenizer is CLIP's: open_clip uses its own `SimpleTokenizer`, which pads
  with token 0, not with the token in tokenizer_config.json. This matters to models without a causal
  mask.
- It is not set, and the tokenizer is another one (M-CLIP's exports): it is used unchanged.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import ModelError

IMAGE_MODEL = Path("visual") / "model.onnx"
TEXT_MODEL = Path("textual") / "model.onnx"
TOKENIZER = Path("textual") / "tokenizer.json"
PREPROCESSING = Path("visual") / "preprocess_cfg.json"
TOKENIZER_CONFIG = Path("textual") / "tokenizer_config.json"
SPECIAL_TOKENS = Path("textual") / "special_tokens_map.json"
CONFIG = Path("config.json")
REQUIRED = (CONFIG, IMAGE_MODEL, PREPROCESSING, TEXT_MODEL, TOKENIZER)

RESIZE_MODES = {"shortest": "shortest_edge_center_crop", "squash": "stretch"}
INTERPOLATIONS = ("nearest", "bilinear", "bicubic")
CLEANINGS = ("whitespace", "lower", "canonicalize")
CONTEXT_LENGTH = 77  # open_clip's default
SIMPLE_TOKENIZER = "simple_tokenizer"
PADDING_TOKENS = ("<pad>", "[PAD]", "<|endoftext|>", "</s>")
"""Tried in this order if no file names the padding token."""


class InvalidLayout(ModelError, ValueError):
    """The folder is not a model of the supported layout; the message names file and field."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The contents of the folder's files. `mean` and `std` are per RGB channel, for pixel values
    from 0 to 1."""

    folder: Path
    dimension: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    resize_mode: str
    """As in `ModelSpec`: stretch or shortest_edge_center_crop."""
    context_length: int
    pad_token: str
    padding_side: str
    clean: str
    """As in triton_models/lite_text/1/tokenization.py."""


def read_layout(folder: Path) -> Layout:
    """Read a folder.

    Raises:
        InvalidLayout: a file is missing, or contains something that is not supported.
    """
    missing = [str(path) for path in REQUIRED if not (folder / path).is_file()]
    if missing:
        raise InvalidLayout(f"{folder} lacks {', '.join(missing)}")
    config = _json(folder / CONFIG)
    preprocessing = _json(folder / PREPROCESSING)
    text = config.get("text_cfg") or {}
    height, width = _size(preprocessing, config)
    resize_mode = preprocessing.get("resize_mode", "shortest")
    if resize_mode not in RESIZE_MODES:
        raise InvalidLayout(
            f"{PREPROCESSING}: resize_mode is {resize_mode!r}; supported: {', '.join(RESIZE_MODES)}"
        )
    interpolation = preprocessing.get("interpolation", "bicubic")
    if interpolation not in INTERPOLATIONS:
        raise InvalidLayout(
            f"{PREPROCESSING}: interpolation is {interpolation!r}; "
            f"supported: {', '.join(INTERPOLATIONS)}"
        )
    if resize_mode == "shortest" and height != width:
        interpolation = "bicubic"  # open_clip ignores the setting if the target is not square
    clean = _clean(folder, text)
    return Layout(
        folder=folder,
        dimension=_positive(config.get("embed_dim"), CONFIG, "embed_dim"),
        height=height,
        width=width,
        mean=_triple(preprocessing, "mean"),
        std=_triple(preprocessing, "std"),
        interpolation=interpolation,
        resize_mode=RESIZE_MODES[resize_mode],
        context_length=_positive(
            text.get("context_length", CONTEXT_LENGTH), CONFIG, "text_cfg.context_length"
        ),
        pad_token=_first_token(folder) if clean == SIMPLE_TOKENIZER else _pad_token(folder),
        padding_side=_padding_side(folder),
        clean=clean,
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidLayout(f"{path.name}: {error}") from error
    if not isinstance(found, dict):
        raise InvalidLayout(f"{path.name}: not a JSON object")
    return found


def _positive(value: object, file: Path, field: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidLayout(f"{file}: {field} is {value!r}, not a positive number")
    return value


def _size(preprocessing: dict[str, Any], config: dict[str, Any]) -> tuple[int, int]:
    size = preprocessing.get("size") or (config.get("vision_cfg") or {}).get("image_size")
    pair = size if isinstance(size, list) else [size, size]
    if len(pair) != 2:
        raise InvalidLayout(f"{PREPROCESSING}: size is {size!r}")
    return _positive(pair[0], PREPROCESSING, "size"), _positive(pair[1], PREPROCESSING, "size")


def _triple(preprocessing: dict[str, Any], field: str) -> tuple[float, ...]:
    value = preprocessing.get(field)
    if (
        not isinstance(value, list)
        or len(value) != 3
        or not all(isinstance(number, int | float) for number in value)
        or (field == "std" and min(value) <= 0)
    ):
        raise InvalidLayout(f"{PREPROCESSING}: {field} is {value!r}, not three numbers")
    return tuple(float(number) for number in value)


def _pad_token(folder: Path) -> str:
    for path in (TOKENIZER_CONFIG, SPECIAL_TOKENS):
        if (folder / path).is_file():
            token = _json(folder / path).get("pad_token")
            if isinstance(token, dict):
                token = token.get("content")
            if isinstance(token, str) and token:
                return token
    tokenizer = _json(folder / TOKENIZER)
    padding = tokenizer.get("padding") or {}
    if isinstance(padding.get("pad_token"), str):
        return str(padding["pad_token"])
    added = {token.get("content") for token in tokenizer.get("added_tokens") or []}
    for token in PADDING_TOKENS:
        if token in added:
            return token
    raise InvalidLayout(f"{TOKENIZER_CONFIG}: pad_token is missing, and no default applies")


def _padding_side(folder: Path) -> str:
    path = folder / TOKENIZER_CONFIG
    side = _json(path).get("padding_side", "right") if path.is_file() else "right"
    if side not in ("left", "right"):
        raise InvalidLayout(f"{TOKENIZER_CONFIG}: padding_side is {side!r}; supported: left, right")
    return str(side)


def _clean(folder: Path, text: dict[str, Any]) -> str:
    stated = dict(text.get("tokenizer_kwargs") or {})
    clean = stated.pop("clean", None)
    unknown = [name for name, value in stated.items() if value]
    unknown += ["tokenizer_mode"] if text.get("tokenizer_mode") else []
    if unknown:
        raise InvalidLayout(f"{CONFIG}: text_cfg has {', '.join(unknown)}, which is not supported")
    if clean is not None and clean not in CLEANINGS:
        raise InvalidLayout(f"{CONFIG}: text_cfg.tokenizer_kwargs.clean is {clean!r}")
    if text.get("hf_tokenizer_name"):
        return str(clean or "whitespace")
    model = _tokenizer_model(folder)
    if model.get("type") != "BPE" or model.get("end_of_word_suffix") != "</w>":
        return str(clean or "as_given")
    if clean not in (None, "lower"):
        raise InvalidLayout(f"{CONFIG}: text_cfg.tokenizer_kwargs.clean is {clean!r}, not lower")
    return SIMPLE_TOKENIZER


def _tokenizer_model(folder: Path) -> dict[str, Any]:
    return dict(_json(folder / TOKENIZER).get("model") or {})


def _first_token(folder: Path) -> str:
    for token, number in (_tokenizer_model(folder).get("vocab") or {}).items():
        if number == 0:
            return str(token)
    raise InvalidLayout(f"{TOKENIZER}: no token has the id 0, with which open_clip pads")
