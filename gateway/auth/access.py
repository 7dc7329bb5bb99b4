"""Access control: API keys and OpenID Connect tokens. Without either, access is open.

A key comes as `X-API-Key`, as a bearer token, as the password of HTTP's basic authentication, or in
a cookie after signing in with a browser, which then sends it with its requests for images, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
import jwt
from jwt import PyJWKClient

from adapters.errors import Unavailable
from gateway.errors import Denied

ALGORITHMS: Final = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
)
"""Only asymmetric ones: with a symmetric one the issuer's public key could serve as a secret."""

LEEWAY_SECONDS: Final = 10
FETCH_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request carries to identify its sender; an empty string stands for none."""

    key: str = ""
    """Sent as an API key."""
    bearer: str = ""
    """Sent as a bearer token: an API key, or a token of the issuer."""
    password: str = ""
    """Sent as the password of basic authentication: an API key."""
    cookie: str = ""
    """Stored by the browser at signing in: an API key, or a token of the issuer."""


@dataclass(frozen=True, slots=True)
class Caller:
    """An identified caller, by a name that does not disclose the credential."""

    name: str


def key_name(key: str) -> str:
    """A name for an API key: the beginning of its digest, from which it cannot be recovered."""
    return f"key-{hashlib.sha256(key.encode('utf-8', 'replace')).hexdigest()[:12]}"


def subject_name(subject: str) -> str:
    """A name for the subject of a token, made in the same way."""
    return f"sub-{hashlib.sha256(subject.encode('utf-8', 'replace')).hexdigest()[:12]}"


class ApiKeys:
    """A fixed list of keys."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def find(self, key: str) -> Caller | None:
        """The caller with this key, or None. Takes equally long for valid and invalid keys."""
        digest = hashlib.sha256(key.encode("utf-8", "replace")).digest()
        matches = [hmac.compare_digest(digest, each) for each in self._digests]
        return Caller(key_name(key)) if any(matches) else None


class OpenIdConnect:
    """Tokens of one issuer, checked with the keys that it publishes (OpenID Connect Discovery)."""

    def __init__(self, issuer: str, audience: str) -> None:
        self._issuer = issuer
        self._audience = audience
        self._keys: PyJWKClient | None = None
        self._discovering = asyncio.Lock()

    async def check(self, token: str) -> Caller:
        """The caller with this token.

        Raises:
            Denied: it is not a token, has expired, or issuer, audience, key or algorithm is wrong.
            Unavailable: the issuer's keys cannot be fetched now.
        """
        keys = await self._discovered()
        try:
            key = await asyncio.to_thread(keys.get_signing_key_from_jwt, token)
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except jwt.PyJWKClientConnectionError as error:
            raise Unavailable(f"the keys of {self._issuer} cannot be fetched: {error}") from error
        except (jwt.PyJWTError, ValueError) as error:
            raise Denied(f"The token is not valid here: {error}.") from error
        return Caller(subject_name(str(claims["sub"])))

    async def _discovered(self) -> PyJWKClient:
        async with self._discovering:
            if self._keys is None:
                self._keys = PyJWKClient(await self._jwks_uri(), timeout=FETCH_SECONDS)
            return self._keys

    async def _jwks_uri(self) -> str:
        url = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
        try:
            async with httpx.AsyncClient(timeout=FETCH_SECONDS) as client:
                document = (await client.get(url)).raise_for_status().json()
            if document["issuer"] != self._issuer:
                raise Unavailable(f"{url} names another issuer: {document['issuer']!r}")
            return str(document["jwks_uri"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise Unavailable(f"the issuer {self._issuer} cannot be reached: {error}") from error


class Access:
    """Identifies the sender of a request by its credentials."""

    def __init__(self, keys: ApiKeys | None, tokens: OpenIdConnect | None) -> None:
        self._keys = keys
        self._tokens = tokens

    @property
    def open(self) -> bool:
        """Whether no credential is needed."""
        return self._keys is None and self._tokens is None

    @property
    def takes_keys(self) -> bool:
        """Whether an API key is a credential here."""
        return self._keys is not None

    async def identify(self, credentials: Credentials) -> Caller | None:
        """The caller; None where access is open.

        Raises:
            Denied: no credential is valid.
            Unavailable: the issuer does not answer.
        """
        if self.open:
            return None
        bearer, cookie = credentials.bearer, credentials.cookie
        candidates = [credentials.key, bearer, credentials.password, cookie]
        for candidate in filter(None, candidates):
            if self._keys is not None and (caller := self._keys.find(candidate)) is not None:
                return caller
        if self._tokens is not None and (token := bearer or cookie):
            return await self._tokens.check(token)
        raise Denied(
            "The key is not valid." if any(candidates) else "A key or a token is required."
        )
