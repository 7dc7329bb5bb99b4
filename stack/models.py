"""Which models this stack serves and fills, kept across restarts, and how they get into Triton."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from adapters.errors import AdapterError
from adapters.model_repository import render
from adapters.model_store import ModelStore, StoreError
from adapters.naming import collection_name, image_model, text_model
from adapters.triton_control import TritonControl
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
    """What was decided; before anything was, the model of the settings alone."""
    path = settings.model_state
    for each in (path, settings.model_state_before):
        try:
            return ModelState.model_validate_json(each.read_bytes())
        except FileNotFoundError:
            if each == path:
                break  # Nothing was decided yet.
        except ValidationError as error:
            logger.error("%s cannot be read: %s", each, error)
    else:
        return _recovered(settings)
    return ModelState(active=settings.model_name, fed=(settings.model_name,))


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
    path, text = settings.model_state, state.model_dump_json(indent=1)
    if path.exists():
        with suppress(ValidationError):
            ModelState.model_validate_json(path.read_bytes())
            _replace(settings.model_state_before, path.read_text())
    _replace(path, text)


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _recovered(settings: StackSettings) -> ModelState:
    """What can be told where the file and the one before it are unreadable: the models whose
    collections Weaviate has. The alias tells later which of them answers searches."""
    known = store(settings)
    held = settings.state / "weaviate"
    names = tuple(
        name
        for name in known.names()
        if (held / collection_name(known.spec(name)).lower()).is_dir()
    )
    first = settings.model_name if settings.model_name in names or not names else names[0]
    logger.error("the models are told anew from what Weaviate holds: %s", ", ".join(names))
    return ModelState(active=first, fed=names or (first,))


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
    control = TritonControl(settings.environment()["TRITON_URL"])
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
    control = TritonControl(settings.environment()["TRITON_URL"])
    try:
        await control.unload(name)
    finally:
        await control.close()
    for folder in (image_model(name), text_model(name)):
        shutil.rmtree(settings.triton_models / folder, ignore_errors=True)
