"""What the image and the text model share: parameters, and a session on an ONNX file.

The file is the same in every model's folder (a test says so), because Triton lets a model
import from its own folder alone.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
OUTPUT = "EMBEDDING"


def folder(args):
    """Returns the folder that holds this version's files."""
    return Path(args["model_repository"]) / args["model_version"]


def parameters(args):
    """Returns the parameters of config.pbtxt as strings by name."""
    stated = json.loads(args["model_config"]).get("parameters", {})
    return {name: value["string_value"] for name, value in stated.items()}


def open_session(args):
    """Opens model.onnx on the processor that the parameters `provider` and `threads` name.

    Raises:
        ValueError: a parameter has a value that means nothing.
        RuntimeError: the processor asked for is not there. (ONNX Runtime alone would go on
            with a slower one and hardly say so.)
    """
    stated = parameters(args)
    provider = stated.get("provider", "cpu")
    if provider not in PROVIDERS:
        raise ValueError(f"parameter provider is {provider!r}: use one of {sorted(PROVIDERS)}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(stated.get("threads", "0"))  # 0: as many as cores
    options.inter_op_num_threads = 1
    # Waiting threads give their core away: the decoders need it between two batches.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    wanted = PROVIDERS[provider]
    settings = {"device_id": args["model_instance_device_id"]} if provider == "cuda" else {}
    session = onnxruntime.InferenceSession(
        str(folder(args) / "model.onnx"), options, providers=[(wanted, settings)]
    )
    if session.get_providers()[0] != wanted:
        raise RuntimeError(
            f"{wanted} is not available; ONNX Runtime has {onnxruntime.get_available_providers()}"
        )
    return session


def run(session, feeds):
    """Runs a batch; returns FP32 [N, D]. A graph exported for one row is run row by row."""
    if session.get_inputs()[0].shape[0] != 1:
        return session.run([OUTPUT], feeds)[0]
    rows = len(next(iter(feeds.values())))
    single = ({name: rows_of[i : i + 1] for name, rows_of in feeds.items()} for i in range(rows))
    return np.concatenate([session.run([OUTPUT], feed)[0] for feed in single])
