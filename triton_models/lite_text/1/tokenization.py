"""Texts to token ids: what the text encoder and the tokenizer before a native encoder share.

`stated` are the parameters of config.pbtxt as strings by name.
"""

import html
import string

import ftfy
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer


def load_tokenizer(stated, folder):
    """Returns the tokenizer of a folder, set up as the parameters say.

    Raises:
        ValueError: a parameter is missing, or does not fit the tokenizer.
    """
    missing = {"max_tokens", "padding", "pad_token"} - set(stated)
    if missing:
        raise ValueError(f"config.pbtxt lacks the parameters {sorted(missing)}")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if stated.get("clean") == SIMPLE:
        tokenizer.normalizer = None  # open_clip's has none: cleaning is all that is done
    pad_token, most = stated["pad_token"], int(stated["max_tokens"])
    pad_id = tokenizer.token_to_id(pad_token)
    if pad_id is None:
        raise ValueError(f"the tokenizer has no token {pad_token!r} to pad with")
    if stated["padding"] not in ("longest", "max_tokens"):
        raise ValueError(f"parameter padding is {stated['padding']!r}: longest or max_tokens")
    length = most if stated["padding"] == "max_tokens" else None
    tokenizer.enable_truncation(most)
    side = stated.get("padding_side", "right")
    tokenizer.enable_padding(direction=side, pad_id=pad_id, pad_token=pad_token, length=length)
    return tokenizer


SIMPLE = "simple_tokenizer"
PUNCTUATION = str.maketrans("", "", string.punctuation)


def as_given(text):
    """Returns the text itself."""
    return text


def whitespace(text):
    """Returns the text mended and with single blanks (open_clip's cleaning of the same name).

    Mended: broken encodings, curly quotes, ligatures and full-width letters, then HTML's entities.
    """
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())


def lower(text):
    """Returns the same in lower case (open_clip's `lower`)."""
    return whitespace(text).lower()


def canonicalize(text):
    """Returns the same without punctuation (open_clip's `canonicalize`)."""
    return " ".join(whitespace(text).replace("_", " ").translate(PUNCTUATION).lower().split())


CLEANERS = {
    "as_given": as_given,
    "whitespace": whitespace,
    "lower": lower,
    "canonicalize": canonicalize,
    SIMPLE: lower,
}


def load_cleaner(stated):
    """Returns the function that the parameter `clean` names.

    Raises:
        ValueError: it names none.
    """
    name = stated.get("clean", "as_given")
    if name not in CLEANERS:
        raise ValueError(f"parameter clean is {name!r}: use one of {sorted(CLEANERS)}")
    return CLEANERS[name]


def decode(tensor):
    """Returns the texts of a request's [N, 1] tensor.

    Raises:
        UnicodeDecodeError: a text is not UTF-8.
    """
    return [text.decode("utf-8") for text in tensor.as_numpy().reshape(-1)]


def collect(requests):
    """Returns the texts of all requests, the slice that each has of them, and what is wrong.

    The latter two are by the request's place; a request is in one of them.
    """
    texts, spans, faults = [], {}, {}
    for index, request in enumerate(requests):
        try:
            found = decode(pb_utils.get_input_tensor_by_name(request, "TEXT"))
        except UnicodeDecodeError as error:
            faults[index] = f"TEXT must be UTF-8: {error}"
            continue
        spans[index] = slice(len(texts), len(texts) + len(found))
        texts += found
    return texts, spans, faults
