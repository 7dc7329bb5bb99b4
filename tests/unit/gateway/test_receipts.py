"""Receipts: what is signed comes back, and nothing else gets through."""

import base64
import json
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import pytest

from gateway.auth.receipts import (
    ALGORITHM,
    AUDIENCE,
    ISSUER,
    REQUIRED,
    Receipt,
    Receipts,
    load_or_create_secret,
)
from gateway.errors import InvalidReceipt

SECRET = "a secret of at least thirty-two bytes"
OTHER = "another secret of at least thirty-two"


@pytest.fixture
def receipts() -> Receipts:
    return Receipts(SECRET, lifetime_seconds=3600)


def receipt(**changes: Any) -> Receipt:
    values: dict[str, Any] = {
        "search_id": uuid4(),
        "text": "tennis 🎾",
        "model_name": "lite",
        "top_image": "a/b.jpg",
        "top_score": 0.5,
        "issued_at": datetime.now(UTC).replace(microsecond=0),
        **changes,
    }
    return Receipt(**values)


def claims(**changes: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    values = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "iat": now,
        "exp": now + timedelta(hours=1),
        "jti": str(uuid4()),
        "text": "tennis",
        "model_name": "lite",
        "image_name": "a.jpg",
        "score": 0.5,
        **changes,
    }
    return {name: value for name, value in values.items() if value is not None}


def signed(secret: str = SECRET, *, algorithm: str = ALGORITHM, **changes: Any) -> str:
    return jwt.encode(claims(**changes), secret, algorithm=algorithm)


def test_a_receipt_comes_back_as_it_was(receipts: Receipts) -> None:
    for issued in (receipt(), receipt(top_image=None, top_score=None)):
        assert receipts.check(receipts.sign(issued)) == issued


def test_a_receipt_lasts_as_long_as_it_should(receipts: Receipts) -> None:
    payload = jwt.decode(receipts.sign(receipt()), options={"verify_signature": False})
    assert payload["exp"] - payload["iat"] == 3600


def test_a_well_made_token_passes(receipts: Receipts) -> None:
    assert receipts.check(signed()).text == "tennis"


def tampered() -> str:
    head, body, signature = signed().split(".")
    payload = json.loads(base64.urlsafe_b64decode(body + "=="))
    payload["model_name"] = "better"
    changed = base64.urlsafe_b64encode(json.dumps(payload).encode()).rstrip(b"=").decode()
    return f"{head}.{changed}.{signature}"


def unsigned() -> str:
    return jwt.encode(claims(), "", algorithm="none")


def without(name: str) -> str:
    changes: dict[str, Any] = {name: None}
    return signed(**changes)


FORGED: dict[str, Callable[[], str]] = {
    "no signature": unsigned,
    "no signature, claiming ours": lambda: signed().rsplit(".", 1)[0] + ".",
    "another algorithm": lambda: signed(algorithm="HS384"),
    "another key": lambda: signed(OTHER),
    "tampered": tampered,
    "expired": lambda: signed(exp=datetime.now(UTC) - timedelta(seconds=5)),
    "issued in the future": lambda: signed(iat=datetime.now(UTC) + timedelta(hours=1)),
    "another audience": lambda: signed(aud="somebody-else"),
    "another issuer": lambda: signed(iss="somebody-else"),
    "an id that is none": lambda: signed(jti="7"),
    "garbage": lambda: "not.a.token",
    "empty parts": lambda: "..",
    "no dots": lambda: "x" * 40,
    **{f"without {name}": partial(without, name) for name in REQUIRED},
}


@pytest.mark.parametrize("kind", sorted(FORGED))
def test_a_forged_token_is_refused(receipts: Receipts, kind: str) -> None:
    with pytest.raises(InvalidReceipt):
        receipts.check(FORGED[kind]())


def test_an_expired_receipt_is_reported(receipts: Receipts) -> None:
    with pytest.raises(InvalidReceipt, match="expired"):
        receipts.check(FORGED["expired"]())


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Receipts("short", lifetime_seconds=1)


def test_the_secret_is_created_once_with_private_permissions(tmp_path: Path) -> None:
    file = tmp_path / "state" / "jwt.secret"
    with ThreadPoolExecutor(16) as pool:
        secrets = set(pool.map(lambda _: load_or_create_secret(file), range(64)))
    assert len(secrets) == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]
    Receipts(secrets.pop(), lifetime_seconds=1)
