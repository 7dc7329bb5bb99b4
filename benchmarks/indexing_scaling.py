"""How the rate of indexing grows with the number of indexers, with a model that only sleeps.

    ./image-search up --detach --servers-only
    python -m benchmarks.indexing_scaling --pictures 2400 --rounds 2

The speed of a real model depends on the machine, which all indexers share. This one takes a fixed
time for each picture, whatever else it serves, as if each indexer had its own GPU. So the benchmark
measures whether our own side scales with the group.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import tempfile
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from benchmarks.indexing_throughput import end_to_end
from models.repository import render
from stack.settings import StackSettings

NAME = "sleeper"
EDGE = 32
INSTANCES = 8
"""As many batches as four indexers can have in flight."""

CODE = '''
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Takes a fixed time per image, and returns different vectors for different images."""

    def execute(self, requests):
        responses = []
        for request in requests:
            pixels = pb_utils.get_input_tensor_by_name(request, "PIXELS").as_numpy()
            flat = pixels.reshape(len(pixels), -1)[:, :64].astype(np.float32) + 1
            time.sleep(len(pixels) * {seconds})
            vectors = flat / np.linalg.norm(flat, axis=1, keepdims=True)
            tensor = pb_utils.Tensor("EMBEDDING", vectors.astype(np.float32))
            responses.append(pb_utils.InferenceResponse([tensor]))
        return responses
'''

CONFIG = f"""
name: "{NAME}_{{part}}"
backend: "python"
max_batch_size: 32
input {{{{ {{input}} }}}}
output {{{{ name: "EMBEDDING" data_type: TYPE_FP32 dims: [ 64 ] }}}}
instance_group {{{{ count: 1 kind: KIND_CPU }}}}
parameters {{{{ key: "name" value {{{{ string_value: "{NAME}" }}}} }}}}
parameters {{{{ key: "licence" value {{{{ string_value: "Apache-2.0" }}}} }}}}
parameters {{{{ key: "dimension" value {{{{ string_value: "64" }}}} }}}}
parameters {{{{ key: "width" value {{{{ string_value: "{EDGE}" }}}} }}}}
parameters {{{{ key: "height" value {{{{ string_value: "{EDGE}" }}}} }}}}
parameters {{{{ key: "resize_mode" value {{{{ string_value: "stretch" }}}} }}}}
parameters {{{{ key: "interpolation" value {{{{ string_value: "bicubic" }}}} }}}}
parameters {{{{ key: "background" value {{{{ string_value: "white" }}}} }}}}
parameters {{{{ key: "min_score" value {{{{ string_value: "0" }}}} }}}}
"""


def load_model(seconds: float) -> None:
    """Add the model to those that the stack's Triton serves, and have it loaded."""
    settings = StackSettings()
    served = settings.state / "triton" / "models"
    stated = (served / "lite_image" / "config.pbtxt").read_text()
    environment = stated.partition('"EXECUTION_ENV_PATH"')[2].partition('string_value: "')[2]
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch)
        inputs = {
            "image": f'name: "PIXELS" data_type: TYPE_UINT8 dims: [ {EDGE}, {EDGE}, 3 ]',
            "text": 'name: "TEXT" data_type: TYPE_STRING dims: [ 1 ]',
        }
        for part, taken in inputs.items():
            folder = source / f"{NAME}_{part}"
            (folder / "1").mkdir(parents=True)
            (folder / "config.pbtxt").write_text(CONFIG.format(part=part, input=taken))
            (folder / "1" / "model.py").write_text(CODE.format(seconds=seconds))
        render(
            source,
            served,
            python_env=Path(environment.partition('"')[0]),
            image_instances=INSTANCES,
            text_instances=1,
            threads=1,
            provider="cpu",
        )
    url = settings.environment()["TRITON_URL"]
    for part in inputs:
        path = f"{url}/v2/repository/models/{NAME}_{part}/load"
        httpx.post(path, timeout=60, trust_env=False).raise_for_status()


def make_images(folder: Path, count: int) -> list[Path]:
    """Small pictures of noise, which take next to no time to read."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        path = folder / f"{number:05}.png"
        paths.append(path)
        if not path.exists():
            noise = np.frombuffer(random.Random(number).randbytes(EDGE * EDGE * 3), np.uint8)
            Image.fromarray(noise.reshape(EDGE, EDGE, 3)).save(path)
    return paths


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=2400)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.06, help="time for one picture")
    parser.add_argument("--folder", type=Path, default=Path(".scratch/scaling"))
    chosen = parser.parse_args()
    load_model(chosen.seconds)
    paths = make_images(chosen.folder.resolve(), chosen.pictures)
    rates: dict[int, list[float]] = {}
    for _ in range(chosen.rounds):
        for indexers in (1, 2, 4):
            rate = asyncio.run(end_to_end(paths, indexers, NAME)).rate
            rates.setdefault(indexers, []).append(rate)
            print(f"{indexers}: {rate:.1f} images/s", flush=True)
    one = statistics.median(rates[1])
    print(
        f"\n{len(paths)} pictures, {chosen.seconds * 1e3:g} ms each in the model, "
        f"{os.cpu_count()} cores, median of {chosen.rounds}\n"
    )
    print("| indexers | images/s | against one | rounds |\n|---|---|---|---|")
    for indexers, found in rates.items():
        rate = statistics.median(found)
        rounds = ", ".join(f"{each:.1f}" for each in found)
        print(f"| {indexers} | {rate:.1f} | {rate / one:.2f} | {rounds} |")


if __name__ == "__main__":
    main()
