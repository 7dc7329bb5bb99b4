"""Moving searches to another model: fill its collection from the log, then flip the alias.

Each step can be repeated, so a switch that broke off anywhere is simply begun again: a model that
is loaded is not loaded anew, a collection that is there is kept, a consumer group goes on where it
stood. Until the alias moves, nothing that answers searches is touched.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from adapters.bootstrap import Connections
from adapters.errors import Unavailable
from adapters.index.port import Collection
from adapters.log.kafka_admin import Progress, delete_group, progress
from adapters.log.port import Message
from adapters.naming import collection_name
from adapters.provision import log_active
from adapters.retry import until_available
from models.registry import (
    ModelState,
    agree_with_alias,
    changing_state,
    load,
    store,
    unload,
)
from schemas.events import ModelActivated, ModelStep
from schemas.topics import IMAGES, MODELS
from stack.errors import StackError
from stack.preparation import Cache
from stack.processes import indexers
from stack.record import RecordFile, find
from stack.settings import StackSettings

POLL_SECONDS = 1.0
SERVERS_SECONDS = 120.0
INDEXERS_STOP_SECONDS = 90.0
GATEWAY_SECONDS = 3.0
"""A gateway trusts the alias it resolved for a second; then nobody asks the old collection."""


@dataclass(frozen=True, slots=True)
class Filling:
    """How far a candidate's collection is; `rate` in records a second, `left` in seconds."""

    done: int
    total: int
    rate: float
    left: float | None
    caught_up: bool
    problem: str = ""
    handled: Mapping[int, int] = field(default_factory=dict)
    """Partition -> end of what has certainly been handled, once it is caught up."""


