"""Text encoder: TEXT bytes (UTF-8) [N, 1] -> EMBEDDING FP32 [N, D] of unit length.

The same for every text model: what differs is in tokenizer.json, model.onnx and in the
parameters `max_tokens`, `padding` ('longest' text of the batch, or always 'max_tokens'),
`pad_token` and, where a model wants it, `clean`, which names one of open_clip's ways to clean a
text. A model with two inputs is given token ids and mask; one with a single input, token ids alone.
"""

import numpy as np
import onnx_session
import tokenization
import triton_python_backend_utils as pb_utils

INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


class TritonPythonModel:
    """One instance: one tokenizer and one ONNX Runtime session."""

    def initialize(self, args):
        """Loads the model. An exception here makes Triton report the model as not loaded."""
        self._name = args["model_name"]
        stated = onnx_session.parameters(args)
        self._tokenizer = tokenization.load_tokenizer(stated, onnx_session.folder(args))
        self._clean = tokenization.load_cleaner(stated)
        self._session = onnx_session.open_session(args)
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
        texts, spans, faults = tokenization.collect(requests)
        for index, fault in faults.items():
            responses[index] = self._failed(fault, pb_utils.TritonError.INVALID_ARG)
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
        self._session.close()
        pb_utils.Logger.log_info(f"{self._name}: unloaded")

    def _embed(self, texts):
        encodings = self._tokenizer.encode_batch([self._clean(text) for text in texts])
        feeds = {
            name: np.array([getattr(encoding, part) for encoding in encodings], dtype)
            for name, dtype, part in self._inputs
        }
        return self._session.run(feeds)

    def _failed(self, reason, code):
        return pb_utils.InferenceResponse(
            error=pb_utils.TritonError(f"{self._name}: {reason}", code)
        )
