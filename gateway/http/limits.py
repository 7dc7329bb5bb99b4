"""Limits of requests: the size of a body, checked as it arrives, and the time of an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.http import problems
from gateway.http.problems import Problem


class _TooLarge(Exception):
    """The body has more bytes than are allowed."""


class BodyLimit:
    """ASGI middleware that answers 413 to a body of more than `max_bytes`.

    `other` maps methods and paths to bounds of their own.
    """

    def __init__(
        self, app: ASGIApp, max_bytes: int, other: Mapping[tuple[str, str], int] | None = None
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._other = other or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count the bytes of its body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        bound = self._other.get((scope["method"], scope["path"]), self._max_bytes)
        stated = Headers(scope=scope).get("content-length", "")
        # No body's size has more digits; parsing such a number would only cost time.
        if stated.isdecimal() and (len(stated) > 18 or int(stated) > bound):
            await self._refuse(scope, receive, send, bound)
            return
        seen, exceeded, started = 0, False, False

        async def receive_counted() -> Message:
            nonlocal seen, exceeded
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > bound:
                exceeded = True
                raise _TooLarge
            return message

        async def send_checked(message: Message) -> None:
            nonlocal started
            # The application's answer to the incomplete body is discarded.
            if exceeded and not started:
                return
            started = True
            await send(message)

        try:
            await self._app(scope, receive_counted, send_checked)
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

    `other` maps methods and paths to deadlines of their own. A handler may extend its own with
    `extend`. Sending an answer that has begun may take any time.
    """

    def __init__(
        self, app: ASGIApp, seconds: float, other: Mapping[tuple[str, str], float] | None = None
    ) -> None:
        self._app = app
        self._seconds = seconds
        self._other = other or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a time limit."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seconds = self._other.get((scope["method"], scope["path"]), self._seconds)
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
                f"There was no answer within {seconds:g} s.",
                headers=problems.RETRY,
            )
            await problems.response(problem)(scope, receive, send)


_DEADLINE = "deadline"


def extend(scope: Scope, seconds: float) -> None:
    """Extend the deadline of this request by `seconds`."""
    limit: asyncio.Timeout = scope["state"][_DEADLINE]
    when = limit.when()
    if when is not None:
        limit.reschedule(when + seconds)
