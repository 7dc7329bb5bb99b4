"""A fake (in-memory) embedder, without a server.

For unit tests and experiments. It passes the contract suite that the real adapter passes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from adapters.embedder.arrays import Pixels, Vectors
from adapters.embedder.spec import ModelSpec
from adapters.errors import Rejected, Unavailable
from adapters.fake import Fake


@dataclass
class FakeEmbedder(Fake):
    """Embeds an image as its mean colour and a text as a hash, in `spec.dimension` numbers."""

    served: Mapping[str, ModelSpec] = field(default_factory=dict)
    image_calls: int = 0
    text_calls: int = 0

    async def spec(self, model_name: str) -> ModelSpec:
        self.check()
        if model_name not in self.served:
            raise Unavailable(f"the model {model_name!r} is not loaded")
        return self.served[model_name]

    async def embed_images(self, model_name: str, pixels: Pixels) -> Vectors:
        spec = await self.spec(model_name)
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (spec.height, spec.width, 3):
            raise Rejected(f"pixels are {pixels.dtype} {list(pixels.shape)}")
        self.image_calls += 1
        colour = pixels.reshape(len(pixels), -1, 3).mean(axis=1).astype(np.float32) + 1
        vectors = np.zeros((len(pixels), spec.dimension), np.float32)
        vectors[:, :3] = colour
        return _unit(vectors)

    async def embed_texts(self, model_name: str, texts: Sequence[str]) -> Vectors:
        spec = await self.spec(model_name)
        self.text_calls += 1
        return _unit(np.stack([_text_vector(text, spec.dimension) for text in texts]))

    async def is_ready(self, model_name: str) -> bool:
        return self.available and model_name in self.served

    async def close(self) -> None:
        return None


def _text_vector(text: str, dimension: int) -> Vectors:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).normal(size=dimension).astype(np.float32)


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
