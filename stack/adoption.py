"""One attempt to change from the bundled model to a better one: download, load, fill, switch.

Each step can be repeated: a process that is killed at any point is started again and goes on. What
was downloaded is kept, and the switch is that of `models.switching`. Searches are answered by the
bundled model until the alias moves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from adapters.bootstrap import Connections
from adapters.errors import AdapterError, Unavailable
from adapters.index.port import Collection
from models import hub
from models.adoption_status import ENDS, AdoptionFile, AdoptionStatus, AdoptionStep
from models.catalogue import CatalogueEntry
from models.disk_space import SpaceNeeded, lack_of_space
from models.errors import ModelError
from models.graph import InvalidGraph
from models.layout import InvalidLayout
from models.registry import ModelRegistry, ModelState
from models.store import StoreError
from models.switching import ModelSwitcher
from schemas.events import ModelStep
from stack.errors import StackError

logger = logging.getLogger(__name__)

NOTICE_SECONDS: Final = 3.0
"""Time between the announcement of a download, with its size, and its start."""
POLL_SECONDS: Final = 1.0
FIRST_WAIT_SECONDS: Final = 10.0
LONGEST_WAIT_SECONDS: Final = 3600.0
IMAGE_BYTES: Final = 8192
"""Bytes of a picture's properties in Weaviate, besides its vector; a generous estimate."""
VECTOR_COPIES: Final = 3
"""Weaviate stores a vector in its log, in its segments and in the graph."""
STATE_RESERVE: Final = 0.1
"""Weaviate becomes read-only on a disk of which less than this share is free."""


class Ended(Exception):
    """The change is not to be continued; `step` says why."""

    def __init__(self, step: AdoptionStep) -> None:
        super().__init__(step)
        self.step = step


@dataclass(frozen=True, slots=True)
class AdoptionFolders:
    """Where the downloads, the models and the stack's data are."""

    hub: Path
    models: Path
    state: Path


CheckComplete = Callable[[Connections, Collection, Mapping[int, int]], Awaitable[None]]
"""Returns if a collection holds what the log holds up to these offsets, by partition."""


