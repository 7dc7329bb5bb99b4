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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from adapters.bootstrap import Connections
from adapters.errors import AdapterError, Unavailable
from adapters.index.port import Collection
from models import hub
from models.adoption_rule import objection
from models.adoption_status import AdoptionFile, AdoptionStatus, AdoptionStep
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
from stack.install import memory

logger = logging.getLogger(__name__)

NOTICE_SECONDS: Final = 3.0
"""Time between the announcement of a download, with its size, and its start."""
POLL_SECONDS: Final = 1.0
FURTHER_BYTES: Final = 10_000_000
"""An attempt that has this much more than any before it has got further."""
CONVERTING_COPIES: Final = 3
"""A graph is in memory as the file's bytes, as objects, and as the bytes that are written."""
LOADED_SHARE: Final = 1.5
"""Memory of a loaded model, as a multiple of its files: the weights, and room for one batch."""
IMAGE_BYTES: Final = 8192
"""Bytes of a picture's properties in Weaviate, besides its vector; a generous estimate."""
VECTOR_COPIES: Final = 3
"""Weaviate stores a vector in its log, in its segments and in the graph."""
STATE_RESERVE: Final = 0.1
"""Weaviate becomes read-only on a disk of which less than this share is free."""


class Ended(Exception):
    """The change is not to be continued; `step` and `reason` say why."""

    def __init__(self, step: AdoptionStep, reason: str = "") -> None:
        super().__init__(step)
        self.step = step
        self.reason = reason


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
        self._begun = before is not None and before.model == name and not before.ended
        """Whether this change may have made the model current; else a command has."""
        self._verified = 0
        if before is None or not self._begun:
            before = AdoptionStatus(
                model=name, instead_of=instead_of, step=AdoptionStep.DOWNLOADING
            )
        self._status = before

    async def attempt(self) -> AdoptionStatus:
        """Go through all steps that are left; returns the status, which is also in the file.

        After a failure it names the time of the next attempt, unless that would fail, too.
        """
        try:
            self.check_wanted(self._registry.read())
            if self._name not in self._registry.store().names():
                await self._download_and_install()
            self._discard_download()
            await self._switch()
            self._end(AdoptionStep.DONE)
        except Ended as end:
            self._end(end.step, end.reason)
        except (InvalidLayout, InvalidGraph) as error:
            logger.error("%s: %s", self._name, error)
            self._report(step=AdoptionStep.FAILED, problem=str(error), retry_at=None)
        except (AdapterError, ModelError, StackError, OSError) as error:
            self._report_failure(str(error) or type(error).__name__)
        except Exception as error:
            logger.exception("%s: an unexpected error", self._name)
            self._report_failure(f"{type(error).__name__}: {error}")
        return self._status

    def check_wanted(self, state: ModelState) -> None:
        """Return if a user has neither declined nor chosen a model, with this state of the models.

        Raises:
            Ended: a user has, or the model answers searches already.
        """
        found = objection(
            state,
            self._name,
            self._status.instead_of,
            declined=self._file.declined,
            status=self._status if self._begun else None,
        )
        if found is not None:
            raise Ended(found.step, found.reason)

    async def _download_and_install(self) -> None:
        repository, revision = self._entry.repository, self._entry.revision
        if repository is None or revision is None:
            raise StackError(f"{self._name} is not installed, and cannot be downloaded")
        listed = await asyncio.to_thread(
            hub.listing, repository, revision, pinned=self._entry.pins(revision)
        )
        got = await self._download(listed)
        self.check_wanted(self._registry.read())
        self._begin(AdoptionStep.INSTALLING, bytes_done=listed.size)
        graphs = (each.size for path, each in listed.files.items() if path.endswith(".onnx"))
        self._check_memory(CONVERTING_COPIES * max(graphs, default=0), "be converted")
        store = self._registry.store()
        try:
            await asyncio.to_thread(store.add, got.folder, self._name, hub.origin(self._entry, got))
        except StoreError:
            if self._name not in store.names():  # Else another process has added it meanwhile.
                raise
        self._report(failures=0)

    async def _download(self, listed: hub.RepositoryFiles) -> hub.Download:
        here = hub.bytes_here(self._folders.hub, listed)
        same = listed.size == self._status.bytes_total
        self._report(
            step=AdoptionStep.DOWNLOADING,
            bytes_done=here,
            bytes_total=listed.size,
            bytes_best=max(here, self._status.bytes_best) if same else here,
            bytes_verified=self._status.bytes_verified if same else 0,
            retry_at=None,
        )
        # The collection is not yet considered: how many pictures there are is asked later.
        self._check_space(
            SpaceNeeded(self._folders.hub, listed.size - here),
            SpaceNeeded(self._folders.models, listed.size),
            self._rendered(listed.size),
        )
        await asyncio.sleep(NOTICE_SECONDS)
        self._verified = 0
        fetching = asyncio.create_task(
            asyncio.to_thread(hub.fetch, listed, self._folders.hub, self._note_verified)
        )
        while not fetching.done():
            await asyncio.wait([fetching], timeout=POLL_SECONDS)
            self._report_bytes(hub.bytes_here(self._folders.hub, listed))
        return await fetching

    def _note_verified(self, size: int) -> None:
        self._verified = size

    def _report_bytes(self, done: int) -> None:
        """Report the progress. The failures before it count no more only if it is further than that
        of all attempts before: a file that is damaged each time is no progress."""
        before, verified = self._status, self._verified
        if verified > before.bytes_verified or done >= before.bytes_best + FURTHER_BYTES:
            self._report(
                bytes_done=done,
                bytes_best=max(done, before.bytes_best),
                bytes_verified=max(verified, before.bytes_verified),
                problem="",
                failures=0,
                retry_at=None,
            )
        elif done != before.bytes_done:
            self._report(bytes_done=done)

    def _discard_download(self) -> None:
        if self._entry.repository is not None:
            hub.discard(self._folders.hub, self._entry.repository)

    def _rendered(self, size: int) -> SpaceNeeded:
        """For Triton, weights are linked if the folders are on one file system, else copied."""
        linked = _device(self._folders.models) == _device(self._folders.state)
        return SpaceNeeded(self._folders.state, 0 if linked else size, STATE_RESERVE)

    def _check_space(self, *needs: SpaceNeeded) -> None:
        if lacking := lack_of_space(needs):
            raise StackError(lacking)

    def _check_memory(self, needed: float, purpose: str) -> None:
        available = memory.available()
        if available is not None and available < needed:
            raise StackError(
                f"{self._name} needs {needed / 1e9:.1f} GB of memory to {purpose}, and "
                f"{available / 1e9:.1f} GB are available: close some programs"
            )

    async def _switch(self) -> None:
        async with self._connect() as servers:
            state = await self._registry.agree_with_alias(servers.index)
            self.check_wanted(state)
            active = await self._searched(servers)
            self._begin(AdoptionStep.LOADING)
            images = await servers.index.count(active) if active is not None else 0
            each = IMAGE_BYTES + 4 * VECTOR_COPIES * self._entry.dimension
            self._check_space(SpaceNeeded(self._folders.state, images * each, STATE_RESERVE))
            if self._name not in state.current:
                folder = self._registry.store().repository(self._name)
                self._check_memory(LOADED_SHARE * _size(folder), "be loaded")
            switcher = self._switcher(servers)
            collection = await switcher.prepare(self._name)
            self._begun = True
            async for progress in switcher.backfill_progress(collection):
                self._check_filling()
                counts = await _counts(servers, collection, active)
                self._report(
                    step=AdoptionStep.FILLING, problem=progress.problem, retry_at=None, **counts
                )
            self._begin(AdoptionStep.CHECKING)
            await self._check_complete(servers, collection, progress.handled)
            self._check_filling()
            await self._searched(servers)
            await switcher.activate(collection, ModelStep.ACTIVATED)

    async def _searched(self, servers: Connections) -> Collection | None:
        """The collection that Weaviate's alias names, which must be the one to be replaced.

        Raises:
            Ended: it is another one, of a model that is perhaps not known here.
        """
        active = await servers.index.active()
        if active is not None and active.model_name != self._status.instead_of:
            raise Ended(AdoptionStep.SUPERSEDED, f"{active.model_name} answers searches")
        return active

    def _check_filling(self) -> None:
        state = self._registry.read()
        self.check_wanted(state)
        if self._name not in state.current:
            raise Ended(AdoptionStep.DECLINED, f"{self._name} was retired")

    def _begin(self, step: AdoptionStep, **changes: Any) -> None:
        """Report a step, which the last attempt's problem does not concern any more."""
        self._report(step=step, problem="", retry_at=None, **changes)

    def _end(self, step: AdoptionStep, reason: str = "") -> None:
        if step is not AdoptionStep.DONE:
            self._discard_download()
        # A user who declines does so by a command that unloads it.
        loaded = self._name in self._registry.read().current and not self._file.declined
        self._write(self._status.ended_by(step, reason, loaded=loaded))

    def _report(self, **changes: Any) -> None:
        self._write(self._status.model_copy(update={**changes, "updated_at": datetime.now(UTC)}))

    def _write(self, status: AdoptionStatus) -> None:
        self._status = status
        try:
            self._file.write(status)
        except OSError as error:  # The disk may be full; that must not end the change.
            logger.error("the status cannot be written: %s", error)

    def _report_failure(self, problem: str) -> None:
        self._write(self._status.failed(problem))
        logger.warning("%s: next attempt at %s: %s", self._name, self._status.retry_at, problem)


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


def _size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
