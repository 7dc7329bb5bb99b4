"""Signing in with a browser where a key or token is demanded: a form, and a cookie that holds it.

Pictures and links cannot carry a header, so what the form is given travels in a cookie: of this
browser session alone, out of reach of scripts, and not sent along by what pages of other sites do.
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
"""What nobody has to be signed in for."""


def is_browser(headers: Headers) -> bool:
    """Whether a browser asks, which would meet a challenge with a dialog of its own."""
    wants_page = "text/html" in headers.get("accept", "")
    return wants_page or "sec-fetch-mode" in headers or bool(cookie_credential(headers))


def wants_form(method: str, headers: Headers) -> bool:
    """Whether somebody opens a page, and can be shown the form in its place."""
    return method == "GET" and "text/html" in headers.get("accept", "")


def form(then: str, status: HTTPStatus, *, message: str = "", challenge: str = "") -> HTMLResponse:
    """The form, which goes on to the address `then` of this site."""
    text = (WEB / "sign-in.html").read_text(encoding="utf-8")
    text = text.replace("{{then}}", html.escape(then)).replace("{{message}}", html.escape(message))
    # Without a referrer a browser says that the form comes from `null`, as if from another site.
    headers = {**HEADERS, "Cache-Control": "no-store", "Referrer-Policy": "same-origin"}
    if challenge:
        headers["WWW-Authenticate"] = challenge
    return HTMLResponse(text, status_code=status, headers=headers)


def own_address(then: str) -> str:
    """`then` if it is an address of this site, else the page's."""
    # A browser takes `//host` and `/\\host` for other sites, and leaves out control characters.
    own = then.startswith("/") and then[1:2] not in ("/", "\\") and then.isprintable()
    return then if own else "/"
