"""How the system is: pictures indexed, waiting and failed; and the dead letters with reasons."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Container
from datetime import datetime
from typing import Annotated, Generic, TypeVar

from fastapi import FastAPI, Query
from pydantic import BaseModel, Field

from adapters.dead_letters import Letter, OpenLetters, without_record
from adapters.event_log import EventLog
from adapters.ports import Collection, ImageIndex
from gateway.search import Search

T = TypeVar("T")
Backlog = Callable[[Collection], Awaitable[int]]
"""How many records of `images` the indexing of a collection has still to read."""

KEPT_SECONDS = 2.0
KEPT_TIMES_ITS_COST = 10.0
"""An answer that took long is kept for ten times that: however many ask, a tenth of the time."""


class StateBody(BaseModel):
    """How the system is."""

    model_name: str
    model_version: str
    collection: str
    images: Annotated[int, Field(description="Pictures that searches are answered from.")]
    waiting: Annotated[
        int | None,
        Field(description="At most so many changes are not indexed yet; null if not known."),
    ]
    failed: Annotated[int, Field(description="Pictures with a dead letter that nobody settled.")]
    uploads: Annotated[bool, Field(description="Whether pictures may be added over HTTP.")]
    max_upload_bytes: int


class DeadLetterBody(BaseModel):
    """A picture that could not be indexed as it is, and why."""

    letter: Annotated[str, Field(description="What `./image-search dlq` calls it.")]
    image_name: str
    error_class: str
    reason: str
    attempts: int
    occurred_at: datetime


class DeadLettersResponse(BaseModel):
    """The newest letters that nobody settled, one for each picture, newest first."""

    total: int
    letters: list[DeadLetterBody]


class Kept(Generic[T]):
    """An answer that is asked for once for all who want it, and kept for a moment."""

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        self._ask = ask
        self._lock = asyncio.Lock()
        self._answer: T | None = None
        self._until = 0.0

    async def get(self) -> T:
        """The answer; raises as asking does, and then asks again the next time."""
        async with self._lock:
            started = time.monotonic()
            if self._answer is None or started >= self._until:
                self._answer = await self._ask()
                ended = time.monotonic()
                self._until = ended + max(KEPT_SECONDS, (ended - started) * KEPT_TIMES_ITS_COST)
            return self._answer


class State:
    """Asks the index and the log."""

    def __init__(
        self,
        search: Search,
        index: ImageIndex,
        log: EventLog,
        backlog: Backlog | None,
        *,
        uploads: bool,
        max_upload_bytes: int,
    ) -> None:
        self._search = search
        self._index = index
        self._backlog = backlog
        self._uploads = uploads
        self._max_upload_bytes = max_upload_bytes
        self._open = OpenLetters(log, without_record)
        self._letters = Kept(self._read)
        self._state = Kept(self._look)

    async def state(self) -> StateBody:
        """How the system is; up to some seconds old.

        Raises:
            Unavailable: a server does not answer.
        """
        return await self._state.get()

    async def letters(self, limit: int) -> DeadLettersResponse:
        """The newest open letters; up to some seconds old, raises as `state`."""
        letters = await self._letters.get()
        return DeadLettersResponse(
            total=len(letters),
            letters=[
                DeadLetterBody(
                    letter=letter.name,
                    image_name=letter.event.image_id,
                    error_class=letter.event.error_class,
                    reason=letter.event.reason,
                    attempts=letter.event.attempts,
                    occurred_at=letter.event.occurred_at,
                )
                for letter in letters[:limit]
            ],
        )

    async def failed_images(self) -> Container[str]:
        """Ids of the pictures with an open letter; up to some seconds old, raises as `state`."""
        return {letter.event.image_id for letter in await self._letters.get()}

    async def _read(self) -> list[Letter]:
        found = sorted(
            (await self._open.current()).values(), key=lambda each: each.event.occurred_at
        )
        newest = {each.event.image_id: each for each in found}
        return sorted(newest.values(), key=lambda each: each.event.occurred_at, reverse=True)

    async def _look(self) -> StateBody:
        collection = await self._search.active()
        images, letters = await asyncio.gather(self._index.count(collection), self._letters.get())
        return StateBody(
            model_name=collection.model_name,
            model_version=collection.model_version,
            collection=collection.name,
            images=images,
            waiting=await self._backlog(collection) if self._backlog else None,
            failed=len(letters),
            uploads=self._uploads,
            max_upload_bytes=self._max_upload_bytes,
        )


def add_routes(app: FastAPI, state: State) -> None:
    """Add them."""

    @app.get("/api/v1/state", tags=["health"], summary="Pictures indexed, waiting and failed")
    async def system_state() -> StateBody:
        return await state.state()

    @app.get("/api/v1/dead-letters", tags=["health"], summary="What could not be indexed, and why")
    async def dead_letters(
        limit: Annotated[int, Query(ge=1, le=1000, description="At most so many.")] = 100,
    ) -> DeadLettersResponse:
        return await state.letters(limit)
