"""Loading and unloading models in a running Triton."""

from __future__ import annotations

import asyncio
from typing import Final

import numpy as np
from tritonclient.http.aio import InferenceServerClient

from adapters.embedder.port import Embedder
from adapters.embedder.triton_errors import triton_errors
from adapters.errors import Rejected
from adapters.naming import image_model, text_model

LOAD_SECONDS: Final = 600.0


class TritonControl:
    """Triton's explicit model control, for both encoders of a model at once."""

    def __init__(self, url: str, embedder: Embedder) -> None:
        """`url` may lack a scheme; `embedder` is of the same server, and is closed by `close`."""
        scheme, _, address = url.rpartition("://")
        self._embedder = embedder
        self._client = InferenceServerClient(
            address.rstrip("/"), ssl=scheme == "https", conn_timeout=LOAD_SECONDS
        )

    async def load(self, name: str) -> None:
        """Load or reload; the version that was loaded before serves until the new one is ready.

        Raises:
            Rejected: an encoder cannot be loaded; the message is Triton's.
            Unavailable: Triton does not answer.
        """
        for encoder in (image_model(name), text_model(name)):
            with triton_errors(f"load {encoder}", answered=Rejected):
                await self._client.load_model(encoder)

    async def check(self, name: str) -> None:
        """Embed a blank image and a text, to check that both encoders work.

        Raises:
            Rejected: it cannot embed, or its vectors do not have the dimension that it states.
            Unavailable: Triton does not answer.
        """
        spec = await self._embedder.spec(name)
        blank = np.zeros((1, spec.height, spec.width, 3), np.uint8)
        for kind, vectors in (
            ("image", await self._embedder.embed_images(name, blank)),
            ("text", await self._embedder.embed_texts(name, ["a photo"])),
        ):
            if vectors.shape[1] != spec.dimension:
                raise Rejected(
                    f"{name}: the {kind} encoder returns {vectors.shape[1]} numbers, "
                    f"not {spec.dimension}"
                )

    async def unload(self, name: str) -> None:
        """Unload both encoders, if they are loaded. Raises as `load`."""
        for encoder in (image_model(name), text_model(name)):
            with triton_errors(f"unload {encoder}", answered=Rejected):
                await self._client.unload_model(encoder)

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(self._client.close(), self._embedder.close())
