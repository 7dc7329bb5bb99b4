"""What arbitrary bytes may do: be understood, or be refused by the error that the callers expect.

A target takes bytes and returns; any exception that leaves it is a finding. `tests/fuzz/run.py`
searches for findings; `tests/fuzz/test_seeds.py` runs all that was ever found through the targets.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from fastapi import FastAPI

from adapters.embedder.spec import ModelSpec
from adapters.errors import Rejected
from gateway.search.filters import Filters
from gateway.search.short_form import BadShortForm, parse
from imaging.decode import decode as decode_image
from imaging.media_types import sniff_media_type
from imaging.metadata.capture_time import OLDEST
from imaging.metadata.coordinates import known_coordinates
from imaging.thumbnail import check, thumbnail
from schemas.codec import InvalidEvent, decode, decode_image_change, decode_key, encode
from schemas.events import Event
from schemas.topics import TOPICS
from tests.support.gateway_on_fakes import Gateway, gateway

SPEC: Final = ModelSpec(
    name="small",
    version="0123456789ab",
    dimension=8,
    width=16,
    height=16,
    resize_mode="stretch",
    licence="Apache-2.0",
)
MAX_PIXELS: Final = 4_000_000
"""Small, so that a fuzzer spends its time on parsing rather than on large surfaces."""


class Finding(Exception):
    """A result that must never occur."""


def pictures(data: bytes) -> None:
    """The decoders, with the bytes of an image by every path."""
    sniff_media_type(data[:64])
    for use in (
        lambda: decode_image(data, SPEC, max_pixels=MAX_PIXELS),
        lambda: check(data, max_pixels=MAX_PIXELS),
        lambda: thumbnail(data, edge=128, max_pixels=MAX_PIXELS),
    ):
        with suppress(Rejected):
            use()


def facts(data: bytes) -> bool:
    """The facts of an image are possible; returns whether it is one."""
    try:
        image = decode_image(data, SPEC, max_pixels=MAX_PIXELS)
    except Rejected:
        return False
    taken, camera = image.taken_at, image.camera
    if taken is not None and not OLDEST <= taken <= datetime.now(UTC) + timedelta(days=2):
        raise Finding(f"taken at {taken}")
    if camera is not None and Filters(camera=camera).where().camera != camera:
        raise Finding(f"a camera that no filter finds: {camera!r}")
    where = (image.latitude, image.longitude)
    if where != (None, None) and known_coordinates(*where) != where:
        raise Finding(f"taken at {where}")
    return True


def grammar(data: bytes) -> None:
    """The short form of a query."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        parts = parse(text)
    except BadShortForm:
        return
    if not parts or any(not part.text and not part.path for part in parts):
        raise Finding(f"{text!r} was read as {parts}")


def codec(data: bytes) -> None:
    """Records of every topic; the key is what stands before the first NUL."""
    key, _, value = data.partition(b"\0")
    for topic in TOPICS:
        try:
            event = decode(topic.event, value)
        except InvalidEvent:
            continue
        again: Event = decode(topic.event, encode(event))
        if again != event:
            raise Finding(f"{event} comes back as {again}")
    for use in (
        lambda: decode_key(key),
        lambda: decode_image_change(key, value),
        lambda: decode_image_change(key, None),
    ):
        with suppress(InvalidEvent):
            use()


def http(data: bytes) -> None:
    """The gateway's whole API.

    The bytes are a request as it stands on the wire: `METHOD target`, header lines, an empty line,
    and the body.
    """
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    method, _, target = first.partition(b" ")
    if not target.startswith(b"/") or not method.isalpha() or not target.isascii():
        return  # The HTTP server in front refuses it.
    headers = [(b"host", b"localhost"), (b"content-length", str(len(body)).encode())]
    for line in lines:
        name, colon, value = line.partition(b":")
        if colon and name.replace(b"-", b"").isalnum() and b"\r" not in value:
            headers.append((name.lower(), value.strip()))
    app = _gateway().app
    status, answer = _loop().run_until_complete(
        _request(app, method.decode("latin-1").upper(), target, headers, body)
    )
    if status >= 500 and status not in (503, 504):
        raise Finding(f"{status} to {data!r}: {answer[:500]!r}")
    if status >= 400 and method.upper() != b"HEAD" and answer:
        problem = json.loads(answer)
        if problem.get("status") != status:
            raise Finding(f"{status} to {data!r} without a problem document: {answer[:500]!r}")


async def _request(
    app: FastAPI,
    method: str,
    target: bytes,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
) -> tuple[int, bytes]:
    """Status and body of the answer to a request, sent as an ASGI server does."""
    raw_path, _, query = target.partition(b"?")
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(raw_path.decode("ascii")),
        "raw_path": raw_path,
        "root_path": "",
        "query_string": query,
        "headers": headers,
        "client": ("127.0.0.1", 40000),
        "server": ("127.0.0.1", 3000),
    }
    sent: list[dict[str, Any]] = []
    bodies = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if bodies:
            return bodies.pop()
        await asyncio.Event().wait()  # The client stays.
        raise AssertionError("unreachable")

    async def send(message: Any) -> None:
        sent.append(dict(message))

    await app(scope, receive, send)
    status = next(m["status"] for m in sent if m["type"] == "http.response.start")
    return status, b"".join(m.get("body", b"") for m in sent)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


@cache
def _gateway() -> Gateway:
    """On the in-memory servers, for the life of this process."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    stack = AsyncExitStack()
    return _loop().run_until_complete(
        stack.enter_async_context(gateway(folder, SPEC, rate_limit=0))
    )


TARGETS: Final[Mapping[str, Callable[[bytes], object]]] = {
    "pictures": pictures,
    "facts": facts,
    "grammar": grammar,
    "codec": codec,
    "http": http,
}
SEEDS: Final = Path(__file__).with_name("seeds")
"""A folder for each target; a file is one input."""
