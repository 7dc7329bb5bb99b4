"""Loading and unloading of models in a running Triton."""

from __future__ import annotations

import asyncio
from typing import Final

import aiohttp
import numpy as np
from tritonclient.http.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from adapters.errors import Rejected, translated
from adapters.index.port import Embedder
from adapters.naming import image_model, text_model

LOAD_SECONDS: Final = 600.0
_DOWN: Final = (aiohttp.ClientError, OSError, asyncio.TimeoutError)


class TritonControl:
    """Triton's explicit model control, for both halves of a model at once."""

    def __init__(self, url: str, embedder: Embedder) -> None:
        """`url` with or without a scheme; `embedder` of the same server, which `close` closes."""
        scheme, _, address = url.rpartition("://")
        self._embedder = embedder
        self._client = InferenceServerClient(
            address.rstrip("/"), ssl=scheme == "https", conn_timeout=LOAD_SECONDS
        )

    async def load(self, name: str) -> None:
        """Load, or load again; what ran before goes on until the new one is ready.

        Raises:
            Rejected: a half cannot be loaded; the message is Triton's.
            Unavailable: Triton does not answer.
        """
        for half in (image_model(name), text_model(name)):
            with translated(
                f"load {half}", rejected=(InferenceServerException,), unavailable=_DOWN
            ):
                await self._client.load_model(half)

    async def check(self, name: str) -> None:
        """Embed something with both halves.

        Raises:
            Rejected: it does not embed, or not in the dimension that it states.
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
                    f"{name}: the {kind} encoder gives {vectors.shape[1]} numbers, "
                    f"not {spec.dimension}"
                )

    async def unload(self, name: str) -> None:
        """Let go of both halves; one that is not loaded is no error. Raises as `load`."""
        for half in (image_model(name), text_model(name)):
            with translated(
                f"unload {half}", rejected=(InferenceServerException,), unavailable=_DOWN
            ):
                await self._client.unload_model(half)

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(self._client.close(), self._embedder.close())
