"""models pull, add, remove: the models that are installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.names import ModelNameArgument
from cli.output import AsJson, finite, note, tell
from stack.errors import StackError

if TYPE_CHECKING:
    from models.catalogue import CatalogueEntry


def register(group: typer.Typer) -> None:
    """Register these commands."""
    for command in (pull, add, remove):
        group.command()(command)


@contextmanager
def reporting_file_errors() -> Iterator[None]:
    """Report a file that cannot be read or written in one line."""
    try:
        yield
    except OSError as error:
        raise StackError(str(error)) from error


def pull(
    name: ModelNameArgument,
    revision: Annotated[
        str | None,
        typer.Option("--revision", help="Commit to download instead of the catalogue's."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Compare an installed model with the hub.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Download a model of the catalogue; an interrupted download is resumed.

    HF_ENDPOINT names another hub; HF_TOKEN is the token for signing in.
    """
    from models.catalogue import read_catalogue
    from stack.settings import StackSettings
    from stack.triton_models import model_registry

    settings, entry = StackSettings(), read_catalogue().get(name)
    if entry is None or entry.repository is None or entry.revision is None:
        raise StackError(
            f"{name!r} is not a model of the catalogue; see: ./image-search models list"
        )
    here = model_registry(settings).store()
    present = here.origin(name) if name in here.names() else None
    if present is not None and not again:
        text = f"{name} is already installed, at {present.revision}"
        tell(as_json, text, name=name, revision=present.revision, changed=False)
        return
    from models.hub import download, origin  # Here, because its library takes long to import.

    wanted = revision or (present.revision if present else None) or entry.revision
    with reporting_file_errors():
        got = download(entry.repository, wanted, settings.cache / "hub", pinned=entry.pins(wanted))
    if present is not None:
        if dict(present.files) != got.files:
            raise StackError(f"{name}: the hub's files differ from those that were installed")
        text = f"{name} is unchanged, at {present.revision}"
        tell(as_json, text, name=name, revision=present.revision, changed=False)
        return
    with reporting_file_errors():
        _compare(name, entry, got.folder)
        here.add(got.folder, name, origin(entry, got))
    text = f"{name} is installed, at {got.commit}; to use it: ./image-search models switch {name}"
    tell(as_json, text, name=name, revision=got.commit, changed=True)


def _compare(name: str, entry: CatalogueEntry, folder: Path) -> None:
    """Note where the folder's own configuration differs from the catalogue."""
    from models.layout import read_layout

    layout = read_layout(folder)
    pairs = {
        "dimension": (entry.dimension, layout.dimension),
        "size": (entry.size, (layout.height, layout.width)),
        "context_length": (entry.context_length, layout.context_length),
        "interpolation": (entry.interpolation, layout.interpolation),
    }
    for field, (promised, found) in pairs.items():
        if promised != found:
            note(
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
        float,
        typer.Option(
            "--min-score", help="Cosine similarity below which a match is noise.", callback=finite
        ),
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Install a model from a local folder that is laid out as those of immich-app."""
    from models.store import Origin
    from stack.settings import StackSettings
    from stack.triton_models import model_registry

    with reporting_file_errors():
        source = folder.resolve()
        origin = Origin(source=source.as_uri(), licence=licence)
        spec = (
            model_registry(StackSettings())
            .store()
            .add(source, name or source.name, origin, min_score)
        )
    tell(
        as_json,
        f"{spec.name} is installed: {spec.width}x{spec.height} pixels, dimension {spec.dimension}, "
        f"version {spec.version}; to use it: ./image-search models switch {spec.name}",
        **spec.model_dump(mode="json"),
    )


def remove(name: ModelNameArgument, as_json: AsJson = False) -> None:
    """Delete a model's files. A model that is served has to be retired first."""
    from models.adoption_status import AdoptionFile
    from stack.settings import StackSettings
    from stack.triton_models import model_registry

    settings = StackSettings()
    registry = model_registry(settings)
    if name in registry.read().current:
        raise StackError(f"{name} is served; retire it first: ./image-search models retire {name}")
    with reporting_file_errors():
        registry.store().remove(name)
    change = AdoptionFile(settings.adoption).read()
    if change is not None and change.resumable and change.model == name:
        with registry.changing() as state:  # Else the automatic change would download it again.
            state.state = state.state.by_command()
    tell(as_json, f"{name} is removed", removed=name)
