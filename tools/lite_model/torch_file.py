"""Reads a legacy (before 1.6) PyTorch weight file without PyTorch.

Such a file is five pickles one after another (magic number, protocol, system information,
the ordered dictionary of tensors, the list of storage keys) followed, for each key, by an
int64 element count and the raw little-endian numbers.
"""

import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
_DTYPES: dict[str, np.dtype[Any]] = {
    "FloatStorage": np.dtype("<f4"),
    "LongStorage": np.dtype("<i8"),
}


@dataclass(frozen=True)
class _View:
    """A tensor as the pickle describes it: a strided window on a storage not yet read."""

    storage: str
    dtype: np.dtype[Any]
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _rebuild_tensor(
    storage: tuple[str, np.dtype[Any]],
    offset: int,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    *_: object,
) -> _View:
    key, dtype = storage
    return _View(key, dtype, offset, tuple(shape), tuple(stride))


class _WeightsOnly(pickle.Unpickler):
    """An unpickler that can name nothing but tensors, so a hostile file runs no code."""

    def find_class(self, module: str, name: str) -> Callable[..., Any] | str:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _DTYPES:
            return name
        raise pickle.UnpicklingError(f"refused: {module}.{name}")

    def persistent_load(self, pid: Any) -> tuple[str, np.dtype[Any]]:
        kind, storage, key, *_ = pid
        if kind != "storage":
            raise pickle.UnpicklingError(f"refused persistent id {kind!r}")
        return str(key), _DTYPES[storage]


def _load(file: BinaryIO) -> Any:
    return _WeightsOnly(file).load()


def read_weights(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Returns the file's tensors by name, in the file's order.

    Raises:
        ValueError: not a legacy weight file, or one that is cut short.
        pickle.UnpicklingError: the file names anything but tensors.
    """
    with path.open("rb") as file:
        if _load(file) != MAGIC or _load(file) != PROTOCOL:
            raise ValueError(f"{path} is not a legacy PyTorch weight file")
        _load(file)  # sizes of C types on the machine that wrote it; int64 is fixed here
        views: dict[str, _View] = _load(file)
        keys: list[str] = _load(file)
        dtypes = {view.storage: view.dtype for view in views.values()}
        storages: dict[str, npt.NDArray[Any]] = {}
        for key in keys:
            count = int(np.frombuffer(file.read(8), "<i8")[0])
            raw = file.read(count * dtypes[key].itemsize)
            if len(raw) != count * dtypes[key].itemsize:
                raise ValueError(f"{path} is cut short in storage {key}")
            storages[key] = np.frombuffer(raw, dtypes[key])
    return {name: _tensor(storages[view.storage], view) for name, view in views.items()}


def _tensor(storage: npt.NDArray[Any], view: _View) -> npt.NDArray[Any]:
    strides = tuple(step * view.dtype.itemsize for step in view.stride)
    window = np.lib.stride_tricks.as_strided(storage[view.offset :], view.shape, strides)
    return window.copy()
