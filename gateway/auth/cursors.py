"""Cursors: the start of a search's next page, signed, and valid for that search only."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

import jwt

from gateway.auth.receipts import CompactEncoder
from gateway.errors import InvalidField

ALGORITHM: Final = "HS256"
AUDIENCE: Final = "image-search/cursor"
ISSUER: Final = "image-search"


def fingerprint(*parts: object) -> str:
    """A digest that identifies a search: equal for equal parts."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Cursors:
    """Signs and checks cursors (JSON Web Tokens like receipts, but for another audience)."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def sign(self, question: str, position: int | str) -> str:
        """A cursor to `position` in the answer to the search with this fingerprint."""
        claims = {"iss": ISSUER, "aud": AUDIENCE, "q": question, "at": position}
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM, json_encoder=CompactEncoder)

    def check(self, cursor: str, question: str) -> Any:
        """The position in a cursor.

        Raises:
            InvalidField: it was not signed here, or for another search.
        """
        try:
            claims = jwt.decode(
                cursor,
                self._secret,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={"require": ["aud", "iss", "q", "at"]},
            )
        except jwt.InvalidTokenError as error:
            raise InvalidField("cursor", "not a cursor of this gateway") from error
        if claims["q"] != question:
            raise InvalidField(
                "cursor",
                "the cursor belongs to another search, or the model has changed since: "
                "start again without it",
            )
        return claims["at"]
