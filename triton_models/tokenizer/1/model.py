"""Tokenizer before a native text encoder: TEXT bytes (UTF-8) [N, 1] -> token ids [N, L].

The first step of the ensemble in a GPU rendering (models/gpu.py). Parameters are those of
the text encoder in Python. The outputs are what config.pbtxt lists: ids, then perhaps the mask, in
the integers that the encoder's graph takes.
"""

import json
from pathlib import Path

import numpy as np
import tokenization
import triton_python_backend_utils as pb_utils

INTEGERS = {"TYPE_INT64": np.int64, "TYPE_INT32": np.int32}


class TritonPythonModel:
    """One instance: one tokenizer."""

    def initialize(self, args):
        """Loads the tokenizer. An exception here makes Triton report the model as not loaded."""
        self._name = args["model_name"]
        config = json.loads(args["model_config"])
        stated = {name: value["string_value"] for name, value in config["parameters"].items()}
        folder = Path(args["model_repository"]) / args["model_version"]
        self._tokenizer = tokenization.load_tokenizer(stated, folder)
        self._clean = tokenization.load_cleaner(stated)
        self._outputs = [
            (each["name"], INTEGERS[each["data_type"]], part)
            for each, part in zip(config["output"], ("ids", "attention_mask"), strict=False)
        ]

    def execute(self, requests):
        """Tokenizes all requests together, so that all of a batch have one length."""
        responses = [None] * len(requests)
        texts, spans, faults = tokenization.collect(requests)
        for index, fault in faults.items():
            responses[index] = self._failed(fault, pb_utils.TritonError.INVALID_ARG)
        if not texts:
            return responses
        try:
            encodings = self._tokenizer.encode_batch([self._clean(text) for text in texts])
        except Exception as error:  # tokenizers raises nothing more precise
            pb_utils.Logger.log_error(f"{self._name}: {error}")
            for index in spans:
                responses[index] = self._failed(
                    f"could not tokenize a batch: {error}", pb_utils.TritonError.INTERNAL
                )
            return responses
        arrays = [
            (name, np.array([getattr(encoding, part) for encoding in encodings], dtype))
            for name, dtype, part in self._outputs
        ]
        for index, span in spans.items():
            responses[index] = pb_utils.InferenceResponse(
                [pb_utils.Tensor(name, array[span]) for name, array in arrays]
            )
        return responses

    def finalize(self):
        """Called when the model is unloaded or the server stops."""
        pb_utils.Logger.log_info(f"{self._name}: unloaded")

    def _failed(self, reason, code):
        return pb_utils.InferenceResponse(
            error=pb_utils.TritonError(f"{self._name}: {reason}", code)
        )
