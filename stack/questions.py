"""Short questions to servers, with the standard library alone.

For commands that ask once and end: importing a client takes longer than its answer. Every function
waits until a deadline and reports a server that does not answer as a result, not as an error.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import struct
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

SECONDS: Final = 2.0
"""Time limit of a question that any server answers at once."""

_METADATA, _VERSION = 3, 1
KAFKA_PORT: Final = 9092
"""The port of an address that names none, as for the client."""
_CLIENT: Final = b"image-search"
_LARGEST: Final = 64 * 1024 * 1024


class NoAnswer(Exception):
    """The server did not answer as expected; the message says why."""


def credentials() -> dict[str, str]:
    """The header with the key of `API_KEY`, or the first one of `API_KEYS`; empty without one."""
    keys = [
        os.environ.get("API_KEY", ""),
        *os.environ.get("API_KEYS", "").replace(",", " ").split(),
    ]
    return next(({"X-API-Key": key} for key in keys if key), {})


def ask(
    url: str,
    seconds: float,
    headers: Mapping[str, str] | None = None,
    body: object = None,
) -> tuple[int, bytes]:
    """The status and the body of a GET, or of a POST of JSON if there is a body.

    Raises:
        NoAnswer: the server cannot be reached, or is too slow.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
    sent, given = None, dict(headers or {})
    if body is not None:
        sent, given["Content-Type"] = json.dumps(body).encode(), "application/json"
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=seconds)
        try:
            connection.request("GET" if sent is None else "POST", path, sent, given)
            answer = connection.getresponse()
            return answer.status, answer.read(_LARGEST)
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise NoAnswer(said) from error


async def get_json(
    url: str, seconds: float = SECONDS, headers: Mapping[str, str] | None = None
) -> tuple[int, Any]:
    """The status of a GET, and its body as JSON; None for a body that is none.

    Raises:
        NoAnswer: the server cannot be reached, or is too slow.
    """
    # A thread, which ends by the same deadline, since the standard library's client blocks.
    return await asyncio.to_thread(_get, url, seconds, dict(headers or {}))


def _get(url: str, seconds: float, headers: dict[str, str]) -> tuple[int, Any]:
    status, body = ask(url, seconds, headers)
    try:
        return status, json.loads(body)
    except ValueError:
        return status, None


async def http_answers(url: str) -> bool:
    """Whether a GET of this URL succeeds."""
    try:
        status, _ = await get_json(url)
    except NoAnswer:
        return False
    return 200 <= status < 300


async def kafka_answers(bootstrap_servers: str) -> bool:
    """Whether one of the brokers, `host:port` separated by commas, lists the cluster's brokers."""
    brokers = [each.strip() for each in bootstrap_servers.split(",") if each.strip()]
    return any(await asyncio.gather(*map(_broker_answers, brokers)))


async def _broker_answers(broker: str) -> bool:
    try:
        address = urlsplit(f"//{broker}")
        host, port = address.hostname or "", address.port or KAFKA_PORT
        async with asyncio.timeout(SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(_metadata_request())
                await writer.drain()
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                # A correlation id, then the number of brokers.
                answer = await reader.readexactly(8) if size >= 8 else b"\0" * 8
            finally:
                writer.close()
    except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError):
        return False
    _, count = struct.unpack(">ii", answer)
    return bool(count > 0)


def _metadata_request() -> bytes:
    """Kafka's request for the brokers, and for no topic (Metadata, version 1)."""
    header = struct.pack(">hhih", _METADATA, _VERSION, 1, len(_CLIENT)) + _CLIENT
    request = header + struct.pack(">i", 0)
    return struct.pack(">i", len(request)) + request
