"""Decodes images in worker processes. Nothing in this module touches their bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from adapters.embedder.spec import ModelSpec
from imaging.decoded_image import DecodedImage
from imaging.sandbox.pool import Sandbox

TASKS: Final = "imaging.worker_tasks"


class Decoders:
    """Decodes for all users in this process, with one limit on worker processes and memory.

    Every method raises, besides the errors it names:
        Rejected: not an image in a supported format, damaged, or over `max_pixels`. The subclasses
            `DecoderCrashed`, `DecoderMemory` and `DecoderTimeout` say how the decoder failed.
    """

    def __init__(self, sandbox: Sandbox, *, max_pixels: int, tasks: str | None = None) -> None:
        """`tasks` names the module whose functions the worker processes call."""
        self._sandbox = sandbox
        self._max_pixels = max_pixels
        self._tasks = tasks or TASKS

    async def decode(self, data: bytes, spec: ModelSpec) -> DecodedImage:
        """The image as a model needs it."""
        image: DecodedImage = await self._sandbox.run(
            f"{self._tasks}:decode_image", data, spec, self._max_pixels, memory=_to_hand_over(data)
        )
        return image

    async def thumbnail(self, source: Path | bytes, *, edge: int, max_bytes: int) -> bytes:
        """A JPEG of the upright image, at most `edge` pixels each way, never enlarged.

        Raises:
            Rejected: also if the file has more than `max_bytes`.
            OSError: the file cannot be read.
            Unavailable: reading the file takes too long.
        """
        jpeg: bytes = await self._sandbox.run(
            f"{self._tasks}:thumbnail",
            source,
            edge,
            self._max_pixels,
            max_bytes,
            memory=_to_hand_over(source),
        )
        return jpeg

    async def media_type(self, source: Path | bytes, *, max_bytes: int) -> str:
        """The media type of an image, after decoding it completely; raises as `thumbnail`."""
        media_type: str = await self._sandbox.run(
            f"{self._tasks}:media_type",
            source,
            self._max_pixels,
            max_bytes,
            memory=_to_hand_over(source),
        )
        return media_type

    def close(self) -> None:
        """End the processes."""
        self._sandbox.close()


def _to_hand_over(source: Path | bytes) -> int:
    """Memory, in bytes, of passing bytes to a worker: the message, and the unpacked copy."""
    return 2 * len(source) if isinstance(source, bytes) else 0
