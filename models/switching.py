"""Moving searches to another model: fill its collection from the log, then flip the alias.

Each step can be repeated, so an interrupted switch is simply started again: a model that
is loaded is not loaded again, a collection that is there is kept, a consumer group resumes at its
committed offsets. Until the alias moves, nothing that answers searches is changed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from adapters.bootstrap import Connections, delete_group, group_progress
from adapters.errors import Unavailable
from adapters.index.port import Collection
from adapters.log.kafka_admin import Progress
from adapters.log.port import Message
from adapters.naming import collection_name
from adapters.provision import log_active
from adapters.retry import until_available
from adapters.settings import ServerSettings
from models.errors import SwitchRefused
from models.registry import ModelRegistry, ModelState
from schemas.events import ModelActivated, ModelStep
from schemas.topics import IMAGES, MODELS

POLL_SECONDS = 1.0
SERVERS_SECONDS = 120.0
GATEWAY_SECONDS = 3.0
"""A gateway caches the alias for a second; after that, none searches the old collection."""


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


class Serving(Protocol):
    """Where models are served and collections filled: what a switch needs of that."""

    def check_running(self) -> None:
        """Return if indexers can be started for a model.

        Raises:
            ServingFailed: they cannot.
        """
        ...

    async def load(self, name: str) -> None:
        """Serve one more model, and check that it embeds.

        Raises:
            ServingFailed: it does not load, or does not work.
            Unavailable: the server does not answer.
        """
        ...

    async def unload(self, name: str) -> None:
        """Serve a model no longer. One that is not served is no error.

        Raises:
            Unavailable: the server does not answer.
        """
        ...

    async def indexers_stopped(self, name: str) -> None:
        """Return once no indexer of a model that is no longer current runs.

        Raises:
            ServingFailed: some go on running.
        """
        ...


class Switching:
    """The steps of a switch.

    Args:
        registry: which models are current.
        settings: where Kafka is.
        servers: clients of all servers.
        serving: loads models and runs indexers.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        settings: ServerSettings,
        servers: Connections,
        serving: Serving,
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._servers = servers
        self._serving = serving

    async def prepare(self, name: str) -> Collection:
        """Load the model, make its collection, and have indexers backfill it from the log.

        Raises:
            StoreError: there is no such model.
            ServingFailed: it does not load, or no stack is running.
        """
        self._registry.store().repository(name)
        self._serving.check_running()
        state = await self._agreed()
        if name not in state.current or not await self._servers.embedder.is_ready(name):
            await until_available(
                lambda: self._serving.load(name), what="Triton", give_up_after=120
            )
        collection = await until_available(lambda: self._collection(name), what="servers")
        with self._registry.changing() as change:
            before = change.state
            candidate = None if name == before.active else name
            change.state = before.keeping_current(name).model_copy(update={"candidate": candidate})
        if change.state != before:
            await self._publish_step(ModelStep.FEEDING, collection, None)
        return collection

    async def _agreed(self) -> ModelState:
        """The state, after it and the log were made to agree with the alias: an earlier command
        may have been killed before it did that."""
        index, log = self._servers.index, self._servers.log
        state = await until_available(
            lambda: self._registry.agree_with_alias(index),
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
        spec = self._registry.store().spec(name)
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
                now = await group_progress(self._settings, IMAGES, group)
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
        """Let searches be answered from this collection, which must be kept current.

        Alias, state and log change one after the other. After a crash in between,
        the next command makes both agree with the alias (`_agreed`; provisioning does so for the
        log).
        """
        await self._agreed()
        await until_available(lambda: self._moved(collection), what="Weaviate")
        await until_available(
            lambda: log_active(self._servers.index, self._servers.log, step), what="Kafka"
        )

    async def _moved(self, collection: Collection) -> None:
        # Both under the lock, so that nobody makes them agree in between.
        with self._registry.changing() as change:
            await self._servers.index.activate(collection)
            change.state = change.state.activated(collection.model_name)

    async def rollback(self, most_missing: float = 1.0) -> Collection:
        """Go back to the model that answered before; it was kept current, so this is instant.

        Raises:
            SwitchRefused: there is no model to go back to, or its collection lacks more than the
                share `most_missing` of the images of the active one.
        """
        state = await self._agreed()
        previous = state.previous
        if previous is None or previous not in state.current:
            raise SwitchRefused("there is no earlier model that is still kept up to date")
        known = self._known(previous)
        collection = await self._servers.index.find(known.name)
        if collection is None:
            raise SwitchRefused(f"the collection of {previous} is not there any more")
        index, active = self._servers.index, await self._servers.index.active()
        if active is not None:
            # Counted and not compared, as this is to be instant.
            there, here = await asyncio.gather(index.count(collection), index.count(active))
            if there < here * (1 - most_missing):
                raise SwitchRefused(
                    f"{collection.name} holds {there} pictures and {active.name} {here}: "
                    "more than --max-missing allows"
                )
        await self.flip(collection, ModelStep.ROLLED_BACK)
        return collection

    async def retire(self, name: str) -> None:
        """Stop keeping a model current, and free its collection, its group and its place in Triton.

        Raises:
            SwitchRefused: it answers searches, or is not served.
            ServingFailed: its indexers do not stop.
        """
        state = await self._agreed()
        active = await self._servers.index.active()
        if name == state.active or (active is not None and active.model_name == name):
            raise SwitchRefused(f"{name} answers searches; switch to another model first")
        if name not in state.current and name != state.retiring:
            raise SwitchRefused(f"{name} is not served, so there is nothing to retire")
        known = self._known(name)
        collection = await self._servers.index.find(known.name) or known
        with self._registry.changing() as change:
            change.state = change.state.without(name)
        await self._serving.indexers_stopped(name)
        await asyncio.sleep(GATEWAY_SECONDS)
        # The group goes first: offsets without a collection would hide the log from a successor.
        await until_available(
            lambda: delete_group(self._settings, collection.group),
            what="Kafka",
            give_up_after=60,
        )
        await self._servers.index.drop(collection)
        await self._serving.unload(name)
        await self._publish_step(ModelStep.RETIRED, collection, None)
        with self._registry.changing() as change:
            change.state = change.state.model_copy(update={"retiring": None})

    async def _publish_step(
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
