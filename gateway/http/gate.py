"""The gate before every route: access control, rate limit, and the origin of requests."""

from __future__ import annotations

import functools
import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Collection as Container
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import URL, Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from adapters.errors import Unavailable
from gateway.auth.access import Access
from gateway.errors import Denied
from gateway.http import problems, sign_in
from gateway.http.credentials import credentials
from gateway.http.problems import Problem

CALLER: Final = "image_search.caller"
"""The key in the ASGI scope under which the gate stores who sent the request."""
OPEN_PATHS: Final = ("/api/v1/healthcheck",)
SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")
MAX_CLIENTS: Final = 10_000


class RateLimit:
    """A token bucket for each client: `burst` requests at once, and `rate` more per second.

    Memory is bounded: only the last `MAX_CLIENTS` clients are remembered.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, now: float) -> float:
        """0 if the request may pass, else the seconds until the next one may.

        `now` is in seconds, of a monotonic clock.
        """
        left, then = self._buckets.pop(client, (float(self._burst), now))
        left = min(self._burst, left + (now - then) * self._rate)
        wait = 0.0 if left >= 1 else (1 - left) / self._rate
        self._buckets[client] = (left if wait else left - 1, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return wait


class Gate:
    """ASGI middleware: 401 without a valid credential, 403 for another site's page, 429 for too
    many requests."""

    def __init__(
        self, app: ASGIApp, access: Access, limit: RateLimit | None, origins: Container[str]
    ) -> None:
        """`origins` are the other sites whose pages may send requests that change something."""
        self._app = app
        self._access = access
        self._limit = limit
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        try:
            scope[CALLER] = await self._check(scope)
        except Problem as problem:
            await self._refusal(problem, scope)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _check(self, scope: Scope) -> str:
        """The caller's name, or the client's address where access is open."""
        headers = Headers(scope=scope)
        if scope["method"] not in SAFE_METHODS and not self._same_site(headers):
            raise Problem(
                HTTPStatus.FORBIDDEN,
                f"Pages from {headers['origin']} may not send this request; see CORS_ORIGINS.",
            )
        address = client_address(scope)
        if not self._access.open and scope["path"] in sign_in.PATHS:
            self._count(address)
            return address
        try:
            caller = await self._access.identify(credentials(headers))
        except Denied as error:
            # Attempts with wrong credentials count, too.
            self._count(address)
            problem = problems.problem_of(error)
            if self._access.takes_keys and not sign_in.is_browser(headers):
                problem.headers["WWW-Authenticate"] += f", {problems.BASIC}"
            raise problem from error
        except Unavailable as error:
            self._count(address)
            raise problems.problem_of(error) from error
        name = caller.name if caller else address
        # The page loads many small files, and does not work if one of them is refused.
        if not scope["path"].startswith("/web/"):
            self._count(name)
        return name

    def _refusal(self, problem: Problem, scope: Scope) -> Response:
        unknown = problem.status == HTTPStatus.UNAUTHORIZED
        if unknown and sign_in.wants_form(scope["method"], Headers(scope=scope)):
            url = URL(scope=scope)
            then = f"{url.path}?{url.query}" if url.query else url.path
            challenge = problem.headers["WWW-Authenticate"]
            return sign_in.form(then, problem.status, challenge=challenge)
        return problems.response(problem)

    def _same_site(self, headers: Headers) -> bool:
        """Whether the request comes from our own page, from an allowed one, or from no page.

        A browser sends `Origin` with everything that a page posts. Without this check, any page in
        a user's browser could post a form to an open gateway on the user's machine.
        """
        origin = headers.get("origin")
        if origin is None or origin in self._origins or "*" in self._origins:
            return True
        return bool(origin != "null" and urlsplit(origin).netloc == headers.get("host"))

    def _count(self, client: str) -> None:
        if self._limit is None:
            return
        wait = self._limit.take(client, time.monotonic())
        if wait > 0:
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"Too many requests; try again in {wait:.1f} s.",
                headers={"Retry-After": str(math.ceil(wait))},
            )


def caller_of(scope: Scope) -> str | None:
    """Who sent this request, as the gate identified it; None if the gate did not see it."""
    caller: str | None = scope.get(CALLER)
    return caller


def client_address(scope: Scope) -> str:
    """The client's address; for IPv6 its /64 network, as one client may use all of it."""
    return _network(scope["client"][0] if scope.get("client") else "unknown")


@functools.lru_cache(1024)
def _network(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 6:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
