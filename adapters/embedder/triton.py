"""`Embedder` on NVIDIA Triton, over HTTP with raw binary tensors.

The health endpoint, which answers while a model computes, distinguishes a busy Triton from a dead
one. If it answers, a call that takes too long raises `TooSlow`, and the caller sends less at once.
A single input cannot be split, so its deadline is doubled for each further call while Triton is
alive.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from tritonclient.http.aio import InferenceServerClient, InferInput, InferRequestedOutput

from adapters.embedder.arrays import Pixels, Vectors
from adapters.embedder.spec import InvalidModelSpec, ModelSpec
from adapters.embedder.triton_errors import triton_errors
from adapters.errors import AdapterError, Rejected, TooSlow, Unavailable
from adapters.naming import image_model, text_model
from adapters.progress import server_is_away

READY_TIMEOUT_SECONDS: Final = 2.0
LIVE_TIMEOUT_SECONDS: Final = 5.0
"""A health check takes no time itself, but inference may keep the machine busy."""
LONGEST_SECONDS: Final = 3600.0
"""Longest deadline of a single input; a model that needs more is too large for this machine."""
T = TypeVar("T")
# The client would accept compressed answers; compressing vectors costs more than it saves.
_PLAIN: Final = {"Accept-Encoding": "identity"}


class TritonEmbedder:
    """One long-lived client; at most `concurrency` calls in flight, each with a deadline.

    Further calls wait until one of those ends: this is the back-pressure.
    """

    def __init__(self, url: str, *, timeout: float = 30.0, concurrency: int = 8) -> None:
        """`url` may lack a scheme; `timeout` is in seconds, for one call."""
        scheme, _, address = url.rpartition("://")
        self._address = address.rstrip("/")
        self._secure = scheme == "https"
        self._timeout = timeout
        self._concurrency = concurrency
        self._slots = asyncio.Semaphore(concurrency)
        self._client: InferenceServerClient | None = None
        self._specs: dict[str, ModelSpec] = {}
        self._single: dict[str, float] = {}
        """Triton's model -> deadline of a single input in seconds, where it is above `timeout`."""

    def _connected(self) -> InferenceServerClient:
        # The client needs a running loop, so it is made at the first call.
        if self._client is None:
            self._client = InferenceServerClient(
                self._address,
                ssl=self._secure,
                conn_limit=self._concurrency + 4,
                # Each call has a deadline of its own.
                conn_timeout=LONGEST_SECONDS + LIVE_TIMEOUT_SECONDS,
            )
        return self._client

    async def spec(self, model_name: str) -> ModelSpec:
        """See `Embedder.spec`; read from the server once, then cached."""
        if model_name in self._specs:
            return self._specs[model_name]
        return await self.refresh_spec(model_name)

    async def refresh_spec(self, model_name: str) -> ModelSpec:
        """Read the spec again: another version may now be served under the same name."""
        name = image_model(model_name)
        with triton_errors(f"Triton model {name}", answered=Unavailable):
            async with asyncio.timeout(self._timeout):
                config = await self._connected().get_model_config(name)
        parameters = {
            key: value.get("string_value", "")
            for key, value in config.get("parameters", {}).items()
        }
        try:
            spec = ModelSpec.from_triton_parameters(parameters)
        except InvalidModelSpec as error:
            raise Rejected(f"Triton model {name}: {error}") from error
        self._specs[model_name] = spec
        return spec

    async def embed_images(self, model_name: str, pixels: Pixels) -> Vectors:
        """See `Embedder.embed_images`."""
        tensor = InferInput("PIXELS", list(pixels.shape), "UINT8")
        tensor.set_data_from_numpy(np.ascontiguousarray(pixels))
        return await self._infer(image_model(model_name), tensor, len(pixels))

    async def embed_texts(self, model_name: str, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed_texts`."""
        rows: NDArray[np.object_] = np.array([[text.encode()] for text in texts], dtype=np.object_)
        tensor = InferInput("TEXT", list(rows.shape), "BYTES")
        tensor.set_data_from_numpy(rows)
        return await self._infer(text_model(model_name), tensor, len(texts))

    async def _infer(self, name: str, tensor: InferInput, rows: int) -> Vectors:
        wanted = [InferRequestedOutput("EMBEDDING", binary_data=True)]
        async with self._slots:
            with triton_errors(f"Triton model {name}"):
                result = await self._in_time(
                    name,
                    rows,
                    self._connected().infer(name, [tensor], outputs=wanted, headers=dict(_PLAIN)),
                )
        vectors = result.as_numpy("EMBEDDING")
        if vectors is None or vectors.ndim != 2 or len(vectors) != rows:
            shape = None if vectors is None else list(vectors.shape)
            raise Rejected(f"Triton model {name}: answered {shape} for {rows} inputs")
        if not np.isfinite(vectors).all():
            raise Rejected(f"Triton model {name}: the embedding has numbers that are not finite")
        checked: Vectors = vectors.astype(np.float32, copy=False)
        return checked

    async def _in_time(self, name: str, rows: int, call: Coroutine[Any, Any, T]) -> T:
        """The result of the call, within its deadline.

        Raises:
            TooSlow: the deadline has passed, although Triton is alive.
            Unavailable: Triton does not even answer a health check.
        """
        seconds = self._single.get(name, self._timeout) if rows == 1 else self._timeout
        started = time.monotonic()
        work = asyncio.ensure_future(call)
        try:
            while True:
                passed = time.monotonic() - started
                await asyncio.wait([work], timeout=min(self._timeout, seconds - passed))
                if work.done():
                    break
                passed = time.monotonic() - started
                message = f"Triton model {name}: no answer within {passed:.0f} s"
                if not await self._is_live():
                    raise Unavailable(f"{message}, nor to a health check")
                if work.done():
                    break
                if passed >= seconds:
                    if rows == 1:
                        self._single[name] = min(2 * seconds, LONGEST_SECONDS)
                    raise TooSlow(f"{message} to {rows} inputs, although Triton is alive")
                server_is_away("Triton", f"{message}, but it is alive and computing")
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        result = work.result()
        if rows == 1 and name in self._single:
            # The next input may take as long as this one.
            needed = 2 * (time.monotonic() - started)
            if needed > self._timeout:
                self._single[name] = min(needed, LONGEST_SECONDS)
            else:
                del self._single[name]
        return result

    async def _is_live(self) -> bool:
        try:
            with triton_errors("Triton's health"):
                async with asyncio.timeout(LIVE_TIMEOUT_SECONDS):
                    live: bool = await self._connected().is_server_live()
        except AdapterError:
            return False
        return live

    async def is_ready(self, model_name: str) -> bool:
        """See `Embedder.is_ready`."""
        try:
            with triton_errors("Triton's health"):
                async with asyncio.timeout(READY_TIMEOUT_SECONDS):
                    client = self._connected()
                    ready = await asyncio.gather(
                        client.is_model_ready(image_model(model_name)),
                        client.is_model_ready(text_model(model_name)),
                    )
        except AdapterError:
            return False
        return all(ready)

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()
