"""models: list, download, switch and retire models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import models_compare as comparing
from cli import models_files as files
from cli import models_render as rendering
from cli.models_compare import Gate
from cli.names import ModelNameArgument
from cli.output import AsJson, columns, finite, note, print_json, tell
from stack.errors import StackError

if TYPE_CHECKING:
    from adapters.bootstrap import Connections
    from models.store import ModelStore
    from models.switching import BackfillProgress, ModelSwitcher

MaxMissing = Annotated[
    float,
    typer.Option(
        "--max-missing",
        min=0.0,
        max=1.0,
        callback=finite,
        help="Share of the pictures that the collection may lack, 0 to 1.",
    ),
]


def register(app: typer.Typer) -> None:
    """Register these commands."""
    group = typer.Typer(help="Models: download, inspect, switch and compare.", no_args_is_help=True)
    group.command("list")(list_models)
    group.command()(info)
    files.register(group)
    for command in (switch, rollback, retire):
        group.command()(command)
    group.command()(adopt)
    group.command()(decline)
    comparing.register(group)
    rendering.register(group)
    app.add_typer(group, name="models")


def build_switcher(servers: Connections) -> ModelSwitcher:
    """The steps of a switch, on the local stack."""
    from models.switching import ModelSwitcher
    from stack.install.preparation import Cache
    from stack.serving import LocalServing
    from stack.settings import StackSettings
    from stack.triton_models import model_registry

    settings = StackSettings()
    serving = LocalServing(settings, Cache(settings.cache, note))
    return ModelSwitcher(model_registry(settings), servers, serving)


def list_models(as_json: AsJson = False) -> None:
    """List the installed models and those that can be pulled, with their state."""
    from models.catalogue import read_catalogue
    from stack.settings import StackSettings
    from stack.triton_models import model_registry

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
        print_json(rows)
        return
    table: list[tuple[str, ...]] = [("model", "state", "dimension", "licence", "")]
    for row in rows:
        fields = ("name", "state", "dimension", "licence", "summary")
        table.append(tuple(str(row[field]) for field in fields))
    print(columns(table))


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


def info(name: ModelNameArgument, as_json: AsJson = False) -> None:
    """Show everything that is known about one model."""
    from models.catalogue import read_catalogue
    from stack.settings import StackSettings
    from stack.triton_models import model_registry

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
        print_json(found)
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


def adopt(
    name: ModelNameArgument,
    give_up: Annotated[
        bool,
        typer.Option(
            "--give-up", help="Instead, unload the model and delete what was downloaded of it."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Download a model, fill its collection and switch to it, as the first `up` does by itself.

    It does nothing if a model was chosen or declined before. An interrupted change is resumed.
    """
    from cli import models_adopt

    models_adopt.adopt(name, give_up, as_json)


def decline(as_json: AsJson = False) -> None:
    """Keep the bundled model: end the automatic change to a better one, for this state folder."""
    from cli import models_adopt

    models_adopt.decline(as_json)


def switch(
    name: ModelNameArgument,
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
    as_json: AsJson = False,
) -> None:
    """Fill a model's collection from the log, then let it answer searches.

    The active model answers searches meanwhile. Repeat the command to resume an interrupted switch.
    Before the change, the model's answers to the recorded searches are compared with the active
    model's. With --gate, the change is made only if the comparison reaches these values.
    """
    import asyncio

    with files.reporting_file_errors():
        gates = comparing.gates_of(gate)
        asyncio.run(_switch(name, backfill_only, gates, max_missing, as_json=as_json))


async def _switch(
    name: str,
    backfill_only: bool,
    gates: dict[str, float],
    max_missing: float,
    *,
    as_json: bool = False,
) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    from adapters.bootstrap import connections
    from adapters.retry import until_available
    from cli.models_completeness import check_complete
    from cli.servers import server_settings
    from models.comparison import refusals
    from schemas.events import ModelStep

    say, console = (note if as_json else print), Console(stderr=as_json)
    outcome: dict[str, object] = {"name": name, "active": False, "comparison": None}
    async with connections(server_settings()) as servers:
        switcher = build_switcher(servers)
        collection = await switcher.prepare(name)
        say(f"{name} is loaded; filling {collection.name}")
        shown = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[detail]}")
        with Progress(*shown, console=console) as bar:
            task = bar.add_task("filling", detail="")
            async for progress in switcher.backfill_progress(collection):
                detail = _progress_text(progress)
                if not progress.problem:
                    bar.update(task, total=progress.total, completed=progress.done, detail=detail)
                else:
                    bar.update(task, detail=detail)
        say(_progress_text(progress))
        outcome |= {"collection": collection.name, "records": progress.done}
        if backfill_only:
            text = f"the collection of {name} is filled and kept current; searches do not use it"
            tell(as_json, text, **outcome)
            return
        await until_available(
            lambda: check_complete(servers, collection, progress.handled, max_missing), what="audit"
        )
        active = await servers.index.active()
        if active is not None and active.name != collection.name:
            result = await until_available(
                lambda: comparing.against_active(servers, collection), what="comparison"
            )
            outcome["comparison"] = result.summary()
            if not as_json:
                comparing.show(result)
            if refused := refusals(result, gates):
                raise StackError(
                    f"{active.model_name} still answers searches: {'; '.join(refused)}; to give up "
                    f"{name}: ./image-search models retire {name}"
                )
        await switcher.activate(collection, ModelStep.ACTIVATED)
    text = f"{name} answers searches now; to go back: ./image-search models rollback"
    tell(as_json, text, **outcome | {"active": True})


def _progress_text(progress: BackfillProgress) -> str:
    if progress.problem:
        return f"waiting: {progress.problem}"
    left = "" if progress.left is None else f", {progress.left:.0f} s left"
    return f"{progress.done} of {progress.total} records, {progress.rate:.0f} a second{left}"


def rollback(max_missing: MaxMissing = 0.01, as_json: AsJson = False) -> None:
    """Let the previous model answer searches again; this takes effect at once."""
    import asyncio

    name = asyncio.run(_rollback(max_missing))
    tell(as_json, f"{name} answers searches now", name=name, active=True)


async def _rollback(max_missing: float) -> str:
    from adapters.bootstrap import connections
    from cli.servers import server_settings

    async with connections(server_settings()) as servers:
        switcher = build_switcher(servers)
        return (await switcher.rollback(max_missing)).model_name


def retire(name: ModelNameArgument, as_json: AsJson = False) -> None:
    """Unload a model that is not active; delete its collection and its consumer group."""
    import asyncio

    asyncio.run(_retire(name))
    text = f"{name} is retired; to delete its files: ./image-search models remove {name}"
    tell(as_json, text, retired=name)


async def _retire(name: str) -> None:
    from adapters.bootstrap import connections
    from cli.servers import server_settings

    async with connections(server_settings()) as servers:
        await build_switcher(servers).retire(name)
