"""A gateway on in-memory fakes, for tests of its answers."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI
from PIL import Image
from pydantic import SecretStr

from adapters.embedder.fake import FakeEmbedder
from adapters.embedder.spec import ModelSpec
from adapters.index.fake import FakeImageIndex
from adapters.index.port import Collection, ImageRecord
from adapters.log.fake import FakeEventLog
from gateway.app import create_app
from gateway.settings import GatewaySettings
from gateway.state.system_state import Backlog
from schemas.codec import decode
from schemas.events import SearchPerformed
from schemas.topics import SEARCHES
from stack.tcp_ports import free_ports

SEARCH = "/api/v1/search-image"
SECRET = "a secret of at least thirty-two bytes"
WHEN = datetime(2026, 1, 5, tzinfo=UTC)


@dataclass
class Gateway:
    """An application, a client of it, and its fakes."""

    app: FastAPI
    client: httpx.AsyncClient
    embedder: FakeEmbedder
    index: FakeImageIndex
    log: FakeEventLog
    collection: Collection
    images: Path

    async def search(self, **body: Any) -> httpx.Response:
        return await self.client.post(SEARCH, json=body)

    async def found(self, **body: Any) -> list[dict[str, Any]]:
        response = await self.search(**body)
        assert response.status_code == 200, response.text
        matches: list[dict[str, Any]] = response.json()["matches"]
        return matches

    async def names(self, **body: Any) -> list[str]:
        return [match["image_name"] for match in await self.found(**body)]

    async def holds(self, *names: str) -> None:
        """Add images of these names to the index, with or without files."""
        await self.index.upsert(self.collection, [image_record(name, unit(1)) for name in names])

    async def searches(self) -> list[SearchPerformed]:
        return [decode(SearchPerformed, r.value) async for r in self.log.read_all(SEARCHES)]


@asynccontextmanager
async def gateway(
    folder: Path, spec: ModelSpec, records: Sequence[ImageRecord] = (), **settings: Any
) -> AsyncIterator[Gateway]:
    """A running gateway whose active collection holds these records.

    `settings` may contain the `backlog` besides.
    """
    backlog: Backlog | None = settings.pop("backlog", None)
    embedder = FakeEmbedder(served={spec.name: spec})
    index, log = FakeImageIndex(), FakeEventLog()
    collection = await index.ensure_collection(spec)
    await index.upsert(collection, records)
    await index.activate(collection)
    images = folder / "images"
    images.mkdir(exist_ok=True)
    chosen = GatewaySettings(
        **{
            "jwt_secret": SecretStr(SECRET),
            "images_dir": images,
            "request_timeout": 60.0,
            "outage_patience": 0,
            **settings,
        }
    )
    app = create_app(chosen, embedder, index, log, backlog)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        yield Gateway(app, client, embedder, index, log, collection, images)


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """The address at which a browser reaches this running application."""
    (port,) = free_ports(1)
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, lifespan="off", log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:
            await asyncio.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving


def unit(*numbers: float, dimension: int = 8) -> list[float]:
    """A unit vector whose first components are proportional to these numbers."""
    vector = np.zeros(dimension)
    vector[: len(numbers)] = numbers
    return [float(number) for number in vector / np.linalg.norm(vector)]


def image_record(image_id: str, vector: Sequence[float], **more: Any) -> ImageRecord:
    """A record with default properties, except for those given."""
    properties: dict[str, Any] = {
        "uri": "file:///x",
        "sha256": "a" * 64,
        "media_type": "image/jpeg",
        "size_bytes": 1000,
        "width": 640,
        "height": 480,
        "modified_at": WHEN,
        "added_at": WHEN,
        **more,
    }
    return ImageRecord(image_id=image_id, vector=vector, **properties)


def png(colour: str = "green", size: tuple[int, int] = (30, 20)) -> bytes:
    """A PNG of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def assert_problem(response: httpx.Response, status: int, field: str | None = None) -> None:
    """The response is a problem document with this status, naming this field."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert (body["status"], bool(body["title"]), bool(body["detail"])) == (status, True, True)
    if field is not None:
        assert field in [error["field"] for error in body["errors"]], body
