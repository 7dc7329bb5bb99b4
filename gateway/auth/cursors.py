"""Where the next page of a search starts, as a signed text that fits that search alone."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

import jwt

from adapters.errors import Rejected
from gateway.auth.receipts import Compact

ALGORITHM: Final = "HS256"
AUDIENCE: Final = "image-search/cursor"
ISSUER: Final = "image-search"


class BadCursor(Rejected):
    """Not a cursor of ours, or one of another search."""


def fingerprint(*parts: object) -> str:
    """What identifies a question: equal for equal parts, whatever their order in the request."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Cursors:
    """Signs and checks cursors (JSON Web Tokens, as receipts are, for another audience)."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def sign(self, question: str, position: int | str) -> str:
        """A cursor to `position` in the answer to the question with this fingerprint."""
        claims = {"iss": ISSUER, "aud": AUDIENCE, "q": question, "at": position}
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM, json_encoder=Compact)

    def check(self, cursor: str, question: str) -> Any:
        """The position in a cursor.

        Raises:
            BadCursor: it was not signed here, or for another question.
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
            raise BadCursor("not a cursor that this gateway gave") from error
        if claims["q"] != question:
            raise BadCursor(
                "the cursor belongs to another search, or the model was changed since: "
                "start again without it"
            )
        return claims["at"]
