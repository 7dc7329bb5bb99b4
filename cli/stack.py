"""up, down, logs, prepare, clean, doctor; and `status`, which is a module of its own.

What a command needs is imported when it runs, so that none waits for the libraries of another.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.names import LOG_NAMES
from cli.output import AsJson, columns, gigabytes, note, print_json
from cli.status import status

if TYPE_CHECKING:
    from stack.record import Record
    from stack.settings import StackSettings


def register(app: typer.Typer) -> None:
    """Register these commands."""
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(logs)
    app.command()(prepare)
    app.command()(clean)
    app.command()(doctor)


def up(
    detach: Annotated[
        bool,
        typer.Option("--detach", help="Run in the background; return when everything is ready."),
    ] = False,
    servers_only: Annotated[
        bool, typer.Option("--servers-only", help="Start only Kafka, Weaviate and Triton.")
    ] = False,
    indexers: Annotated[
        int | None, typer.Option("--indexers", help="Number of indexers of each collection.")
    ] = None,
    show_logs: Annotated[
        bool,
        typer.Option("--logs", help="Show what the processes log instead of one live table."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --detach: print JSON, for programs.")
    ] = False,
) -> None:
    """Start the servers, the watcher, the indexers and the gateway.

    In a terminal, one live table shows them; otherwise what they log is printed.
    """
    if as_json and not detach:
        raise typer.BadParameter("--json needs --detach; otherwise there is no result")
    from stack import detached, launcher
    from stack.settings import StackSettings

    changed = StackSettings() if indexers is None else StackSettings(indexers=indexers)
    if detach:
        output = sys.stderr if as_json else sys.stdout
        record = detached.up_detached(changed, servers_only=servers_only, output=output)
        if as_json:
            print_json(_started(record, changed, servers_only=servers_only))
        return
    follow = not os.environ.get("NO_FOLLOW")
    live = follow and not show_logs and sys.stdout.isatty()
    launcher.Launcher(changed, servers_only=servers_only, follow=follow, live=live).run()


def _started(record: Record, current: StackSettings, *, servers_only: bool) -> dict[str, Any]:
    """What runs after `up --detach`, and at which addresses."""
    addresses = current.environment()
    return {
        "gateway": None if servers_only else record.gateway_url,
        "servers": {
            "kafka": addresses["KAFKA_BOOTSTRAP_SERVERS"],
            "weaviate": addresses["WEAVIATE_URL"],
            "triton": addresses["TRITON_URL"],
        },
        "processes": {row.name: row.pid for row in record.processes if row.pid is not None},
        "logs": str(current.logs),
    }


def down(as_json: AsJson = False) -> None:
    """Stop everything; stored data is kept."""
    from stack.settings import StackSettings
    from stack.stopping import down as stop

    stopped = stop(StackSettings())
    if as_json:
        print_json({"stopped": stopped})
    else:
        print(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


def clean(as_json: AsJson = False) -> None:
    """Stop everything and delete the stored data. Pictures are not deleted.

    Shows what is left on the disk, and how to delete that too.
    """
    import shlex

    from stack import stopping
    from stack.settings import ROOT, StackSettings, user_cache

    current = StackSettings()
    cleaned = stopping.clean(current)
    environments = [path for path in sorted(ROOT.glob(".venv*")) if path.is_dir()]
    sizes = {path: stopping.disk_bytes(path) for path in [*environments, current.cache]}
    if as_json:
        left = [str(path) for path in cleaned.left]
        installed = {str(path): size for path, size in sizes.items()}
        print_json({"deleted_bytes": cleaned.deleted, "left": left, "installed_bytes": installed})
        return
    print(f"deleted {gigabytes(cleaned.deleted)} in {current.state}")
    for path in cleaned.left:
        print(f"not deleted, because image-search did not create it: {path}")
    print("still there are what was installed, and the servers and models for all checkouts:")
    print(columns([[f"  {gigabytes(size)}", str(path)] for path, size in sizes.items()]))
    # A folder that CACHE_DIR names may hold what is not ours.
    ours = [str(path) for path in sizes if path != current.cache or path == user_cache()]
    if ours:
        print(f"to delete them too: rm -rf {shlex.join(ours)}")


def prepare(as_json: AsJson = False) -> None:
    """Fetch and build the servers now, before the first `up`."""
    from stack import launcher
    from stack.settings import StackSettings

    current = StackSettings()
    specs = launcher.prepare(current, note if as_json else None)
    if as_json:
        servers = {each.name: each.command[0] for each in specs}
        print_json({"servers": servers, "cache": str(current.cache)})


def doctor(as_json: AsJson = False) -> None:
    """Check this machine: what is missing, and how to install it. Exits with status 1 if so."""
    from stack.install import preflight

    if status := preflight.main(["--json"] if as_json else []):
        raise typer.Exit(status)


def logs(
    name: Annotated[
        str | None,
        typer.Argument(help="Name of a process; by default all.", autocompletion=LOG_NAMES),
    ] = (None),
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=1, help="Number of lines of each log.")
    ] = 50,
    as_json: AsJson = False,
) -> None:
    """Print the last lines of each process's log."""
    from stack import log_files
    from stack.errors import StackError
    from stack.settings import StackSettings

    folder = StackSettings().logs
    known = sorted(path.stem for path in folder.glob("*.log"))
    if name is not None and name not in known:
        raise StackError(f"there is no log of {name!r}; the logs are: {', '.join(known) or 'none'}")
    found = {
        each: log_files.last_lines(folder / f"{each}.log", lines)
        for each in (known if name is None else [name])
    }
    if as_json:
        print_json(found)
        return
    for each, last in found.items():
        print(f"== {folder / each}.log")
        print("\n".join(last))
