"""Decoding pictures, as the rest of a process sees it: nothing here touches their bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from adapters.embedder.spec import ModelSpec
from imaging.decoded_image import Picture
from imaging.sandbox.pool import Sandbox

TASKS: Final = "imaging.worker_tasks"


class Decoders:
    """Decodes for whoever asks, with one bound on processes and memory for all of them.

    Every method raises, besides what is named there:
        Rejected: not a picture in a supported format, damaged, or over `max_pixels`; or, as
            `DecoderCrashed`, `DecoderMemory` and `DecoderTimeout`, what its decoder made of it.
    """

    def __init__(self, sandbox: Sandbox, *, max_pixels: int, tasks: str | None = None) -> None:
        """`tasks` is the module whose functions are called in the worker processes."""
        self._sandbox = sandbox
        self._max_pixels = max_pixels
        self._tasks = tasks or TASKS

    async def picture(self, data: bytes, spec: ModelSpec) -> Picture:
        """The picture as a model wants it."""
        picture: Picture = await self._sandbox.run(
            f"{self._tasks}:picture", data, spec, self._max_pixels, memory=_to_hand_over(data)
        )
        return picture

    async def thumbnail(self, source: Path | bytes, *, edge: int, max_bytes: int) -> bytes:
        """A JPEG of the upright picture, at most `edge` pixels each way, never enlarged.

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
        """The media type of a picture that can be decoded whole; raises as `thumbnail`."""
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
    """What bytes take that are passed on, in the message and out of it."""
    return 2 * len(source) if isinstance(source, bytes) else 0
