"""The host names that this gateway answers to: a protection against DNS rebinding.

In DNS rebinding, a site makes its own name resolve to an address inside the visitor's network. To
the browser the gateway is then part of that site, and no rule about origins applies; only the
`Host` header differs. An address cannot be rebound, so every IP literal is accepted.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.http import problems
from gateway.http.problems import Problem

ANY: Final = "*"


class HostGuard:
    """ASGI middleware: answers 421 to a request for another host (RFC 9110, section 15.5.20)."""

    def __init__(self, app: ASGIApp, allowed: Sequence[str]) -> None:
        """`allowed`: names besides `localhost`, such as `photos.example`, `*.example`; `*`: any."""
        self._app = app
        self._any = ANY in allowed
        self._names = frozenset(name.lower().rstrip(".") for name in allowed if "*" not in name)
        self._endings = tuple(
            name.lower().rstrip(".").removeprefix("*") for name in allowed if name.startswith("*.")
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] in ("http", "websocket") and not self._any:
            hosts = [value for name, value in scope["headers"] if name == b"host"]
            problem = self._problem(hosts)
            if problem is not None:
                await problems.response(problem)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _problem(self, hosts: Sequence[bytes]) -> Problem | None:
        # A browser always sends one; a probe that speaks HTTP/1.0 may send none.
        if len(hosts) > 1:
            return Problem(HTTPStatus.BAD_REQUEST, "The request has more than one Host header.")
        if not hosts or self.answers_to(hosts[0].decode("latin-1")):
            return None
        shown = hosts[0].decode("ascii", "backslashreplace")[:255]
        return Problem(
            HTTPStatus.MISDIRECTED_REQUEST,
            f"This gateway does not answer to the host {shown!r}. Use its IP address, or name the "
            "host in the setting ALLOWED_HOSTS.",
        )

    def answers_to(self, host: str) -> bool:
        """Whether the value of a `Host` header names this gateway."""
        name = _without_port(host).lower().removesuffix(".")
        if name == "localhost" or name.endswith(".localhost") or name in self._names:
            return True
        return name.endswith(self._endings) or _is_address(name)


def _without_port(host: str) -> str:
    """The name or address of `name:port` and `[address]:port`; empty for what is neither."""
    if host.startswith("["):
        address, bracket, port = host[1:].partition("]")
        good = bool(bracket) and ":" in address and (not port or _is_port(port))
        return address if good else ""
    name, colon, port = host.partition(":")
    return name if not colon or _is_port(colon + port) else ""


def _is_port(text: str) -> bool:
    digits = text[1:]
    return text[0] == ":" and (not digits or (digits.isascii() and digits.isdecimal()))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
