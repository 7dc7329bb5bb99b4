"""The port of the embedder: what the application needs of it.

Every method may raise `adapters.errors.Unavailable`. The real embedder (`adapters.embedder.triton`)
and the fake one (`adapters.embedder.fake`) pass the same contract tests (`tests/contract`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from adapters.embedder.spec import ModelSpec

if TYPE_CHECKING:
    from adapters.embedder.arrays import Pixels, Vectors


class Embedder(Protocol):
    """Turns images and texts into vectors of one space."""

    async def spec(self, model_name: str) -> ModelSpec:
        """The input and output of the served model.

        Raises:
            Unavailable: the server is down or the model is not loaded.
        """
        ...

    async def embed_images(self, model_name: str, pixels: Pixels) -> Vectors:
        """Unit vectors [N, D] of pixels [N, H, W, 3].

        Raises:
            Rejected: the model refuses this input.
            Unavailable: the server cannot answer now.
        """
        ...

    async def embed_texts(self, model_name: str, texts: Sequence[str]) -> Vectors:
        """Unit vectors [N, D] of N texts; raises as `embed_images`."""
        ...

    async def is_ready(self, model_name: str) -> bool:
        """Whether both encoders of the model answer now; False if the server is down."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