class Switching:
    """The steps of a switch, on one stack."""

    def __init__(self, settings: StackSettings, servers: Connections, cache: Cache) -> None:
        self._settings = settings
        self._servers = servers
        self._cache = cache
        self._kafka = settings.environment()["KAFKA_BOOTSTRAP_SERVERS"]

    async def prepare(self, name: str) -> Collection:
        """Load the model, make its collection, and have indexers fill it from the log.

        Raises:
            StackError: there is no such model, it does not load, or no stack is running.
        """
        store(self._settings).repository(name)
        if not RecordFile(self._settings.run).launcher_runs():
            raise StackError("nothing is running here; start it with './image-search up'")
        state = await self._agreed()
        if name not in state.fed or not await self._servers.embedder.is_ready(name):
            await until_available(
                lambda: load(self._settings, name, self._cache), what="Triton", give_up_after=120
            )
        collection = await until_available(lambda: self._collection(name), what="servers")
        with changing_state(self._settings) as change:
            before = change.state
            candidate = None if name == before.active else name
            change.state = before.feeding(name).model_copy(update={"candidate": candidate})
        if change.state != before:
            await self._tell(ModelStep.FEEDING, collection, None)
        return collection

    async def _agreed(self) -> ModelState:
        """The state, after it and the log were told what the alias says: an earlier command may
        have been killed before it did that."""
        index, log = self._servers.index, self._servers.log
        state = await until_available(
            lambda: agree_with_alias(self._settings, index),
            what="Weaviate",
            give_up_after=SERVERS_SECONDS,
        )
        await until_available(
            lambda: log_active(index, log), what="Kafka", give_up_after=SERVERS_SECONDS
        )
        return state

    async def _collection(self, name: str) -> Collection:
        spec = await self._servers.embedder.spec(name)
        return await self._servers.index.ensure_collection(spec)

    def _known(self, name: str) -> Collection:
        """The model's collection as its files name it, whether or not Triton serves it."""
        spec = store(self._settings).spec(name)
        return Collection(collection_name(spec), spec.name, spec.version, spec.dimension)

    async def filling(self, collection: Collection) -> AsyncIterator[Filling]:
        """How far the collection is, once a second, until it has caught up with the log.

        Under steady load the lag is seldom zero at the moment of looking. Caught up is therefore:
        all that the log held at the look before has been handled.
        """
        started, first, before, group = time.monotonic(), None, None, ""
        while True:
            try:
                # One that was lost meanwhile is filled from the beginning, by a group of its own.
                now_there = await self._servers.index.find(collection.name) or collection
                if now_there.group != group:
                    started, first, before = time.monotonic(), None, None
                    group = now_there.group
                now = await progress(self._kafka, IMAGES, group)
            except Unavailable as error:
                yield Filling(0, 0, 0.0, None, False, str(error))
                await asyncio.sleep(POLL_SECONDS)
                continue
            first = now.lag if first is None else first
            caught_up = before is not None and _has_read(now, before)
            total = sum(now.ends.values())
            rate = max(0, first - now.lag) / max(1e-9, time.monotonic() - started)
            yield Filling(
                total - now.lag,
                total,
                rate,
                now.lag / rate if rate else None,
                caught_up,
                handled=before.ends if before is not None and caught_up else {},
            )
            if caught_up:
                return
            before = now
            await asyncio.sleep(POLL_SECONDS)

    async def flip(self, collection: Collection, step: ModelStep) -> None:
        """Let searches be answered from this collection, which must be of a fed model.

        Alias, state and log change one after the other. Whoever comes after a crash in between
        has state and log say what the alias says (`_agreed`, and provisioning as to the log).
        """
        await self._agreed()
        await until_available(lambda: self._moved(collection), what="Weaviate")
        await until_available(
            lambda: log_active(self._servers.index, self._servers.log, step), what="Kafka"
        )

    async def _moved(self, collection: Collection) -> None:
        # Both under the lock, so that nobody makes them agree in between.
        with changing_state(self._settings) as change:
            await self._servers.index.activate(collection)
            change.state = change.state.activated(collection.model_name)

    async def rollback(self, most_missing: float = 1.0) -> Collection:
        """Go back to the model that answered before; it was kept up to date, so this is instant.

        Raises:
            StackError: there is none to go back to, or its collection has so many fewer pictures
                than the active one that more than the share `most_missing` of them is lacking.
        """
        state = await self._agreed()
        previous = state.previous
        if previous is None or previous not in state.fed:
            raise StackError("there is no earlier model that is still kept up to date")
        known = self._known(previous)
        collection = await self._servers.index.find(known.name)
        if collection is None:
            raise StackError(f"the collection of {previous} is not there any more")
        index, active = self._servers.index, await self._servers.index.active()
        if active is not None:
            # Counted and not compared, as this is to be instant.
            there, here = await asyncio.gather(index.count(collection), index.count(active))
            if there < here * (1 - most_missing):
                raise StackError(
                    f"{collection.name} holds {there} pictures and {active.name} {here}: "
                    "more than --max-missing allows"
                )
        await self.flip(collection, ModelStep.ROLLED_BACK)
        return collection

    async def retire(self, name: str) -> None:
        """Stop feeding a model and free its collection, its group and its place in Triton.

        Raises:
            StackError: it answers searches, is not fed, or its indexers do not stop.
        """
        state = await self._agreed()
        active = await self._servers.index.active()
        if name == state.active or (active is not None and active.model_name == name):
            raise StackError(f"{name} answers searches; switch to another model first")
        if name not in state.fed and name != state.retiring:
            raise StackError(f"{name} is not served, so there is nothing to retire")
        known = self._known(name)
        collection = await self._servers.index.find(known.name) or known
        with changing_state(self._settings) as change:
            change.state = change.state.without(name)
        await self._indexers_stopped(name)
        await asyncio.sleep(GATEWAY_SECONDS)
        # The group goes first: offsets without a collection would hide the log from a successor.
        await until_available(
            lambda: delete_group(self._kafka, collection.group),
            what="Kafka",
            give_up_after=60,
        )
        await self._servers.index.drop(collection)
        await unload(self._settings, name)
        await self._tell(ModelStep.RETIRED, collection, None)
        with changing_state(self._settings) as change:
            change.state = change.state.model_copy(update={"retiring": None})

    async def _indexers_stopped(self, name: str) -> None:
        names = {spec.name for spec in indexers(self._settings, name)}
        deadline = time.monotonic() + INDEXERS_STOP_SECONDS
        while True:
            record = RecordFile(self._settings.run).read()
            rows = record.processes if record else []
            running = [row.name for row in rows if row.name in names and find(row) is not None]
            if not running:
                return
            if time.monotonic() > deadline:
                raise StackError(f"still running: {', '.join(running)}; repeat the command")
            await asyncio.sleep(0.2)

    async def _tell(
        self, step: ModelStep, collection: Collection, previous: Collection | None
    ) -> None:
        event = ModelActivated(
            step=step,
            model_name=collection.model_name,
            model_version=collection.model_version,
            collection=collection.name,
            previous_collection=previous.name if previous else None,
        )
        await until_available(
            lambda: self._servers.log.publish(MODELS, [Message(collection.model_name, event)]),
            what="Kafka",
        )


def _has_read(now: Progress, before: Progress) -> bool:
    return all(now.committed.get(p, 0) >= end for p, end in before.ends.items())
