"""`./image-search`: every command and what each says when it fails."""

from __future__ import annotations

import logging
import sys

import typer

from adapters.errors import AdapterError
from cli import analytics, dlq, index, models, search, stack
from stack.errors import StackError

app = typer.Typer(
    name="image-search",
    help="Find pictures by describing them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
stack.register(app)
search.register(app)
dlq.register(app)
index.register(app)
analytics.register(app)
models.register(app)


def main() -> None:
    """Run a command; an expected failure is one message and exit status 1."""
    # A broker that is still starting is no news: the launcher says when it is ready.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        app(prog_name="./image-search")
    except (StackError, AdapterError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
