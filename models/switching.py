"""Switch searches to another model: backfill its collection from the log, then move the alias.

Each step can be repeated, so an interrupted switch is simply started again: a loaded model is not
loaded again, an existing collection is kept, and a consumer group resumes at its committed offsets.
Searches are not affected until the alias moves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from adapters.bootstrap import Connections
from adapters.errors import Unavailable
from adapters.index.port import Collection
from adapters.log.port import GroupProgress, Message
from adapters.naming import collection_name
from adapters.provision import log_active
from adapters.retry import until_available
from models.errors import SwitchRefused
from models.registry import ModelRegistry, ModelState, StateChange
from schemas.events import ModelActivated, ModelStep
from schemas.topics import IMAGES, MODELS

POLL_SECONDS = 1.0
SERVERS_SECONDS = 120.0
GATEWAY_SECONDS = 3.0
"""Gateways cache the alias for one second; after this time none searches the old collection."""


@dataclass(frozen=True, slots=True)
class BackfillProgress:
    """Progress of a backfill in records; `rate` is in records per second, `left` in seconds."""

    done: int
    total: int
    rate: float
    left: float | None
    caught_up: bool
    problem: str = ""
    handled: Mapping[int, int] = field(default_factory=dict)
    """Partition -> offset up to which all records were handled; empty until it has caught up."""


class ModelServing(Protocol):
    """What a switch needs from the system that serves models and runs indexers."""

    def check_running(self) -> None:
        """Return if indexers can be started for a model.

        Raises:
            ServingFailed: they cannot be started.
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
        """Stop serving a model; does nothing if it is not served.

        Raises:
            Unavailable: the server does not answer.
        """
        ...

    async def wait_for_indexers_to_stop(self, name: str) -> None:
        """Return once all indexers of a model that is no longer current have stopped.

        Raises:
            ServingFailed: some do not stop.
        """
        ...


