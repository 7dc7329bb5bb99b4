"""Which models this stack serves and fills, kept across restarts, and how they get into Triton."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from adapters.bootstrap import connect_model_control
from adapters.errors import AdapterError
from adapters.index.port import ImageIndex
from adapters.naming import collection_name, image_model, text_model
from adapters.settings import ServerSettings
from models.repository import render
from models.store import ModelStore, StoreError
from stack import binaries
from stack.errors import StackError
from stack.preparation import Cache
from stack.settings import StackSettings

logger = logging.getLogger(__name__)

LOCK_SECONDS: Final = 30.0


class ModelState(BaseModel):
    """What the `models` commands decided. The alias in Weaviate says who answers searches."""

    model_config = ConfigDict(frozen=True)

    active: str
    fed: tuple[str, ...]
    """Models whose collections are kept up to date: each is loaded and has its own indexers."""
    previous: str | None = None
    candidate: str | None = None
    """The model that a switch is under way to."""
    retiring: str | None = None
    """A model that is no longer fed and whose collection may still be there."""

    def feeding(self, name: str) -> ModelState:
        """The same, and this model is fed."""
        fed = self.fed if name in self.fed else (*self.fed, name)
        return self.model_copy(update={"fed": fed})

    def activated(self, name: str) -> ModelState:
        """The same after searches moved to this model."""
        previous = self.active if self.active != name else self.previous
        candidate = None if self.candidate == name else self.candidate
        changes = {"active": name, "previous": previous, "candidate": candidate}
        return self.feeding(name).model_copy(update=changes)

    def without(self, name: str) -> ModelState:
        """The same with a model, not the active one, on its way out."""
        return self.model_copy(
            update={
                "fed": tuple(each for each in self.fed if each != name),
                "previous": None if self.previous == name else self.previous,
                "candidate": None if self.candidate == name else self.candidate,
                "retiring": name,
            }
        )


def read_state(settings: StackSettings) -> ModelState:
    """What was decided; before anything was, the model of the settings alone.

    A file that is lost or cannot be read is replaced by the one before it, else by what Weaviate's
    folder tells.
    """
    for path in (settings.model_state, settings.model_state_before):
        if (state := _read(path)) is not None:
            return state
    return _recovered(settings)


def _read(path: Path) -> ModelState | None:
    try:
        return ModelState.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValidationError, OSError) as error:
        logger.error("%s cannot be read: %s", path, error)
        return None


@contextmanager
def changing_state(settings: StackSettings) -> Iterator[StateChange]:
    """Read the state, change it, and replace it as a whole; one process at a time.

    Raises:
        StackError: another process has been changing it for too long.
    """
    path = settings.model_state
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{path}.lock", timeout=LOCK_SECONDS):
            change = StateChange(read_state(settings))
            yield change
            _write(settings, change.state)
    except Timeout as error:
        raise StackError(f"{path} is being changed by another command") from error


@dataclass(slots=True)
class StateChange:
    """The state as it was read, to be replaced by the one it is to become."""

    state: ModelState


def _write(settings: StackSettings, state: ModelState) -> None:
    """Durably, and so that a reader sees the old state or the new one; the old one is kept."""
    before = _read(settings.model_state)
    if before == state:
        return
    if before is not None:
        _replace(settings.model_state_before, before.model_dump_json(indent=1))
    _replace(settings.model_state, state.model_dump_json(indent=1))


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # The name as well as what it names.
    finally:
        os.close(folder)


def _recovered(settings: StackSettings) -> ModelState:
    """What can be told without the file and the one before it: the models whose collections
    Weaviate has. `agree_with_alias` tells later which of them answers searches."""
    held = settings.state / "weaviate"
    names = tuple(store(settings).names()) if held.is_dir() else ()
    names = tuple(name for name in names if _is_held(settings, name, held))
    first = settings.model_name if settings.model_name in names or not names else names[0]
    if names:
        logger.error("the models are told anew from what Weaviate holds: %s", ", ".join(names))
    return ModelState(active=first, fed=names or (first,))


def _is_held(settings: StackSettings, name: str, weaviate: Path) -> bool:
    try:
        return (weaviate / collection_name(store(settings).spec(name)).lower()).is_dir()
    except StoreError:
        return False  # Its files are gone or broken, so it cannot be served.


async def agree_with_alias(settings: StackSettings, index: ImageIndex) -> ModelState:
    """Have the state say what the alias says of the active model, which decides.

    The two differ where a switch was killed in between, or the file was lost.

    Raises:
        StackError: another process has been changing the state for too long.
        Unavailable: Weaviate does not answer.
    """
    with changing_state(settings) as change:
        active, known = await index.active(), store(settings)
        if (
            active is not None
            and active.model_name != change.state.active
            and active.model_name in known.names()
            and known.spec(active.model_name).version == active.model_version
        ):
            change.state = change.state.activated(active.model_name)
    return change.state


def store(settings: StackSettings) -> ModelStore:
    """The per-user store, shared by all checkouts."""
    return ModelStore(settings.models)


def render_models(
    settings: StackSettings, names: tuple[str, ...], target: Path, python_environment: Path
) -> list[str]:
    """Render these models for Triton; returns those whose files are gone."""
    missing = []
    for name in names:
        try:
            source = store(settings).repository(name)
        except StoreError:
            missing.append(name)
            continue
        render(
            source,
            target,
            python_env=python_environment,
            image_instances=settings.triton_image_instances,
            text_instances=settings.triton_text_instances,
            threads=settings.threads,
            provider="cpu",
            names=[name],
        )
    return missing


async def load(settings: StackSettings, name: str, say: Cache) -> None:
    """Have the running Triton serve one more model, and see that it embeds.

    Raises:
        StackError: it does not load, or does not work. What is served besides is untouched.
        Unavailable: Triton does not answer.
    """
    if settings.triton_url is not None:
        raise StackError(
            f"Triton at {settings.triton_url} was not started by this stack, so its model "
            "repository is not here: load the model there first"
        )
    program = binaries.triton(say)
    was_fed = name in read_state(settings).fed
    if not was_fed:
        render_models(settings, (name,), settings.triton_models, program.python_environment)
    control = connect_model_control(ServerSettings(triton_url=settings.environment()["TRITON_URL"]))
    try:
        await control.load(name)
        await control.check(name)
    except AdapterError as error:
        if not was_fed:
            await unload(settings, name)
        raise StackError(f"{name} was not loaded, nothing else changed: {error}") from error
    finally:
        await control.close()


async def unload(settings: StackSettings, name: str) -> None:
    """Have Triton let go of a model, and forget its rendered files."""
    control = connect_model_control(ServerSettings(triton_url=settings.environment()["TRITON_URL"]))
    try:
        await control.unload(name)
    finally:
        await control.close()
    for folder in (image_model(name), text_model(name)):
        shutil.rmtree(settings.triton_models / folder, ignore_errors=True)
