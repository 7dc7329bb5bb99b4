"""`./image-search`: registers every command, and reports expected failures in one line."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

import typer
from typer.main import get_group

from adapters.errors import AdapterError
from adapters.settings import exit_on_bad_settings
from cli import stack
from models.errors import ModelError
from stack.errors import StackError
from stack.settings import StackSettings

MODULES: Final = ("search", "dlq", "index", "analytics", "models")
"""Each registers the command, or the group of commands, of its own name."""


def build(arguments: Sequence[str] = ()) -> typer.Typer:
    """The application for these arguments, with only the module of `MODULES` that they name.

    Importing all modules takes a second. If the arguments name none, as in `--help`, all are
    registered.
    """
    app = typer.Typer(
        name="image-search",
        help="Find pictures by describing them.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    stack.register(app)
    first = arguments[0] if arguments else ""
    if first in get_group(app).commands:
        return app
    for name in (first,) if first in MODULES else MODULES:
        import_module(f"cli.{name}").register(app)
    return app


def main() -> None:
    """Run a command; an expected failure is one message and exit status 1."""
    # Do not log that the broker is still starting: the launcher reports when it is ready.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        with exit_on_bad_settings():
            if "--help" not in sys.argv:
                StackSettings()  # Report a bad value now; some commands read them only later.
            build(sys.argv[1:])(prog_name="./image-search")
    except (StackError, AdapterError, ModelError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