class ModelSwitcher:
    """The steps of a switch.

    Args:
        registry: which models are current.
        servers: clients of all servers.
        serving: loads models and runs indexers.
        permit: for a change that no user asked for: it is given the state, under the registry's
            lock, before each change, and raises if the change is not permitted. Without it, each
            change is recorded as one by a command, after which nothing changes by itself.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        servers: Connections,
        serving: ModelServing,
        *,
        permit: Callable[[ModelState], None] | None = None,
    ) -> None:
        self._registry = registry
        self._servers = servers
        self._serving = serving
        self._permit = permit

    @contextmanager
    def _changing(self) -> Iterator[StateChange]:
        with self._registry.changing() as change:
            if self._permit is not None:
                self._permit(change.state)
            yield change
            if self._permit is None:
                change.state = change.state.by_command()

    async def prepare(self, name: str) -> Collection:
        """Load the model, create its collection, and start indexers that backfill it from the log.

        Raises:
            StoreError: there is no such model.
            ServingFailed: it does not load, or no stack is running.
        """
        self._registry.store().repository(name)
        self._serving.check_running()
        state = await self.agree_with_alias()
        if name not in state.current or not await self._servers.embedder.is_ready(name):
            await until_available(
                lambda: self._serving.load(name), what="Triton", give_up_after=120
            )
        collection = await until_available(lambda: self._collection(name), what="servers")
        with self._changing() as change:
            before = change.state
            candidate = None if name == before.active else name
            after = before.with_current(name).model_copy(update={"candidate": candidate})
            change.state = after
        if after != before:
            await self._publish_step(ModelStep.BACKFILLING, collection, None)
        return collection

    async def agree_with_alias(self) -> ModelState:
        """The state, after it and the log were updated to the alias: an earlier command may have
        been killed before it did so."""
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
        """The model's collection, derived from its files; also if Triton does not serve it."""
        spec = self._registry.store().spec(name)
        return Collection(collection_name(spec), spec.name, spec.version, spec.dimension)

    async def backfill_progress(self, collection: Collection) -> AsyncIterator[BackfillProgress]:
        """The progress of the collection, once a second, until it has caught up with the log.

        Under steady load the measured lag is rarely zero. The collection has therefore caught up
        when all records that the log held at the previous measurement are handled.
        """
        started, first, before, group = time.monotonic(), None, None, ""
        while True:
            try:
                # If it was lost meanwhile, a new group fills it again from the beginning.
                found = await self._servers.index.find(collection.name) or collection
                if found.group != group:
                    started, first, before = time.monotonic(), None, None
                    group = found.group
                now = await self._servers.groups.progress(IMAGES, group)
            except Unavailable as error:
                yield BackfillProgress(0, 0, 0.0, None, False, str(error))
                await asyncio.sleep(POLL_SECONDS)
                continue
            first = now.lag if first is None else first
            caught_up = before is not None and _has_read(now, before)
            total = sum(now.ends.values())
            rate = max(0, first - now.lag) / max(1e-9, time.monotonic() - started)
            yield BackfillProgress(
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

    async def activate(self, collection: Collection, step: ModelStep) -> None:
        """Switch searches to this collection, which must be kept current.

        The alias, the state and the log are updated in this order. After a crash in between, the
        next command updates the other two to the alias (`agree_with_alias`; for the log,
        provisioning does so, too).
        """
        await self.agree_with_alias()
        await until_available(lambda: self._move_alias(collection), what="Weaviate")
        await until_available(
            lambda: log_active(self._servers.index, self._servers.log, step), what="Kafka"
        )

    async def _move_alias(self, collection: Collection) -> None:
        # Both under the lock, so that `agree_with_alias` cannot run in between.
        with self._changing() as change:
            await self._servers.index.activate(collection)
            change.state = change.state.with_active(collection.model_name)

    async def rollback(self, most_missing: float = 1.0) -> Collection:
        """Switch back to the previous model, which was kept current, so this is immediate.

        Raises:
            SwitchRefused: there is no previous model, or its collection lacks more than the share
                `most_missing` of the active collection's images.
        """
        state = await self.agree_with_alias()
        previous = state.previous
        if previous is None or previous not in state.current:
            raise SwitchRefused("there is no previous model that is still kept current")
        known = self._known(previous)
        collection = await self._servers.index.find(known.name)
        if collection is None:
            raise SwitchRefused(f"the collection of {previous} does not exist any more")
        index, active = self._servers.index, await self._servers.index.active()
        if active is not None:
            # Only count the images: comparing them one by one would take too long.
            earlier, current = await asyncio.gather(index.count(collection), index.count(active))
            if earlier < current * (1 - most_missing):
                raise SwitchRefused(
                    f"{collection.name} holds {earlier} pictures and {active.name} {current}: "
                    "more than --max-missing allows"
                )
        await self.activate(collection, ModelStep.ROLLED_BACK)
        return collection

    async def retire(self, name: str) -> None:
        """Stop keeping a model current; delete its collection and group, and unload it from Triton.

        Raises:
            SwitchRefused: it is the active model, or is not served.
            ServingFailed: its indexers do not stop.
        """
        state = await self.agree_with_alias()
        active = await self._servers.index.active()
        if name == state.active or (active is not None and active.model_name == name):
            raise SwitchRefused(f"{name} answers searches; switch to another model first")
        if name not in state.current and name != state.retiring:
            raise SwitchRefused(f"{name} is not served, so there is nothing to retire")
        known = self._known(name)
        collection = await self._servers.index.find(known.name) or known
        with self._changing() as change:
            change.state = change.state.without(name)
        await self._serving.wait_for_indexers_to_stop(name)
        await asyncio.sleep(GATEWAY_SECONDS)
        # Delete the group first: with old offsets, a new collection would not be backfilled.
        await until_available(
            lambda: self._servers.groups.delete(collection.group),
            what="Kafka",
            give_up_after=60,
        )
        await self._servers.index.drop(collection)
        await self._serving.unload(name)
        await self._publish_step(ModelStep.RETIRED, collection, None)
        with self._registry.changing() as change:
            change.state = change.state.model_copy(update={"retiring": None})

    async def unload_unused(self, name: str) -> bool:
        """Unload a model that is not current, as it stays loaded if a command is killed while it
        loads one; returns whether it was loaded.

        Raises:
            Unavailable: Triton does not answer.
        """
        if name in self._registry.read().current or not await self._servers.embedder.is_ready(name):
            return False
        await self._serving.unload(name)
        return True

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


def _has_read(now: GroupProgress, before: GroupProgress) -> bool:
    return all(now.committed.get(p, 0) >= end for p, end in before.ends.items())
