"""Whether the client of a request is still there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from http import HTTPStatus
from typing import TypeVar

from fastapi import Request

from gateway.http.problems import Problem

T = TypeVar("T")


async def while_connected(request: Request, answer: Awaitable[T]) -> T:
    """The answer; it is cancelled when the client disconnects.

    Raises:
        Problem: the client has disconnected.
    """
    answering = asyncio.ensure_future(answer)
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait([answering, gone], return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return answering.result()
        raise Problem(HTTPStatus.REQUEST_TIMEOUT, "The client has disconnected.")
    finally:
        answering.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
