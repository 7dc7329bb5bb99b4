"""Credentials in a request's headers."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from starlette.datastructures import Headers

from gateway.auth.access import Credentials

COOKIE: Final = "image_search_key"
"""Holds the key or token, in Base64, after signing in with a browser."""


def credentials(headers: Headers) -> Credentials:
    """The credentials in these headers; whether they are valid is not checked."""
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    return Credentials(
        key=headers.get("x-api-key", ""),
        bearer=rest.strip() if scheme.lower() == "bearer" else "",
        password=_password(rest) if scheme.lower() == "basic" else "",
        cookie=cookie_credential(headers),
    )


def cookie_credential(headers: Headers) -> str:
    """The key or token in the request's cookie, decoded; empty without one."""
    # Other applications on this host set cookies, too. The standard library's parser stops at the
    # first one that is malformed, so the header is split here.
    for header in headers.getlist("cookie"):
        for pair in header.split(";"):
            name, _, value = pair.strip().partition("=")
            if name.strip() == COOKIE:
                return _decode(value.strip().strip('"'))
    return ""


def _decode(value: str) -> str:
    try:
        return base64.urlsafe_b64decode(value).decode()
    except (binascii.Error, ValueError):
        return ""


def _password(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return ""
