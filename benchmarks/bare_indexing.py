"""Bare loops that decode images and run the model on them, without servers or a log."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime

from adapters.embedder.spec import ModelSpec
from imaging.decode import decode

ROOT = Path(__file__).parents[1]
BATCH = 32


def session(threads: int) -> onnxruntime.InferenceSession:
    """The model as Triton runs it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        str(ROOT / "triton_models/lite_image/1/model.onnx"),
        options,
        providers=["CPUExecutionProvider"],
    )


def batches(paths: list[Path]) -> Iterator[list[Path]]:
    for start in range(0, len(paths), BATCH):
        yield paths[start : start + BATCH]


def sequential(paths: list[Path], spec: ModelSpec) -> float:
    """Read, decode, infer, one after the other; pictures per second."""
    model = session(os.cpu_count() or 1)
    started = time.perf_counter()
    for batch in batches(paths):
        pixels = np.stack([decode(path.read_bytes(), spec).pixels for path in batch])
        model.run(["EMBEDDING"], {model.get_inputs()[0].name: pixels})
    return len(paths) / (time.perf_counter() - started)


def overlapped(paths: list[Path], spec: ModelSpec, threads: int, workers: int) -> float:
    """Decode in a pool while the model runs; pictures per second."""
    model = session(threads)
    name = model.get_inputs()[0].name

    def one(path: Path) -> np.ndarray:
        pixels: np.ndarray = decode(path.read_bytes(), spec).pixels
        return pixels

    started = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        ahead: list[list[Future[np.ndarray]]] = []
        rest = batches(paths)
        for _ in range(3):
            if batch := next(rest, None):
                ahead.append([pool.submit(one, path) for path in batch])
        while ahead:
            pixels = np.stack([future.result() for future in ahead.pop(0)])
            if batch := next(rest, None):
                ahead.append([pool.submit(one, path) for path in batch])
            model.run(["EMBEDDING"], {name: pixels})
    return len(paths) / (time.perf_counter() - started)
