"""Bounds on requests: how large a body is, kept while it arrives, and how long an answer takes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.http import problems
from gateway.http.problems import Problem


class _TooLarge(Exception):
    """More bytes came than are allowed."""


class BodyLimit:
    """ASGI middleware that answers 413 to a body of more than `max_bytes`.

    `other` gives paths bounds of their own.
    """

    def __init__(
        self, app: ASGIApp, max_bytes: int, other: Mapping[str, int] | None = None
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._other = other or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        bound = self._other.get(scope["path"], self._max_bytes)
        stated = Headers(scope=scope).get("content-length", "")
        # More digits than any size has would only cost time to read as a number.
        if stated.isdecimal() and (len(stated) > 18 or int(stated) > bound):
            await self._refuse(scope, receive, send, bound)
            return
        seen, exceeded, started = 0, False, False

        async def counted() -> Message:
            nonlocal seen, exceeded
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > bound:
                exceeded = True
                raise _TooLarge
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            # What the application makes of the broken-off body is not the answer.
            if exceeded and not started:
                return
            started = True
            await send(message)

        try:
            await self._app(scope, counted, watched)
        except _TooLarge:
            if started:
                raise
        if exceeded and not started:
            await self._refuse(scope, receive, send, bound)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, bound: int) -> None:
        problem = Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"The body has more than {bound} bytes.",
            headers={"Connection": "close"},
        )
        await problems.response(problem)(scope, receive, send)


class Deadline:
    """ASGI middleware that answers 503 when no answer has begun within `seconds`.

    `other` gives paths deadlines of their own. A handler that is asked to wait may move its own
    with `extend`. Once an answer has begun its end may take as long as the client does.
    """

    def __init__(
        self, app: ASGIApp, seconds: float, other: Mapping[str, float] | None = None
    ) -> None:
        self._app = app
        self._seconds = seconds
        self._other = other or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with a limit in time."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seconds = self._other.get(scope["path"], self._seconds)
        started = False

        async def begun(message: Message) -> None:
            nonlocal started
            if not started:
                started = True
                limit.reschedule(None)
            await send(message)

        limit = asyncio.timeout(seconds)
        scope.setdefault("state", {})[_DEADLINE] = limit
        try:
            async with limit:
                await self._app(scope, receive, begun)
        except TimeoutError:
            if not limit.expired() or started:
                raise
            problem = Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"no answer within {seconds:g} s",
                headers={"Retry-After": "2"},
            )
            await problems.response(problem)(scope, receive, send)


_DEADLINE = "deadline"


def extend(scope: Scope, seconds: float) -> None:
    """Give this request so many more seconds, as it was asked to wait."""
    limit: asyncio.Timeout = scope["state"][_DEADLINE]
    when = limit.when()
    if when is not None:
        limit.reschedule(when + seconds)
