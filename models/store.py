"""The per-user store of models: each is converted once, and stored completely or not at all.

<store>/<name>/<name>_image/{config.pbtxt, 1/model.onnx}
<store>/<name>/<name>_text/{config.pbtxt, 1/model.onnx, 1/tokenizer.json}
<store>/<name>/origin.json
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock
from pydantic import BaseModel, ConfigDict

from adapters.embedder.spec import ModelSpec
from adapters.naming import MODEL_NAME, image_model, text_model
from models import repository as model_repository
from models import triton_config
from models.errors import ModelError
from models.layout import IMAGE_MODEL, TEXT_MODEL, TOKENIZER, Layout, read_layout

if TYPE_CHECKING:
    import onnx  # Imported when a model is converted; the launcher, which stays, converts none.

ORIGIN = "origin.json"
IMAGE_BATCH, TEXT_BATCH = 32, 64
_CONFIG = """\
name: "{name}"
backend: "python"
max_batch_size: {batch}
input {{ {input} }}
output {{ name: "EMBEDDING" data_type: TYPE_FP32 dims: [ {dimension} ] }}
dynamic_batching {{ {batching} }}
"""


class StoreError(ModelError, ValueError):
    """The store refuses the operation; the message says why."""


class Origin(BaseModel):
    """Where a model came from; `files` maps paths in its repository to SHA-256."""

    model_config = ConfigDict(frozen=True)

    source: str
    revision: str | None = None
    licence: str = "not stated"
    files: Mapping[str, str] = {}


class ModelStore:
    """Models by name: those that were added, and the bundled ones."""

    def __init__(self, root: Path, bundled: Path = model_repository.CODE) -> None:
        self._root = root
        self._bundled = bundled

    def names(self) -> list[str]:
        """All models that can be served, bundled ones first."""
        return [*model_repository.models(self._bundled), *self.added()]

    def added(self) -> list[str]:
        """The models that were added."""
        return sorted(path.parent.name for path in self._root.glob(f"*/{ORIGIN}"))

    def repository(self, name: str) -> Path:
        """The folder with the model's image and text encoders.

        Raises:
            StoreError: there is no such model.
        """
        if name in model_repository.models(self._bundled):
            return self._bundled
        if MODEL_NAME.fullmatch(name) and (self._root / name / ORIGIN).is_file():
            return self._root / name
        raise StoreError(f"there is no model {name!r}; there are: {', '.join(self.names())}")

    def spec(self, name: str) -> ModelSpec:
        """The model's input and output specification; raises as `repository`."""
        return model_repository.read_model_spec(self.repository(name), name)

    def origin(self, name: str) -> Origin | None:
        """Where it came from; None for a bundled model; raises as `repository`."""
        path = self.repository(name) / ORIGIN
        return Origin.model_validate_json(path.read_bytes()) if path.is_file() else None

    def add(self, folder: Path, name: str, origin: Origin, min_score: float = 0.0) -> ModelSpec:
        """Convert a folder in the supported layout, and add it under this name.

        Raises:
            StoreError: the name is taken or invalid.
            InvalidLayout, InvalidGraph: the folder does not contain such a model.
            OSError: a file cannot be read or written.
        """
        if not MODEL_NAME.fullmatch(name):
            raise StoreError(f"{name!r} cannot name a model: use letters, digits, '.', '_', '-'")
        if name in self.names():
            raise StoreError(f"there is already a model {name!r}; remove it or use another name")
        layout = read_layout(folder)
        self._root.mkdir(parents=True, exist_ok=True)
        with FileLock(self._root / f".{name}.lock"):
            if name in self.names():  # Another process has added it meanwhile.
                raise StoreError(f"there is already a model {name!r}")
            for stale in self._root.glob(f".{name}~*.part"):
                shutil.rmtree(stale, ignore_errors=True)  # Of a process that was killed.
            part = Path(tempfile.mkdtemp(prefix=f".{name}~", suffix=".part", dir=self._root))
            try:
                _convert_image(layout, part / image_model(name), name, origin.licence, min_score)
                _convert_text(layout, part / text_model(name), name)
                (part / ORIGIN).write_text(origin.model_dump_json(indent=1))
                part.chmod(0o755)
                part.rename(self._root / name)
            finally:
                shutil.rmtree(part, ignore_errors=True)
        return self.spec(name)

    def remove(self, name: str) -> None:
        """Delete a model that was added; raises StoreError if there is none, or it is bundled."""
        folder = self.repository(name)
        if folder == self._bundled:
            raise StoreError(f"{name!r} is bundled and cannot be removed")
        gone = self._root / f".{name}.removed"
        shutil.rmtree(gone, ignore_errors=True)
        folder.rename(gone)
        shutil.rmtree(gone)


def _convert_image(layout: Layout, target: Path, name: str, licence: str, min_score: float) -> None:
    from models import (
        graph as model_graph,
    )  # Here, as in the others: only adding a model needs ONNX.

    source = layout.folder / IMAGE_MODEL
    model = model_graph.image_encoder(
        model_graph.load(source),
        height=layout.height,
        width=layout.width,
        mean=layout.mean,
        std=layout.std,
    )
    _write(
        target,
        model,
        source,
        IMAGE_BATCH,
        dimension=layout.dimension,
        input=f'name: "PIXELS" data_type: TYPE_UINT8 dims: [ {layout.height}, {layout.width}, 3 ]',
        batching="max_queue_delay_microseconds: 1000",
        parameters={
            "name": name,
            "licence": licence,
            "dimension": str(layout.dimension),
            "width": str(layout.width),
            "height": str(layout.height),
            "resize_mode": layout.resize_mode,
            "interpolation": layout.interpolation,
            "background": "white",
            "min_score": str(min_score),
        },
    )


def _convert_text(layout: Layout, target: Path, name: str) -> None:
    from models import graph as model_graph

    source = layout.folder / TEXT_MODEL
    # Set only if it is not the default, so that other models keep their version.
    side = {} if layout.padding_side == "right" else {"padding_side": layout.padding_side}
    _write(
        target,
        model_graph.text_encoder(model_graph.load(source)),
        source,
        TEXT_BATCH,
        dimension=layout.dimension,
        input='name: "TEXT" data_type: TYPE_STRING dims: [ 1 ]',
        batching="",
        parameters={
            "name": name,
            "dimension": str(layout.dimension),
            "max_tokens": str(layout.context_length),
            "padding": "max_tokens",
            "pad_token": layout.pad_token,
            "clean": layout.clean,
            **side,
        },
    )
    shutil.copyfile(layout.folder / TOKENIZER, target / "1" / TOKENIZER.name)


def _write(
    target: Path,
    model: onnx.ModelProto,
    source: Path,
    batch: int,
    *,
    dimension: int,
    input: str,
    batching: str,
    parameters: Mapping[str, str],
) -> None:
    import onnx

    from models import graph as model_graph

    if model_graph.batch_limit(model) not in (None, 1):
        raise model_graph.InvalidGraph(f"{source.name} was exported for a fixed batch size above 1")
    folder = target / "1"
    folder.mkdir(parents=True)
    for name in model_graph.external_files(model):
        shutil.copyfile(source.parent / name, folder / name)
    onnx.save_model(model, str(folder / "model.onnx"))
    config = triton_config.parse(
        _CONFIG.format(
            name=target.name, batch=batch, input=input, dimension=dimension, batching=batching
        )
    )
    for key, value in {**parameters, "provider": "cpu", "threads": "0"}.items():
        config.parameters[key].string_value = value
    (target / model_repository.CONFIG).write_text(triton_config.write(config), encoding="utf-8")
