"""Which models are current (active, or kept up to date for a switch), stored across restarts."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapters.index.port import ImageIndex
from adapters.naming import collection_name
from models.errors import RegistryBusy
from models.store import ModelStore, StoreError

logger = logging.getLogger(__name__)

LOCK_SECONDS: Final = 30.0


class ModelState(BaseModel):
    """The state set by the `models` commands. Weaviate's alias decides which model is searched."""

    model_config = ConfigDict(frozen=True, validate_by_name=True, validate_by_alias=True)

    active: str
    current: tuple[str, ...] = Field(alias="fed")
    """Models whose collections are kept current: each is loaded and has its own indexers. In the
    file the field is named `fed`, as in earlier versions."""
    previous: str | None = None
    candidate: str | None = None
    """The target of a switch in progress."""
    retiring: str | None = None
    """A model that is no longer kept current, but whose collection may still exist."""
    first: str | None = None
    """The model of the first start; None if an earlier version wrote the file."""
    chosen: bool = False
    """Whether a command has changed which models are current, or may have done so before this was
    recorded. The stack then changes them only by command."""

    def with_current(self, name: str) -> ModelState:
        """This state with the model's collection kept current."""
        current = self.current if name in self.current else (*self.current, name)
        return self.model_copy(update={"current": current})

    def with_active(self, name: str) -> ModelState:
        """This state after searches were switched to the model."""
        previous = self.active if self.active != name else self.previous
        candidate = None if self.candidate == name else self.candidate
        changes = {"active": name, "previous": previous, "candidate": candidate}
        return self.with_current(name).model_copy(update=changes)

    def by_command(self) -> ModelState:
        """This state after a command has changed it."""
        return self.model_copy(update={"chosen": True})

    def without(self, name: str) -> ModelState:
        """This state while a model, which must not be the active one, is being retired."""
        return self.model_copy(
            update={
                "current": tuple(each for each in self.current if each != name),
                "previous": None if self.previous == name else self.previous,
                "candidate": None if self.candidate == name else self.candidate,
                "retiring": name,
            }
        )


@dataclass(slots=True)
class StateChange:
    """Holds the state that was read; assign the new state to `state`."""

    state: ModelState


@dataclass(frozen=True, slots=True)
class ModelRegistry:
    """The state file, and the sources from which a lost state is recovered."""

    file: Path
    """JSON; the state before the last change is in the same folder, with `.before` appended."""
    first: str
    """The model of a first start."""
    models: Path
    """Folder of the models that were added."""
    weaviate: Path
    """Weaviate's data, if it is on this machine."""

    def store(self) -> ModelStore:
        """The per-user store of models, shared by all checkouts."""
        return ModelStore(self.models)

    def read(self) -> ModelState:
        """The current state; initially only the first model.

        If the file is lost or unreadable, the state before the last change is used, else one that
        is recovered from Weaviate's folder.
        """
        for path in (self.file, self._before):
            if (state := _read(path)) is not None:
                return state
        return self._recover()

    @contextmanager
    def changing(self) -> Iterator[StateChange]:
        """Read the state, let the caller change it, and write it atomically, under a file lock.

        Raises:
            RegistryBusy: another process has held the lock for too long.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(f"{self.file}.lock", timeout=LOCK_SECONDS):
                change = StateChange(self.read())
                yield change
                self._write(change.state)
        except Timeout as error:
            raise RegistryBusy(f"{self.file} is being changed by another command") from error

    def record_start(self) -> None:
        """Write the state file, with the model of the first start. A damaged file is replaced.

        A file by an earlier version does not say whether a command changed it. If it never changed,
        and no model was added, it holds the first model alone.

        Raises:
            RegistryBusy: another process has held the lock for too long.
        """
        with self.changing() as change:
            state = change.state
            if state.first is not None:
                return
            unchanged = (
                state.current == (state.active,)
                and state.previous is None
                and not self._before.exists()
                and not set(self.store().added()) - {state.active}
            )
            first = state.active if unchanged else self.first
            change.state = state.model_copy(update={"first": first, "chosen": not unchanged})

    async def agree_with_alias(self, index: ImageIndex) -> ModelState:
        """Set the state's active model to the one that the alias names, which has precedence.

        The two differ if a switch was killed between both updates, or the file was lost.

        Raises:
            RegistryBusy: another process has held the lock for too long.
            Unavailable: Weaviate does not answer.
        """
        with self.changing() as change:
            active, known = await index.active(), self.store()
            if (
                active is not None
                and active.model_name != change.state.active
                and active.model_name in known.names()
                and known.spec(active.model_name).version == active.model_version
            ):
                change.state = change.state.with_active(active.model_name)
        return change.state

    @property
    def _before(self) -> Path:
        return self.file.with_name(f"{self.file.name}.before")

    def _write(self, state: ModelState) -> None:
        """Write durably and atomically; the old state is kept in the `.before` file."""
        before = _read(self.file)
        if before == state:
            return
        if before is not None:
            _replace(self._before, before)
        _replace(self.file, state)

    def _recover(self) -> ModelState:
        """The state recovered without any file: the models that have a collection in Weaviate.
        `agree_with_alias` later determines which of them is active."""
        names = tuple(self.store().names()) if self.weaviate.is_dir() else ()
        names = tuple(name for name in names if self._has_collection(name))
        first = self.first if self.first in names or not names else names[0]
        if names:
            logger.error("models recovered from Weaviate's collections: %s", ", ".join(names))
        # Which model was the first is known only if there was none before.
        return ModelState(active=first, current=names or (first,), first=first, chosen=bool(names))

    def _has_collection(self, name: str) -> bool:
        try:
            return (self.weaviate / collection_name(self.store().spec(name)).lower()).is_dir()
        except StoreError:
            return False  # Its files are missing or damaged, so it cannot be served.


def _read(path: Path) -> ModelState | None:
    try:
        return ModelState.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValidationError, OSError) as error:
        logger.error("%s cannot be read: %s", path, error)
        return None


def _replace(path: Path, state: ModelState) -> None:
    part = path.with_name(f"{path.name}.part")
    with part.open("w") as file:
        file.write(state.model_dump_json(indent=1, by_alias=True))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # Makes the rename durable as well.
    finally:
        os.close(folder)
