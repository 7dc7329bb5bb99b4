"""`./image-search`: registers every command, and reports expected failures in one line."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Annotated, Final

import typer
from typer.main import get_group

from adapters.errors import AdapterError
from cli import completion, stack
from models.errors import ModelError
from stack.errors import StackError
from stack.install import standard_output

MODULES: Final[Mapping[str, str]] = {
    "search": "Find pictures by a text, a picture, or a combination of several.",
    "dlq": "Records that could not be indexed.",
    "index": "Check the collection that answers searches, and the sources.",
    "analytics": "Searches and ratings: the event lake, replay, queries, exports.",
    "models": "Models: download, inspect, switch and compare.",
}
"""Module of a command, or of a group of commands, of its own name -> the help in the overview."""
ASKS_NOTHING: Final = ("--version", *completion.OPTIONS)
"""First arguments with which no settings are read."""
GARBAGE_THRESHOLD: Final = 20_000
"""How many new containers start a garbage collection; what is imported holds no garbage."""
EPILOG: Final = "Exit status: 0 for success, 1 for a failure or if not ready, 2 for wrong usage."


def build(arguments: Sequence[str] = ()) -> typer.Typer:
    """The application for these arguments, with only the module of `MODULES` that they name.

    Importing all modules takes a second. If the arguments name none, as in `--help`, the overview
    is there without them. Without any argument, everything is registered.
    """
    app = typer.Typer(
        name="image-search",
        help="Find pictures by describing them.",
        epilog=EPILOG,
        no_args_is_help=True,
        # Plain help: the libraries for boxes around it take longer than everything else.
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(options)
    stack.register(app)
    first = next((each for each in arguments if not each.startswith("-")), "")
    if first in get_group(app).commands:
        return app
    for name in (first,) if first in MODULES else MODULES:
        if arguments and first != name:
            app.add_typer(typer.Typer(help=MODULES[name]), name=name)
        else:
            import_module(f"cli.{name}").register(app)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        from stack.install.version import version

        print(f"image-search {version()}")
        raise typer.Exit


def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Find pictures by describing them."""


def main() -> None:
    """Run a command; an expected failure is one message and exit status 1."""
    with standard_output.reported():
        _main()


def _main() -> None:
    gc.set_threshold(GARBAGE_THRESHOLD)
    arguments = completion.typed() if completion.is_asked() else sys.argv[1:]
    app = build(arguments or ["--help"])
    name = f"./{completion.NAME}"
    if completion.wants_script(sys.argv[1:]):
        completion.use_path()
        name = completion.NAME
    try:
        asks_nothing = "--help" in sys.argv or any(each in ASKS_NOTHING for each in sys.argv[1:2])
        if asks_nothing or completion.is_asked():
            app(prog_name=name, complete_var=completion.VARIABLE)
        else:
            _run(app, name)
    except (StackError, AdapterError, ModelError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _run(app: typer.Typer, name: str) -> None:
    """Run a command that needs the settings; a bad one is reported before anything is done."""
    from adapters.settings import exit_on_bad_settings
    from stack.settings import StackSettings

    # Do not log that the broker is still starting: the launcher reports when it is ready.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    with exit_on_bad_settings():
        StackSettings()
        app(prog_name=name, complete_var=completion.VARIABLE)


if __name__ == "__main__":
    main()
