"""Text encoder: TEXT bytes (UTF-8) [N, 1] -> EMBEDDING FP32 [N, D] of unit length.

The same for every text model: what differs is in tokenizer.json, model.onnx and in the
parameters `max_tokens`, `padding` ('longest' text of the batch, or always 'max_tokens'),
`pad_token` and, where a model wants it, `clean`: `whitespace` reduces runs of blanks,
`canonicalize` also drops punctuation and capitals (as SigLIP was trained). A model with two
inputs is given token ids and mask; one with a single input, token ids alone.
"""

import string

import numpy as np
import onnx_session
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer

INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


def load_tokenizer(args):
    """Returns the tokenizer set up as the parameters say.

    Raises:
        ValueError: a parameter is missing, or does not fit the tokenizer.
    """
    stated = onnx_session.parameters(args)
    missing = {"max_tokens", "padding", "pad_token"} - set(stated)
    if missing:
        raise ValueError(f"config.pbtxt lacks the parameters {sorted(missing)}")
    tokenizer = Tokenizer.from_file(str(onnx_session.folder(args) / "tokenizer.json"))
    pad_token, most = stated["pad_token"], int(stated["max_tokens"])
    pad_id = tokenizer.token_to_id(pad_token)
    if pad_id is None:
        raise ValueError(f"the tokenizer has no token {pad_token!r} to pad with")
    if stated["padding"] not in ("longest", "max_tokens"):
        raise ValueError(f"parameter padding is {stated['padding']!r}: longest or max_tokens")
    length = most if stated["padding"] == "max_tokens" else None
    tokenizer.enable_truncation(most)
    tokenizer.enable_padding(pad_id=pad_id, pad_token=pad_token, length=length)
    return tokenizer


PUNCTUATION = str.maketrans("", "", string.punctuation)


def as_given(text):
    """Returns the text itself."""
    return text


def whitespace(text):
    """Returns the text with single blanks between its words (open_clip's `whitespace_clean`)."""
    return " ".join(text.split())


def canonicalize(text):
    """Returns the text in lower case without punctuation (open_clip's `canonicalize_text`)."""
    return whitespace(text.replace("_", " ").translate(PUNCTUATION).lower())


CLEANERS = {"as_given": as_given, "whitespace": whitespace, "canonicalize": canonicalize}


def load_cleaner(args):
    """Returns the function that the parameter `clean` names.

    Raises:
        ValueError: it names none.
    """
    stated = onnx_session.parameters(args).get("clean", "as_given")
    if stated not in CLEANERS:
        raise ValueError(f"parameter clean is {stated!r}: use one of {sorted(CLEANERS)}")
    return CLEANERS[stated]


def decode(tensor):
    """Returns the texts of a request's [N, 1] tensor.

    Raises:
        UnicodeDecodeError: a text is not UTF-8.
    """
    return [text.decode("utf-8") for text in tensor.as_numpy().reshape(-1)]


class TritonPythonModel:
    """One instance: one tokenizer and one ONNX Runtime session."""

    def initialize(self, args):
        """Loads the model. An exception here makes Triton report the model as not loaded."""
        self._name = args["model_name"]
        self._session = onnx_session.open_session(args)
        self._tokenizer = load_tokenizer(args)
        self._clean = load_cleaner(args)
        self._inputs = [
            (each.name, INTEGERS[each.type], part)
            for each, part in zip(
                self._session.get_inputs(), ("ids", "attention_mask"), strict=False
            )
        ]
        pb_utils.Logger.log_info(
            f"{args['model_instance_name']}: {self._session.get_providers()[0]}, "
            f"{self._tokenizer.get_vocab_size()} tokens"
        )

    def execute(self, requests):
        """Encodes all sound requests of a dynamic batch in one run, and splits the result."""
        responses = [None] * len(requests)
        texts, spans = [], {}
        for index, request in enumerate(requests):
            try:
                found = decode(pb_utils.get_input_tensor_by_name(request, "TEXT"))
            except UnicodeDecodeError as error:
                responses[index] = self._failed(
                    f"TEXT must be UTF-8: {error}", pb_utils.TritonError.INVALID_ARG
                )
                continue
            spans[index] = slice(len(texts), len(texts) + len(found))
            texts += found
        if texts:
            try:
                embeddings = self._embed(texts)
            except Exception as error:  # neither library has a common base for its errors
                pb_utils.Logger.log_error(f"{self._name}: {error}")
                for index in spans:
                    responses[index] = self._failed(
                        f"could not encode a batch: {error}", pb_utils.TritonError.INTERNAL
                    )
                return responses
            for index, span in spans.items():
                part = pb_utils.Tensor("EMBEDDING", embeddings[span])
                responses[index] = pb_utils.InferenceResponse([part])
        return responses

    def finalize(self):
        """Called when the model is unloaded or the server stops."""
        pb_utils.Logger.log_info(f"{self._name}: unloaded")

    def _embed(self, texts):
        encodings = self._tokenizer.encode_batch([self._clean(text) for text in texts])
        feeds = {
            name: np.array([getattr(encoding, part) for encoding in encodings], dtype)
            for name, dtype, part in self._inputs
        }
        return onnx_session.run(self._session, feeds)

    def _failed(self, reason, code):
        return pb_utils.InferenceResponse(
            error=pb_utils.TritonError(f"{self._name}: {reason}", code)
        )
