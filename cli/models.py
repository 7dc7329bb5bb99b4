"""models: list, download, switch and retire models."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from adapters.bootstrap import Connections, connections
from adapters.retry import until_available
from cli import models_adopt as adopting
from cli import models_compare as comparing
from cli import models_render as rendering
from cli.models_compare import Gate
from cli.models_completeness import check_complete
from cli.servers import server_settings
from models.catalogue import CatalogueEntry, read_catalogue
from models.comparison import refusals
from models.hub import download, origin
from models.layout import read_layout
from models.store import ModelStore, Origin
from models.switching import BackfillProgress, ModelSwitcher
from schemas.events import ModelStep
from stack.errors import StackError
from stack.install.preparation import Cache
from stack.serving import LocalServing
from stack.settings import StackSettings
from stack.triton_models import model_registry

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


MaxMissing = Annotated[
    float,
    typer.Option(
        "--max-missing",
        min=0.0,
        max=1.0,
        help="Share of the pictures that the collection may lack, 0 to 1.",
    ),
]


def register(app: typer.Typer) -> None:
    """Register these commands."""
    group = typer.Typer(help="Models: download, inspect, switch and compare.", no_args_is_help=True)
    group.command("list")(list_models)
    for command in (info, pull, add, remove, switch, rollback, retire):
        group.command()(command)
    adopting.register(group)
    comparing.register(group)
    rendering.register(group)
    app.add_typer(group, name="models")


@contextmanager
def reporting_file_errors() -> Iterator[None]:
    """Report a file that cannot be read or written in one line."""
    try:
        yield
    except OSError as error:
        raise StackError(str(error)) from error


def build_switcher(servers: Connections) -> ModelSwitcher:
    """The steps of a switch, on the local stack."""
    settings = StackSettings()
    serving = LocalServing(settings, Cache(settings.cache, print))
    return ModelSwitcher(model_registry(settings), servers, serving)


def list_models(as_json: Json = False) -> None:
    """List the installed models and those that can be pulled, with their state."""
    settings = StackSettings()
    registry = model_registry(settings)
    state, known, here = registry.read(), read_catalogue(), registry.store()
    rows = []
    for name in dict.fromkeys([*here.names(), *known]):
        rows.append(
            {
                "name": name,
                "state": _state_of(name, state.active, state.current, state.candidate, here),
                "summary": known[name].summary if name in known else "added from a folder",
                "licence": known[name].licence if name in known else here.spec(name).licence,
                "dimension": known[name].dimension if name in known else here.spec(name).dimension,
            }
        )
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table("model", "state", "dimension", "licence", "", box=None)
    for row in rows:
        table.add_row(*(str(row[k]) for k in ("name", "state", "dimension", "licence", "summary")))
    Console().print(table)


def _state_of(
    name: str, active: str, current: tuple[str, ...], candidate: str | None, here: ModelStore
) -> str:
    if name == active:
        return "active"
    if name == candidate:
        return "candidate"
    if name in current:
        return "kept up to date"
    return "here" if name in here.names() else "can be pulled"


def info(name: str, as_json: Json = False) -> None:
    """Show everything that is known about one model."""
    entry, here = read_catalogue().get(name), model_registry(StackSettings()).store()
    found: dict[str, Any] = {"name": name}
    if entry is not None:
        found["catalogue"] = entry.model_dump(mode="json", exclude_none=True)
    if name in here.names():
        found["served_as"] = here.spec(name).model_dump(mode="json")
        if (origin := here.origin(name)) is not None:
            found["origin"] = origin.model_dump(mode="json")
    elif entry is None:
        raise StackError(f"there is no model {name!r}; see: ./image-search models list")
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for part, fields in found.items():
        if isinstance(fields, dict):
            print(f"{part}:")
            for field, value in fields.items():
                if field == "files":
                    value = f"{len(value)} files (--json shows their SHA-256)"
                print(f"  {field}: {value}")
        else:
            print(f"{part}: {fields}")


def pull(
    name: str,
    revision: Annotated[
        str | None,
        typer.Option("--revision", help="Commit to download instead of the catalogue's."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Compare an installed model with the hub.")
    ] = False,
) -> None:
    """Download a model of the catalogue; an interrupted download is resumed.

    HF_ENDPOINT names another hub; HF_TOKEN is the token for signing in.
    """
    settings, entry = StackSettings(), read_catalogue().get(name)
    if entry is None or entry.repository is None or entry.revision is None:
        raise StackError(
            f"{name!r} is not a model of the catalogue; see: ./image-search models list"
        )
    here = model_registry(settings).store()
    present = here.origin(name) if name in here.names() else None
    if present is not None and not again:
        print(f"{name} is already installed, at {present.revision}")
        return
    wanted = revision or (present.revision if present else None) or entry.revision
    got = download(entry.repository, wanted, settings.cache / "hub")
    if present is not None:
        if dict(present.files) != got.files:
            raise StackError(f"{name}: the hub's files differ from those that were installed")
        print(f"{name} is unchanged, at {present.revision}")
        return
    with reporting_file_errors():
        _compare(name, entry, got.folder)
        here.add(got.folder, name, origin(entry, got))
    print(f"{name} is installed, at {got.commit}; to use it: ./image-search models switch {name}")


def _compare(name: str, entry: CatalogueEntry, folder: Path) -> None:
    """Note where the folder's own configuration differs from the catalogue."""
    layout = read_layout(folder)
    pairs = {
        "dimension": (entry.dimension, layout.dimension),
        "size": (entry.size, (layout.height, layout.width)),
        "context_length": (entry.context_length, layout.context_length),
        "interpolation": (entry.interpolation, layout.interpolation),
    }
    for field, (promised, found) in pairs.items():
        if promised != found:
            Console(stderr=True).print(
                f"note: {name} has {field} {found} according to its files, {promised} according "
                "to the catalogue; the files are used"
            )


