"""What the image and the text model share: parameters, and a session on an ONNX file.

The file is the same in every model's folder (a test says so), because Triton lets a model
import from its own folder alone.
"""

import ctypes
import json
import threading
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
OUTPUT = "EMBEDDING"
IDLE_SECONDS = "10"
"""How long a model is idle before it gives memory back, where the configuration says nothing."""


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
    idle_seconds = float(stated.get("idle_seconds", IDLE_SECONDS))
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
    return Session(session, idle_seconds if provider == "cpu" else 0.0)


class Session:
    """An ONNX Runtime session that gives memory back when it is idle.

    ONNX Runtime keeps the memory of the largest batch that it ever ran, so that the next one need
    not ask the system for it: hundreds of megabytes for a batch of images. A session keeps it while
    batches come, and releases it once none has come for `idle_seconds`. A single row does not count
    as a batch: it takes little, and health checks send one every few seconds.
    """

    def __init__(self, session, idle_seconds):
        """`idle_seconds`: 0 means that the memory is never given back."""
        self._session = session
        self._idle_seconds = min(idle_seconds, threading.TIMEOUT_MAX)
        self._row = None  # the first row of the first batch
        self._had_batch, self._closed = threading.Event(), threading.Event()
        self._thread = None
        trim_heap()  # Loading takes more than what is loaded.
        if idle_seconds > 0:
            self._thread = threading.Thread(target=self._shrink_when_idle, daemon=True)
            self._thread.start()

    def get_inputs(self):
        """Returns the inputs of the graph."""
        return self._session.get_inputs()

    def get_providers(self):
        """Returns ONNX Runtime's providers, the used one first."""
        return self._session.get_providers()

    def run(self, feeds):
        """Runs a batch; returns FP32 [N, D]. A graph exported for one row is run row by row."""
        embeddings = self._run(feeds)
        if self._row is None:
            self._row = {name: rows[:1].copy() for name, rows in feeds.items()}
        if len(embeddings) > 1:
            self._had_batch.set()
        return embeddings

    def close(self):
        """Ends the thread that gives memory back."""
        self._closed.set()
        self._had_batch.set()
        if self._thread is not None:
            self._thread.join()

    def shrink(self):
        """Gives the memory of past batches back to the system.

        ONNX Runtime does so after a run alone, so one row is run again.
        """
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._session.run([OUTPUT], self._row, options)
        trim_heap()

    def _run(self, feeds):
        if self._session.get_inputs()[0].shape[0] != 1:
            return self._session.run([OUTPUT], feeds)[0]
        count = len(next(iter(feeds.values())))
        single = ({name: rows[i : i + 1] for name, rows in feeds.items()} for i in range(count))
        return np.concatenate([self._session.run([OUTPUT], feed)[0] for feed in single])

    def _shrink_when_idle(self):
        while self._had_batch.wait() and not self._closed.is_set():
            self._had_batch.clear()
            try:
                if self._closed.wait(self._idle_seconds) or self._had_batch.is_set():
                    continue
                self.shrink()
            except Exception as error:  # the runtime has no common base for its errors
                pb_utils.Logger.log_warn(f"memory of past batches is not given back: {error}")
                return


def trim_heap():
    """Gives free pages of the heap back to the system, where the C library can (glibc)."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return
    trim(0)
