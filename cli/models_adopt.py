"""What `models adopt` and `models decline` do, whose options are in `cli.models`: the automatic
change to a better model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import typer

from adapters.bootstrap import Connections, connections
from adapters.index.port import Collection
from adapters.logging import configure_logging
from cli.models_completeness import check_complete
from cli.output import note, print_json, tell
from cli.servers import server_settings
from models.adoption_status import AdoptionFile, AdoptionStep
from models.catalogue import read_catalogue
from models.errors import SwitchRefused
from models.registry import ModelState
from models.switching import ModelSwitcher
from stack import adopting
from stack.errors import StackError
from stack.install.preparation import Cache
from stack.record import RecordFile, find
from stack.serving import LocalServing
from stack.settings import FALLBACK_MODEL, PREFERRED_MODEL, StackSettings
from stack.triton_models import model_registry

if TYPE_CHECKING:
    from stack.adoption_remains import Remains

MAX_MISSING: Final = 0.01
STOP_SECONDS: Final = 30.0


def adopt(name: str, give_up: bool = False, as_json: bool = False) -> None:
    """Download a model, fill its collection and switch to it, as the first `up` does by itself.

    It does nothing if a model was chosen or declined before. An interrupted change is resumed.
    """
    if give_up:
        _give_up(name, as_json=as_json)
        return
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
        switcher=lambda servers: _switcher(settings, servers, adoption.check_wanted),
        check_complete=checked,
    )
    status = asyncio.run(adoption.attempt())
    if as_json:
        print_json(status.as_json())
    else:
        print(status.sentence(), flush=True)
    if status.problem:
        raise typer.Exit(1)


def decline(as_json: bool = False) -> None:
    """Keep the bundled model: end the automatic change to a better one, for this state folder."""
    settings = StackSettings()
    file, registry = AdoptionFile(settings.adoption), model_registry(settings)
    state, status = registry.read(), file.read()
    if state.active != FALLBACK_MODEL:
        raise StackError(
            f"{state.active} answers searches already; to go back: ./image-search models rollback"
        )
    name = status.model if status is not None else settings.model_name
    name = PREFERRED_MODEL if name == FALLBACK_MODEL else name
    # A model that a command has loaded is not the change's to unload.
    begun = status is not None and status.resumable and not state.chosen
    try:
        file.decline()
        _wait_for_its_process(settings)
        remains = asyncio.run(_clear_away(settings, name, unload=begun))
        if registry.read().active != FALLBACK_MODEL:
            raise StackError(f"{registry.read().active} answers searches already")
        if (last := file.read()) is not None and last.model == name:
            file.write(last.ended_by(AdoptionStep.DECLINED, loaded=remains.loaded))
    except OSError as error:
        raise StackError(str(error)) from error
    except StackError:
        if registry.read().active == name:  # The change was made in the last moment.
            file.undo_decline()
            if status is not None:
                file.write(status.ended_by(AdoptionStep.DONE, loaded=False))
        raise
    text = f"{FALLBACK_MODEL} stays; {remains.sentence()}"
    tell(as_json, text, declined=name, stays=FALLBACK_MODEL, retired=remains.unloaded)


def _give_up(name: str, *, as_json: bool) -> None:
    """Clear away what the launcher's change has left, but nothing that a command has done."""
    settings = StackSettings()
    chosen = model_registry(settings).read().chosen
    configure_logging()
    remains = asyncio.run(_clear_away(settings, name, unload=not chosen, permit=_check_unchosen))
    tell(as_json, remains.sentence(), given_up=name, retired=remains.unloaded)
    if remains.loaded or remains.kept is not None:
        raise typer.Exit(1)


def _check_unchosen(state: ModelState) -> None:
    if state.chosen:
        raise SwitchRefused("the models were changed by a command meanwhile")


async def _clear_away(
    settings: StackSettings,
    name: str,
    *,
    unload: bool,
    permit: Callable[[ModelState], None] | None = None,
) -> Remains:
    from stack.adoption_remains import clear_away  # Here, as its library takes long to import.

    registry, entry = model_registry(settings), read_catalogue().get(name)
    downloads = settings.cache / "hub"
    if not RecordFile(settings.run).launcher_runs():
        return await clear_away(name, entry, registry, downloads, None, unload=unload)
    unload = unload and settings.triton_url is None and settings.weaviate_url is None
    async with connections(server_settings()) as servers:
        switcher = _switcher(settings, servers, permit)
        return await clear_away(name, entry, registry, downloads, switcher, unload=unload)


def _switcher(
    settings: StackSettings,
    servers: Connections,
    permit: Callable[[ModelState], None] | None,
) -> ModelSwitcher:
    serving = LocalServing(settings, Cache(settings.cache, note))
    return ModelSwitcher(model_registry(settings), servers, serving, permit=permit)


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