class Adoption:
    """The change of this stack to a model of the catalogue.

    Args:
        name: the model, and `entry` its entry in the catalogue.
        instead_of: the model that answers searches now.
        connect: opens the clients of the servers.
        switcher: builds the steps of a switch from them.
        check_complete: raises StackError if too many pictures are missing.
    """

    def __init__(
        self,
        name: str,
        entry: CatalogueEntry,
        instead_of: str,
        *,
        file: AdoptionFile,
        registry: ModelRegistry,
        folders: AdoptionFolders,
        connect: Callable[[], AbstractAsyncContextManager[Connections]],
        switcher: Callable[[Connections], ModelSwitcher],
        check_complete: CheckComplete,
    ) -> None:
        self._name = name
        self._entry = entry
        self._file = file
        self._registry = registry
        self._folders = folders
        self._connect = connect
        self._switcher = switcher
        self._check_complete = check_complete
        before = file.read()
        if before is None or before.model != name or before.ended:
            before = AdoptionStatus(
                model=name, instead_of=instead_of, step=AdoptionStep.DOWNLOADING
            )
        self._status = before

    async def attempt(self) -> AdoptionStatus:
        """Go through all steps that are left; returns the status, which is also in the file.

        After a failure it names the time of the next attempt, unless that would fail, too.
        """
        try:
            self._check_wanted(self._registry.read())
            if self._name not in self._registry.store().names():
                await self._download_and_install()
            await self._switch()
            self._report(step=AdoptionStep.DONE)
        except Ended as end:
            self._report(step=end.step)
        except (InvalidLayout, InvalidGraph) as error:
            logger.error("%s: %s", self._name, error)
            self._report(step=AdoptionStep.FAILED, problem=str(error))
        except (AdapterError, ModelError, StackError, OSError) as error:
            self._report_failure(str(error) or type(error).__name__)
        return self._status

    def _check_wanted(self, state: ModelState) -> None:
        """Return if a user has neither declined nor chosen a model, with this state of the models.

        Raises:
            Ended: a user has, or the model answers searches already.
            StackError: a switch to another model is in progress.
        """
        if state.active == self._name:
            raise Ended(AdoptionStep.DONE)
        if self._file.declined:
            raise Ended(AdoptionStep.DECLINED)
        if state.active != self._status.instead_of or state.previous is not None:
            raise Ended(AdoptionStep.SUPERSEDED)
        if state.candidate not in (None, self._name):
            raise StackError(f"a switch to {state.candidate} is in progress")

    async def _download_and_install(self) -> None:
        repository, revision = self._entry.repository, self._entry.revision
        if repository is None or revision is None:
            raise StackError(f"{self._name} is not installed, and cannot be downloaded")
        listed = await asyncio.to_thread(hub.listing, repository, revision)
        here = hub.bytes_here(self._folders.hub, listed)
        self._report(
            step=AdoptionStep.DOWNLOADING, bytes_done=here, bytes_total=listed.size, retry_at=None
        )
        # The collection is not yet considered: how many pictures there are is asked later.
        self._check_space(
            SpaceNeeded(self._folders.hub, listed.size - here),
            SpaceNeeded(self._folders.models, listed.size),
            self._rendered(listed.size),
        )
        await asyncio.sleep(NOTICE_SECONDS)
        fetching = asyncio.create_task(asyncio.to_thread(hub.fetch, listed, self._folders.hub))
        while not fetching.done():
            await asyncio.wait([fetching], timeout=POLL_SECONDS)
            done = hub.bytes_here(self._folders.hub, listed)
            if done != self._status.bytes_done:
                self._report(bytes_done=done, problem="", failures=0, retry_at=None)
        got = await fetching
        self._check_wanted(self._registry.read())
        self._report(step=AdoptionStep.INSTALLING, bytes_done=listed.size, problem="", failures=0)
        store = self._registry.store()
        try:
            await asyncio.to_thread(store.add, got.folder, self._name, hub.origin(self._entry, got))
        except StoreError:
            if self._name not in store.names():  # Else another process has added it meanwhile.
                raise
        hub.discard(self._folders.hub, repository)

    def _rendered(self, size: int) -> SpaceNeeded:
        """For Triton, weights are linked if the folders are on one file system, else copied."""
        linked = _device(self._folders.models) == _device(self._folders.state)
        return SpaceNeeded(self._folders.state, 0 if linked else size, STATE_RESERVE)

    def _check_space(self, *needs: SpaceNeeded) -> None:
        if lacking := lack_of_space(needs):
            raise StackError(lacking)

    async def _switch(self) -> None:
        async with self._connect() as servers:
            self._check_wanted(await self._registry.agree_with_alias(servers.index))
            self._report(step=AdoptionStep.LOADING)
            active = await servers.index.active()
            images = await servers.index.count(active) if active is not None else 0
            each = IMAGE_BYTES + 4 * VECTOR_COPIES * self._entry.dimension
            self._check_space(SpaceNeeded(self._folders.state, images * each, STATE_RESERVE))
            switcher = self._switcher(servers)
            collection = await switcher.prepare(self._name)
            async for progress in switcher.backfill_progress(collection):
                self._check_filling()
                counts = await _counts(servers, collection, active)
                self._report(
                    step=AdoptionStep.FILLING, problem=progress.problem, retry_at=None, **counts
                )
            self._report(step=AdoptionStep.CHECKING)
            await self._check_complete(servers, collection, progress.handled)
            self._check_filling()
            await switcher.activate(collection, ModelStep.ACTIVATED)

    def _check_filling(self) -> None:
        state = self._registry.read()
        self._check_wanted(state)
        if self._name not in state.current:
            raise Ended(AdoptionStep.DECLINED)  # A user retired it.

    def _report(self, **changes: Any) -> None:
        if changes.get("step") in ENDS:
            changes = {"problem": "", "retry_at": None, **changes}
        changes["updated_at"] = datetime.now(UTC)
        self._status = self._status.model_copy(update=changes)
        try:
            self._file.write(self._status)
        except OSError as error:  # The disk may be full; that must not end the change.
            logger.error("the status cannot be written: %s", error)

    def _report_failure(self, problem: str) -> None:
        failures = self._status.failures + 1
        wait = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** min(failures - 1, 20))
        logger.warning("%s: next attempt in %.0f s: %s", self._name, wait, problem)
        self._report(
            problem=problem, failures=failures, retry_at=datetime.now(UTC) + timedelta(seconds=wait)
        )


async def _counts(
    servers: Connections, collection: Collection, active: Collection | None
) -> dict[str, int]:
    """The pictures in both collections, for display; none if Weaviate does not answer."""
    try:
        done = await servers.index.count(collection)
        total = await servers.index.count(active) if active is not None else done
    except Unavailable:
        return {}
    return {"images_done": done, "images_total": total}


def _device(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return folder.stat().st_dev
