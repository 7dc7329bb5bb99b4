"""Signing in with a browser where a key or token is required: the form, and when to show it.

Requests for images and links cannot carry a header, so the key is sent in a cookie: only for this
browser session, hidden from scripts, and not sent with requests of other sites' pages.
"""

from __future__ import annotations

import html
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse

from gateway.http.credentials import cookie_credential
from gateway.http.static import HEADERS, WEB

PATH: Final = "/sign-in"
FILES: Final = {f"{PATH}.css": WEB / "style.css", f"{PATH}.svg": WEB / "icon.svg"}
PATHS: Final = (PATH, *FILES)
"""Paths that are open without signing in."""


def is_browser(headers: Headers) -> bool:
    """Whether a browser sent this, which would answer a challenge with its own dialog."""
    wants_page = "text/html" in headers.get("accept", "")
    return wants_page or "sec-fetch-mode" in headers or bool(cookie_credential(headers))


def wants_form(method: str, headers: Headers) -> bool:
    """Whether a browser is opening a page, so that the form can be shown instead."""
    return method == "GET" and "text/html" in headers.get("accept", "")


def form(then: str, status: HTTPStatus, *, message: str = "", challenge: str = "") -> HTMLResponse:
    """The form; after signing in it redirects to the address `then` of this site."""
    text = (WEB / "sign-in.html").read_text(encoding="utf-8")
    text = text.replace("{{then}}", html.escape(then)).replace("{{message}}", html.escape(message))
    # With no referrer at all a browser would send `Origin: null`, as if from another site.
    headers = {**HEADERS, "Cache-Control": "no-store", "Referrer-Policy": "same-origin"}
    if challenge:
        headers["WWW-Authenticate"] = challenge
    return HTMLResponse(text, status_code=status, headers=headers)


def own_address(then: str) -> str:
    """`then` if it is an address of this site, else that of the start page."""
    # Browsers treat `//host` and `/\\host` as other sites, and strip control characters.
    own = then.startswith("/") and then[1:2] not in ("/", "\\") and then.isprintable()
    return then if own else "/"
