"""Waiting until a picture can be found, so that who adds one can read it back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from adapters.ports import Collection, ImageIndex
from gateway.problems import Problem

FIRST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 0.25


async def until_indexed(
    index: ImageIndex,
    active: Callable[[], Awaitable[Collection]],
    image_name: str,
    sha256: str | None,
    *,
    timeout: float,
) -> None:
    """Return once the active collection holds the picture, with this content if one is given.

    Raises:
        Problem: 409 after `timeout` seconds; it may still come, or be dead-lettered.
        Unavailable: the index does not answer.
    """
    pause = FIRST_PAUSE
    try:
        async with asyncio.timeout(timeout):
            while True:
                held = await index.hashes(await active(), [image_name])
                found = held.get(image_name)
                if found is not None and sha256 in (None, found):
                    return
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, LONGEST_PAUSE)
    except TimeoutError as error:
        raise Problem(
            HTTPStatus.CONFLICT,
            f"{image_name} could not be found within {timeout:g} s; if it is a picture that can "
            "be read it will be, otherwise it is among the dead letters",
            errors=[{"field": "wait_for", "message": "not searchable yet"}],
            headers={"Retry-After": "2"},
            waiting_for={"image_name": image_name, "sha256": sha256},
        ) from error
