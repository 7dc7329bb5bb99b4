"""The page on a gateway without servers, whose pictures and backlog a test changes."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from adapters.embedder.spec import ModelSpec
from adapters.index.port import Collection
from gateway import ttl_cache
from tests.support.gateway_on_fakes import WHEN, Gateway, gateway, image_record, png, served, unit


@dataclass
class Bench:
    """A gateway whose pictures and backlog the tests change."""

    gateway: Gateway
    url: str = ""
    waiting: list[int] = field(default_factory=lambda: [0])

    async def add(self, *names: str, minute: int = 0) -> None:
        """Index pictures of these names, each a minute after the one before."""
        records = []
        for number, name in enumerate(names, minute):
            content = png(f"#{number % 256:02x}8040")
            path = self.gateway.images / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            records.append(
                image_record(
                    name,
                    unit(1, number),
                    sha256=hashlib.sha256(content).hexdigest(),
                    media_type="image/png",
                    added_at=WHEN + timedelta(minutes=number),
                )
            )
        await self.gateway.index.upsert(self.gateway.collection, records)


@asynccontextmanager
async def first_screen(
    folder: Path, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> AsyncIterator[Bench]:
    """A gateway that a browser can reach, and which answers from no cache."""
    monkeypatch.setattr(ttl_cache, "TTL_SECONDS", 0.0)
    monkeypatch.setattr(ttl_cache, "TTL_PER_COST", 0.0)
    waiting = [0]

    async def backlog(_: Collection) -> int:
        return waiting[0]

    thumbnails = folder / "thumbnails"
    async with (
        gateway(folder, spec, backlog=backlog, thumbnails_dir=thumbnails, **settings) as running,
        served(running.app) as url,
    ):
        yield Bench(running, url, waiting)


async def newest(page: Page) -> list[str]:
    """The names of the pictures on the first screen, in order."""
    labels = await page.locator("#newest .open").evaluate_all(
        "all => all.map((each) => each.getAttribute('aria-label'))"
    )
    return [label.removeprefix("Open ") for label in labels]


async def shows(page: Page, names: Sequence[str]) -> None:
    """Wait until the first screen shows these pictures, in this order."""
    await expect(page.locator("#newest .open")).to_have_count(len(names))
    await expect(page.locator("#newest .open").first).to_have_attribute(
        "aria-label", f"Open {names[0]}"
    )
    assert await newest(page) == list(names)
