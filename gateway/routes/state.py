"""How the system is: pictures indexed, waiting and failed; and the dead letters with reasons."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Container, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Generic, TypeVar

from fastapi import FastAPI, Query
from pydantic import BaseModel, Field

from adapters.errors import Unavailable
from adapters.index.port import Collection, ImageIndex
from adapters.log.port import EventLog
from adapters.watcher_status import skipped_counts
from gateway.open_dead_letters import NewestLetters, OpenLetter
from gateway.search.service import Search
from gateway.single_flight import Shared

T = TypeVar("T")
Backlog = Callable[[Collection], Awaitable[int]]
"""How many records of `images` the indexing of a collection has still to read."""

KEPT_SECONDS = 2.0
KEPT_TIMES_ITS_COST = 10.0
"""An answer that took long is kept for ten times that: however many ask, a tenth of the time."""
LONGEST_SECONDS = 300.0
"""After which a reading that does not end is given up."""
MOST_LETTERS = 1000
"""In one answer."""


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
    skipped: Annotated[
        int,
        Field(
            description="Files and folders that the watcher passed over; `./image-search index "
            "skipped` lists them. Absent where it is not known."
        ),
    ] = 0
    skipped_reasons: Annotated[
        dict[str, int], Field(description="The same by reason, as `skipped` is.")
    ] = {}
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
    """An answer that is asked for once for all who want it, and kept for a moment.

    Whoever gives up takes nothing from the others: the reading goes on, for whoever comes next.
    """

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        self._ask = ask
        self._shared: Shared[None, T] = Shared(finish=True)
        self._answer: T | None = None
        self._until = 0.0

    async def get(self) -> T:
        """The answer; raises as asking does, and then asks again the next time."""
        if self._answer is not None and time.monotonic() < self._until:
            return self._answer
        return await self._shared.get(None, self._renew)

    async def _renew(self) -> T:
        started = time.monotonic()
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                answer = await self._ask()
        except TimeoutError as error:
            raise Unavailable(f"no answer within {LONGEST_SECONDS:g} s") from error
        ended = time.monotonic()
        self._answer = answer
        self._until = ended + max(KEPT_SECONDS, (ended - started) * KEPT_TIMES_ITS_COST)
        return answer


@dataclass(frozen=True, slots=True)
class _Failed:
    letters: Sequence[OpenLetter]
    ids: Container[str]


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
        watcher_status_file: Path | None = None,
    ) -> None:
        self._watcher = watcher_status_file
        self._search = search
        self._index = index
        self._backlog = backlog
        self._uploads = uploads
        self._max_upload_bytes = max_upload_bytes
        self._open = NewestLetters(log)
        self._pages: Shared[tuple[int, int], DeadLettersResponse] = Shared()
        self._failed = Kept(self._read)
        self._state = Kept(self._look)

    async def state(self) -> StateBody:
        """How the system is; up to some seconds old.

        Raises:
            Unavailable: a server does not answer.
        """
        return await self._state.get()

    async def letters(self, limit: int, skip: int = 0) -> DeadLettersResponse:
        """Open letters, newest first, but for `skip` of them; raises as `state`."""
        return await self._pages.get((limit, skip), lambda: self._page(limit, skip))

    async def failed_images(self) -> Container[str]:
        """Ids of the pictures with an open letter; up to some seconds old, raises as `state`."""
        return (await self._failed.get()).ids

    async def _page(self, limit: int, skip: int) -> DeadLettersResponse:
        letters = (await self._failed.get()).letters
        return DeadLettersResponse(
            total=len(letters),
            letters=[
                DeadLetterBody(
                    letter=letter.name,
                    image_name=letter.image_id,
                    error_class=reason.error_class,
                    reason=reason.text,
                    attempts=reason.attempts,
                    occurred_at=letter.occurred_at,
                )
                for letter, reason in await self._open.complete(letters[skip : skip + limit])
            ],
        )

    async def _read(self) -> _Failed:
        letters = await self._open.current()
        return _Failed(letters, frozenset(each.image_id for each in letters))

    async def _look(self) -> StateBody:
        collection = await self._search.active()
        images, failed = await asyncio.gather(self._index.count(collection), self._failed.get())
        passed = await asyncio.to_thread(skipped_counts, self._watcher) if self._watcher else None
        body = StateBody(
            model_name=collection.model_name,
            model_version=collection.model_version,
            collection=collection.name,
            images=images,
            waiting=await self._backlog(collection) if self._backlog else None,
            failed=len(failed.letters),
            uploads=self._uploads,
            max_upload_bytes=self._max_upload_bytes,
        )
        if passed is not None:
            body.skipped, body.skipped_reasons = sum(passed.values()), passed
        return body


def add_routes(app: FastAPI, state: State) -> None:
    """Add them."""

    @app.get(
        "/api/v1/state",
        tags=["health"],
        summary="Pictures indexed, waiting and failed",
        response_model_exclude_unset=True,
    )
    async def system_state() -> StateBody:
        return await state.state()

    @app.get("/api/v1/dead-letters", tags=["health"], summary="What could not be indexed, and why")
    async def dead_letters(
        limit: Annotated[int, Query(ge=1, le=MOST_LETTERS, description="At most so many.")] = 100,
        skip: Annotated[
            int, Query(ge=0, le=10**9, description="So many of the newest are left out.")
        ] = 0,
    ) -> DeadLettersResponse:
        return await state.letters(limit, skip)
