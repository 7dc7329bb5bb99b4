"""Signing in with a browser: the form, and the files that it loads."""

from __future__ import annotations

import base64
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from starlette.datastructures import Headers
from starlette.responses import RedirectResponse

from gateway.auth.access import Access
from gateway.errors import Denied
from gateway.http.credentials import COOKIE, credentials
from gateway.http.sign_in import FILES, PATH, form, own_address
from gateway.http.static import add_file


def router(access: Access) -> APIRouter:
    """The routes, which are open without signing in."""
    routes = APIRouter(include_in_schema=False)

    @routes.get(PATH)
    async def sign_in(then: str = "/") -> Response:
        return form(own_address(then), HTTPStatus.OK)

    @routes.post(PATH)
    async def signed_in(
        request: Request,
        key: Annotated[str, Form(max_length=8000)],
        then: Annotated[str, Form(max_length=8000)] = "/",
    ) -> Response:
        given = key.strip()
        try:
            # A header can hold only Latin-1; no key or token has other characters.
            await access.identify(credentials(Headers({"authorization": f"Bearer {given}"})))
        except (Denied, UnicodeEncodeError):
            message = "This key is not valid, or has expired."
            return form(own_address(then), HTTPStatus.UNAUTHORIZED, message=message)
        answer = RedirectResponse(own_address(then), HTTPStatus.SEE_OTHER)
        answer.set_cookie(
            COOKIE,
            base64.urlsafe_b64encode(given.encode()).decode(),
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return answer

    for path, file in FILES.items():
        add_file(routes, path, file)
    return routes