def add(
    folder: Annotated[
        Path,
        typer.Option(
            "--from",
            help="Folder with config.json, visual/ and textual/.",
            exists=True,
            file_okay=False,
        ),
    ],
    name: Annotated[
        str | None, typer.Argument(help="Name of the model; by default the folder's.")
    ] = None,
    licence: Annotated[
        str, typer.Option("--licence", help="Licence of the model, an SPDX expression.")
    ] = "not stated",
    min_score: Annotated[
        float, typer.Option("--min-score", help="Cosine similarity below which a match is noise.")
    ] = 0.0,
) -> None:
    """Install a model from a local folder that is laid out as those of immich-app."""
    with reporting_file_errors():
        source = folder.resolve()
        origin = Origin(source=source.as_uri(), licence=licence)
        spec = (
            model_registry(StackSettings())
            .store()
            .add(source, name or source.name, origin, min_score)
        )
    print(
        f"{spec.name} is installed: {spec.width}x{spec.height} pixels, dimension {spec.dimension}, "
        f"version {spec.version}; to use it: ./image-search models switch {spec.name}"
    )


def remove(name: str) -> None:
    """Delete a model's files. A model that is served has to be retired first."""
    registry = model_registry(StackSettings())
    if name in registry.read().current:
        raise StackError(f"{name} is served; retire it first: ./image-search models retire {name}")
    with reporting_file_errors():
        registry.store().remove(name)
    print(f"{name} is removed")


def switch(
    name: str,
    backfill_only: Annotated[
        bool,
        typer.Option(
            "--backfill-only",
            "--feed-only",
            help="Fill its collection without letting it answer searches (formerly --feed-only).",
        ),
    ] = False,
    gate: Gate = None,
    max_missing: MaxMissing = 0.01,
) -> None:
    """Fill a model's collection from the log, then let it answer searches.

    The active model answers searches meanwhile. Repeat the command to resume an interrupted switch.
    Before the change, the model's answers to the recorded searches are compared with the active
    model's. With --gate, the change is made only if the comparison reaches these values.
    """
    with reporting_file_errors():
        asyncio.run(_switch(name, backfill_only, comparing.gates_of(gate), max_missing))


async def _switch(
    name: str, backfill_only: bool, gates: dict[str, float], max_missing: float
) -> None:
    async with connections(server_settings()) as servers:
        switcher = build_switcher(servers)
        collection = await switcher.prepare(name)
        print(f"{name} is loaded; filling {collection.name}", flush=True)
        with Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[detail]}")
        ) as bar:
            task = bar.add_task("filling", detail="")
            async for progress in switcher.backfill_progress(collection):
                detail = _progress_text(progress)
                if not progress.problem:
                    bar.update(task, total=progress.total, completed=progress.done, detail=detail)
                else:
                    bar.update(task, detail=detail)
        print(_progress_text(progress), flush=True)
        if backfill_only:
            print(f"the collection of {name} is filled and kept current; searches do not use it")
            return
        await until_available(
            lambda: check_complete(servers, collection, progress.handled, max_missing), what="audit"
        )
        active = await servers.index.active()
        if active is not None and active.name != collection.name:
            result = await until_available(
                lambda: comparing.against_active(servers, collection), what="comparison"
            )
            comparing.show(result)
            if refused := refusals(result, gates):
                raise StackError(
                    f"{active.model_name} still answers searches: {'; '.join(refused)}; to give up "
                    f"{name}: ./image-search models retire {name}"
                )
        await switcher.activate(collection, ModelStep.ACTIVATED)
    print(f"{name} answers searches now; to go back: ./image-search models rollback")


def _progress_text(progress: BackfillProgress) -> str:
    if progress.problem:
        return f"waiting: {progress.problem}"
    left = "" if progress.left is None else f", {progress.left:.0f} s left"
    return f"{progress.done} of {progress.total} records, {progress.rate:.0f} a second{left}"


def rollback(max_missing: MaxMissing = 0.01) -> None:
    """Let the previous model answer searches again; this takes effect at once."""
    print(f"{asyncio.run(_rollback(max_missing))} answers searches now")


async def _rollback(max_missing: float) -> str:
    async with connections(server_settings()) as servers:
        switcher = build_switcher(servers)
        return (await switcher.rollback(max_missing)).model_name


def retire(name: str) -> None:
    """Unload a model that is not active; delete its collection and its consumer group."""
    asyncio.run(_retire(name))
    print(f"{name} is retired; to delete its files: ./image-search models remove {name}")


async def _retire(name: str) -> None:
    async with connections(server_settings()) as servers:
        await build_switcher(servers).retire(name)
