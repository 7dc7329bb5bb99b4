"""What events contain about the people who search and rate."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any, Final, TypeVar

from gateway.auth.access import key_name, subject_name
from gateway.settings import GatewaySettings
from schemas.events import FeedbackGiven, SearchPerformed

E = TypeVar("E", SearchPerformed, FeedbackGiven)

DIGITS: Final = 20
"""Hexadecimal digits of a client's name in events: 80 bits."""


class Privacy:
    """Pseudonyms for clients, and texts only where the settings allow them.

    A name is HMAC-SHA-256 (RFC 2104) of the address, or of the key's or token's name, under the
    salt: the same client has the same name, without the salt it cannot be traced back, and with a
    new salt all names change.
    """

    def __init__(self, settings: GatewaySettings, secret: str) -> None:
        """`secret` signs receipts; the salt is derived from it where `CLIENT_SALT` is not set."""
        salt = settings.client_salt.get_secret_value() if settings.client_salt else ""
        self._salt = salt.encode() or _digest(secret.encode(), "client salt").digest()
        self._texts = settings.log_texts
        self._clients = settings.log_clients

    def client(self, caller: str | None) -> str | None:
        """The name in events of a request's sender; None if unknown or not to be recorded.

        `caller` is the sender as the gate identified it.
        """
        return self.name(caller) if self._clients and caller is not None else None

    def name(self, caller: str) -> str:
        """The name in events of an address, or of a caller as the gate identified it."""
        return _digest(self._salt, caller).hexdigest()[:DIGITS]

    def names(self, who: str) -> frozenset[str]:
        """All names that an address, an API key or a token's subject can have in events."""
        return frozenset(self.name(each) for each in (who, key_name(who), subject_name(who)))

    def recorded(self, event: E, client: str | None) -> E:
        """The event as the settings allow it to be stored, with this client's name."""
        changes: dict[str, Any] = {"client": client}
        if not self._texts:
            changes["text"] = None
        return event.model_copy(update=changes)


def _digest(key: bytes, message: str) -> hmac.HMAC:
    return hmac.new(key, message.encode("utf-8", "replace"), hashlib.sha256)
