"""models adopt, models decline: the automatic change to a better model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

import typer

from adapters.bootstrap import Connections, connections
from adapters.index.port import Collection
from adapters.logging import configure_logging
from cli.models_completeness import check_complete
from cli.output import AsJson, note, print_json
from cli.servers import server_settings
from models.adoption_status import AdoptionFile
from models.catalogue import read_catalogue
from models.switching import ModelSwitcher
from stack import adopting
from stack.errors import StackError
from stack.install.preparation import Cache
from stack.record import RecordFile, find
from stack.serving import LocalServing
from stack.settings import FALLBACK_MODEL, StackSettings
from stack.triton_models import model_registry

MAX_MISSING: Final = 0.01
STOP_SECONDS: Final = 30.0


def register(group: typer.Typer) -> None:
    """Register these commands."""
    group.command()(adopt)
    group.command()(decline)


def adopt(name: str, as_json: AsJson = False) -> None:
    """Download a model, fill its collection and switch to it, as the first `up` does by itself.

    It does nothing if a model was chosen or declined before. An interrupted change is resumed.
    """
    from stack.adoption import Adoption, AdoptionFolders  # Here, because it loads ONNX.

    settings, entry = StackSettings(), read_catalogue().get(name)
    if entry is None:
        raise StackError(
            f"{name!r} is not a model of the catalogue; see: ./image-search models list"
        )
    configure_logging()

    async def checked(
        servers: Connections, collection: Collection, handled: Mapping[int, int]
    ) -> None:
        await check_complete(servers, collection, handled, MAX_MISSING)

    adoption = Adoption(
        name,
        entry,
        FALLBACK_MODEL,
        file=AdoptionFile(settings.adoption),
        registry=model_registry(settings),
        folders=AdoptionFolders(settings.cache / "hub", settings.models, settings.state),
        connect=lambda: connections(server_settings()),
        switcher=lambda servers: _switcher(settings, servers),
        check_complete=checked,
    )
    status = asyncio.run(adoption.attempt())
    if as_json:
        print_json(status.as_json())
    else:
        print(status.sentence(), flush=True)
    if status.problem:
        raise typer.Exit(1)


def decline(as_json: AsJson = False) -> None:
    """Keep the bundled model: end the automatic change to a better one, for this state folder."""
    from models.hub import discard  # Here, because its library takes long to import.

    settings = StackSettings()
    file, registry = AdoptionFile(settings.adoption), model_registry(settings)
    state, status = registry.read(), file.read()
    if state.active != FALLBACK_MODEL:
        raise StackError(
            f"{state.active} answers searches already; to go back: ./image-search models rollback"
        )
    try:
        file.decline()
    except OSError as error:
        raise StackError(str(error)) from error
    name = status.model if status is not None else settings.model_name
    _wait_for_its_process(settings)
    entry = read_catalogue().get(name)
    if entry is not None and entry.repository is not None:
        discard(settings.cache / "hub", entry.repository)
    text = f"{FALLBACK_MODEL} stays; {name} is not downloaded, and what was downloaded is deleted"
    loaded = name in registry.read().current and name != FALLBACK_MODEL
    retired = loaded and RecordFile(settings.run).launcher_runs()
    if not as_json:
        print(text, flush=True)
    if retired:
        asyncio.run(_retire(settings, name))
    if as_json:
        print_json({"declined": name, "stays": FALLBACK_MODEL, "retired": retired})
    elif retired:
        print(f"{name} is retired; to delete its files: ./image-search models remove {name}")
    elif loaded:
        print(f"after the next start, free its memory: ./image-search models retire {name}")


async def _retire(settings: StackSettings, name: str) -> None:
    async with connections(server_settings()) as servers:
        await _switcher(settings, servers).retire(name)


def _switcher(settings: StackSettings, servers: Connections) -> ModelSwitcher:
    serving = LocalServing(settings, Cache(settings.cache, note))
    return ModelSwitcher(model_registry(settings), servers, serving)


def _wait_for_its_process(settings: StackSettings) -> None:
    """Return once the launcher has stopped the process that makes the change."""
    deadline = time.monotonic() + STOP_SECONDS
    while True:
        record = RecordFile(settings.run).read()
        rows = record.processes if record else []
        if not any(row.name == adopting.PROCESS and find(row) is not None for row in rows):
            return
        if time.monotonic() > deadline:
            raise StackError("the change is still in progress; repeat the command")
        time.sleep(0.2)
