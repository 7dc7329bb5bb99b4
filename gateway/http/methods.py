"""The methods of a path: HEAD wherever GET is, and all of them in `Allow` (RFC 9110)."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Final

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def add_head(router: APIRouter) -> None:
    """Answer HEAD like GET on all routes of this router; the server sends no body.

    These routes are not in the OpenAPI document, which would only repeat what it says of GET.
    """
    for route in list(router.routes):
        if isinstance(route, APIRoute) and "GET" in (route.methods or ()):
            head = copy.copy(route)
            head.methods, head.include_in_schema = {"HEAD"}, False
            router.routes.append(head)


def allowed(routes: Iterable[BaseRoute], scope: Scope) -> list[str]:
    """The methods that some route answers at the path of this request."""
    every = list(routes)
    return [
        method
        for method in METHODS
        if any(each.matches({**scope, "method": method})[0] is Match.FULL for each in every)
    ]
