"""Which models this stack serves and fills, kept across restarts, and how they get into Triton."""

from __future__ import annotations

import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from adapters.errors import AdapterError
from adapters.model_repository import render
from adapters.model_store import ModelStore, StoreError
from adapters.naming import image_model, text_model
from adapters.triton_control import TritonControl
from stack import binaries
from stack.errors import StackError
from stack.preparation import Cache
from stack.settings import StackSettings


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
    try:
        return ModelState.model_validate_json(settings.model_state.read_bytes())
    except FileNotFoundError:
        return ModelState(active=settings.model_name, fed=(settings.model_name,))


def write_state(settings: StackSettings, state: ModelState) -> None:
    """Replace it as a whole."""
    path = settings.model_state
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(state.model_dump_json(indent=1))
    part.replace(path)


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
