"""Image encoder: PIXELS uint8 [N, H, W, 3] -> EMBEDDING FP32 [N, D] of unit length.

The same for every image model: normalization of pixels and of the vector is in model.onnx.
Triton's Python backend calls the methods; libraries come from EXECUTION_ENV_PATH.
"""

import numpy as np
import onnx_session
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance: one ONNX Runtime session."""

    def initialize(self, args):
        """Loads the model. An exception here makes Triton report the model as not loaded."""
        self._name = args["model_name"]
        self._session = onnx_session.open_session(args)
        self._input = self._session.get_inputs()[0].name
        pb_utils.Logger.log_info(
            f"{args['model_instance_name']}: {self._session.get_providers()[0]}, "
            f"input {self._session.get_inputs()[0].shape}"
        )

    def execute(self, requests):
        """Encodes all requests of a dynamic batch in one run, and splits the result."""
        batches = [
            pb_utils.get_input_tensor_by_name(request, "PIXELS").as_numpy() for request in requests
        ]
        try:
            pixels = batches[0] if len(batches) == 1 else np.concatenate(batches)
            embeddings = self._session.run({self._input: pixels})
        except Exception as error:  # the runtime has no common base for its errors
            pb_utils.Logger.log_error(f"{self._name}: {error}")
            failed = pb_utils.TritonError(f"{self._name} could not encode a batch: {error}")
            return [pb_utils.InferenceResponse(error=failed) for _ in requests]
        ends = np.cumsum([len(batch) for batch in batches])[:-1]
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("EMBEDDING", part)])
            for part in np.split(embeddings, ends)
        ]

    def finalize(self):
        """Called when the model is unloaded or the server stops."""
        self._session.close()
        pb_utils.Logger.log_info(f"{self._name}: unloaded")
