"""The models in the local Triton: registry, rendering, loading and unloading."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.errors import AdapterError
from adapters.naming import image_model, text_model
from models.errors import ServingFailed
from models.registry import ModelRegistry
from models.repository import render
from models.store import StoreError
from stack.settings import StackSettings

if TYPE_CHECKING:
    from adapters.embedder.control import TritonControl
    from stack.install.preparation import Cache


def model_registry(settings: StackSettings) -> ModelRegistry:
    """Which models are current on this stack."""
    return ModelRegistry(
        file=settings.model_state,
        first=settings.start_model,
        models=settings.models,
        weaviate=settings.state / "weaviate",
    )


def render_models(
    settings: StackSettings, names: tuple[str, ...], target: Path, python_environment: Path
) -> list[str]:
    """Render these models for Triton; returns the names of those whose files are missing."""
    missing = []
    store = model_registry(settings).store()
    for name in names:
        try:
            source = store.repository(name)
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
            idle_seconds=settings.triton_idle_seconds,
            names=[name],
        )
    return missing


async def load(settings: StackSettings, name: str, cache: Cache) -> None:
    """Load one more model into the running Triton, and check that it embeds.

    Raises:
        ServingFailed: it does not load, or does not work. The other models are not affected.
        StackError: Triton's program cannot be prepared.
        Unavailable: Triton does not answer.
    """
    if settings.triton_url is not None:
        raise ServingFailed(
            f"Triton at {settings.triton_url} was not started by this stack, so its model "
            "repository is not here: load the model there first"
        )
    from stack.install import binaries  # Here, because commands that only read need none of it.

    program = binaries.triton(cache)
    was_current = name in model_registry(settings).read().current
    if not was_current:
        render_models(settings, (name,), settings.triton_models, program.python_environment)
    control = _control(settings)
    try:
        await control.load(name)
        await control.check(name)
    except AdapterError as error:
        if not was_current:
            await unload(settings, name)
        raise ServingFailed(f"{name} was not loaded, nothing else changed: {error}") from error
    finally:
        await control.close()


async def unload(settings: StackSettings, name: str) -> None:
    """Unload a model from Triton, and delete its rendered files.

    Raises:
        Unavailable: Triton does not answer.
    """
    control = _control(settings)
    try:
        await control.unload(name)
    finally:
        await control.close()
    for folder in (image_model(name), text_model(name)):
        shutil.rmtree(settings.triton_models / folder, ignore_errors=True)


def _control(settings: StackSettings) -> TritonControl:
    from adapters.bootstrap import connect_model_control

    return connect_model_control(settings.server_settings())
