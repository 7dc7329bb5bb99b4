"""The receipt of a search: a JSON Web Token (RFC 7519), signed with HMAC-SHA-256."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import jwt

from adapters.settings import BadSettings
from gateway.errors import InvalidReceipt
from gateway.settings import MINIMUM_SECRET_BYTES, GatewaySettings

ALGORITHM: Final = "HS256"
ISSUER: Final = "image-search"
AUDIENCE: Final = "image-search/feedback"
REQUIRED: Final = ("exp", "iat", "aud", "iss", "jti", "text", "model_name")
OTHER_CLAIMS_BYTES: Final = 2_000
"""Header, signature and the claims that hold no text of a user, with a margin."""


class CompactEncoder(json.JSONEncoder):
    """Encodes claims as UTF-8; escapes would take three times as many bytes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "ensure_ascii": False})


def longest_token(characters: int) -> int:
    """An upper bound on the bytes of a token whose claims hold `characters` characters of text.

    JSON writes a character in at most 6 bytes, and Base64 makes 4 bytes of 3.
    """
    return 4 * (6 * characters + OTHER_CLAIMS_BYTES) // 3


@dataclass(frozen=True, slots=True)
class Receipt:
    """A search and its first match."""

    search_id: UUID
    text: str
    model_name: str
    top_image: str | None
    top_score: float | None
    issued_at: datetime


class Receipts:
    """Signs and checks receipts."""

    def __init__(self, secret: str, *, lifetime_seconds: float) -> None:
        if len(secret.encode()) < MINIMUM_SECRET_BYTES:
            raise ValueError(f"the secret must have at least {MINIMUM_SECRET_BYTES} bytes")
        self._secret = secret
        self._lifetime = timedelta(seconds=lifetime_seconds)

    def sign(self, receipt: Receipt) -> str:
        """The receipt as a compact JWT."""
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "iat": receipt.issued_at,
            "exp": receipt.issued_at + self._lifetime,
            "jti": str(receipt.search_id),
            "text": receipt.text,
            "model_name": receipt.model_name,
            "image_name": receipt.top_image,
            "score": receipt.top_score,
        }
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM, json_encoder=CompactEncoder)

    def check(self, token: str) -> Receipt:
        """The receipt in a token.

        Raises:
            InvalidReceipt: bad signature or form, another algorithm, issuer or audience, expired,
                or a claim is missing.
        """
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={"require": list(REQUIRED)},
            )
            return Receipt(
                search_id=UUID(claims["jti"]),
                text=str(claims["text"]),
                model_name=str(claims["model_name"]),
                top_image=claims.get("image_name"),
                top_score=claims.get("score"),
                issued_at=datetime.fromtimestamp(claims["iat"], UTC),
            )
        except jwt.ExpiredSignatureError as error:
            raise InvalidReceipt("The receipt has expired.") from error
        except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError) as error:
            raise InvalidReceipt(f"The receipt is not valid: {error}.") from error


def receipt_secret(settings: GatewaySettings) -> str:
    """The secret of the settings, or else the one in the file.

    Raises:
        BadSettings: the file cannot be read or created, or what it holds is too short.
    """
    if settings.jwt_secret:
        return settings.jwt_secret.get_secret_value()
    file = settings.jwt_secret_file
    try:
        secret = load_or_create_secret(file)
    except (OSError, UnicodeError) as error:
        raise BadSettings(f"JWT_SECRET_FILE: {error}") from error
    if len(secret.encode()) < MINIMUM_SECRET_BYTES:
        raise BadSettings(
            f"JWT_SECRET_FILE: {file} must hold at least {MINIMUM_SECRET_BYTES} bytes"
        )
    return secret


def load_or_create_secret(file: Path) -> str:
    """The secret in `file`, created once with mode 0600.

    Several processes may start at once. A hard link never replaces a file, so all use the same
    secret.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        # mkstemp's files are private from their first byte.
        descriptor, name = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(descriptor, "w") as part:
            part.write(secrets.token_urlsafe(48))
        try:
            os.link(name, file)
        except FileExistsError:
            pass
        finally:
            Path(name).unlink()
    return file.read_text().strip()
