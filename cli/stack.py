"""up, down, status, logs, prepare, clean."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import psutil
import typer
from rich.console import Console
from rich.table import Table

from adapters.bootstrap import connections
from adapters.errors import AdapterError
from cli.servers import server_settings, watcher_status
from models.adoption_status import AdoptionFile
from models.advice import Advice, advise
from models.settings import AdviceSettings
from schemas.topics import IMAGES
from stack import launcher, log_files, processes
from stack.errors import StackError
from stack.record import ProcessRow, RecordFile, find, uptime
from stack.settings import StackSettings


def register(app: typer.Typer) -> None:
    """Register these commands."""
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(logs)
    app.command()(prepare)
    app.command()(clean)


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
) -> None:
    """Start the servers, the watcher, the indexers and the gateway."""
    changed = StackSettings() if indexers is None else StackSettings(indexers=indexers)
    if detach:
        launcher.up_detached(changed, servers_only=servers_only)
    else:
        follow = not os.environ.get("NO_FOLLOW")
        launcher.Launcher(changed, servers_only=servers_only, follow=follow).run()


def down() -> None:
    """Stop everything; stored data is kept."""
    stopped = launcher.down(StackSettings())
    print(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


def clean() -> None:
    """Stop everything and delete the stored data. Pictures are not deleted."""
    current = StackSettings()
    for name in launcher.clean(current):
        print(f"not deleted, because image-search did not create it: {current.state / name}")


def prepare() -> None:
    """Fetch and build the servers now, so that the first `up` is quick."""
    launcher.prepare(StackSettings())


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Show the processes, and whether searches can be answered. Exits with status 1 if not."""
    current = StackSettings()
    file = RecordFile(current.run)
    record = file.read()
    rows = [_process_as_json(row, current.run) for row in record.processes] if record else []
    servers = asyncio.run(processes.servers_answer(current))
    health = _health(current.gateway_url)
    lag = _lag(health)
    watcher = watcher_status(current)
    advice = _advice(health)
    adoption = AdoptionFile(current.adoption).read()
    if as_json:
        found: dict[str, Any] = {
            "processes": rows,
            "servers": servers,
            "gateway": health,
            "lag": lag,
            "watcher": watcher,
            "advice": advice.as_json() if advice else None,
            "adoption": adoption.as_json() if adoption else None,
        }
        print(json.dumps(found, indent=2))
    else:
        _print_status(rows, servers, health, current)
        if lag is not None:
            print(f"indexing: {lag} {'record' if lag == 1 else 'records'} behind the log")
        if watcher:
            print(f"watcher: {watcher['state']} {watcher['problem']}".rstrip())
            for name, source in watcher["sources"].items():
                print(f"source {name}: {source['state']} {source['problem']}".rstrip())
        if record and adoption and adoption.is_news:
            print(f"model: {adoption.sentence()}")
        if advice and (sentence := advice.sentence()):
            print(sentence)
    if health["status"] != "ok":
        raise typer.Exit(1)


def _process_as_json(row: ProcessRow, run: Path) -> dict[str, Any]:
    process = find(row)
    memory = 0
    if process is not None:
        for member in (process, *process.children(recursive=True)):
            try:
                memory += member.memory_info().rss
            except psutil.NoSuchProcess:
                continue
    gone = process is None and row.pid is not None
    lasting = uptime(row)
    return {
        "name": row.name,
        "state": "gone" if gone else row.state,
        "pid": row.pid if process else None,
        "uptime_seconds": None if lasting is None else round(lasting),
        "restarts": row.restarts,
        "memory_bytes": memory,
        "waiting_for": _waiting_for(run / f"{row.name}.ready"),
        "log": row.log,
    }


def _waiting_for(ready_file: Path) -> list[str]:
    """The servers that a process waits for, by its last heartbeat, each with a hint."""
    try:
        lines = ready_file.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [f"{line}{hint(line)}" for line in lines]


HINTS: Final = {
    "not enough memory": "give Weaviate more with WEAVIATE_MEMORY (for instance 6GiB) and start "
    "again, or use a machine that has more",
    "read-only": "Weaviate is read-only while its disk is nearly full: free some space",
    "no space left": "the disk is full: free some space",
}
"""Part of a server's error message -> what the user can do about it."""


def hint(message: str) -> str:
    """What the user can do about it, in brackets; empty if there is only to wait."""
    lowered = message.lower().replace("readonly", "read-only")
    return next((f" ({what})" for part, what in HINTS.items() if part in lowered), "")


def _health(url: str) -> dict[str, Any]:
    try:
        answer = httpx.get(f"{url}/api/v1/healthcheck", timeout=5, trust_env=False)
        body = answer.json()
        return {"url": url, **body, "status": "ok" if answer.is_success else "unavailable"}
    except (httpx.HTTPError, ValueError) as error:
        return {"url": url, "status": "unreachable", "detail": str(error)}


def _lag(health: dict[str, Any]) -> int | None:
    """Records that the active collection's group has not read yet; None if not known."""
    if "collection" not in health:
        return None

    async def read() -> int | None:
        async with connections(server_settings()) as servers:
            active = await servers.index.active()
            if active is None:
                return None
            return (await servers.groups.progress(IMAGES, active.group)).lag

    try:
        return asyncio.run(read())
    except AdapterError:
        return None


def _advice(health: dict[str, Any]) -> Advice | None:
    """The advice from the ratings of the active model; None if not known."""
    if health["status"] != "ok":
        return None

    async def read() -> Advice:
        async with connections(server_settings()) as servers:
            return await advise(servers.log, servers.embedder, servers.index, AdviceSettings())

    try:
        return asyncio.run(read())
    except AdapterError:
        return None


def _print_status(
    rows: list[dict[str, Any]],
    servers: dict[str, bool],
    health: dict[str, Any],
    current: StackSettings,
) -> None:
    console = Console()
    if rows:
        table = Table("process", "state", "pid", "up", "restarts", "memory", "log", box=None)
        for row in rows:
            up_for = "" if row["uptime_seconds"] is None else f"{row['uptime_seconds']} s"
            table.add_row(
                row["name"],
                row["state"],
                str(row["pid"] or ""),
                up_for,
                str(row["restarts"]),
                f"{row['memory_bytes'] / 1e6:.0f} MB" if row["memory_bytes"] else "",
                row["log"],
            )
        console.print(table)
    else:
        console.print(f"no stack was started in {current.state}")
    for row in rows:
        for waited in row["waiting_for"]:
            console.print(f"{row['name']} waits: {waited}", soft_wrap=True)
    for name, answers in servers.items():
        console.print(f"{name}: {'answers' if answers else 'does not answer'}")
    console.print(f"gateway: {health['status']} ({health['url']})")
    if health["status"] != "ok":
        console.print(str(health.get("detail", "")), soft_wrap=True)


def logs(
    name: Annotated[str | None, typer.Argument(help="Name of a process; by default all.")] = (None),
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=1, help="Number of lines of each log.")
    ] = 50,
) -> None:
    """Print the last lines of each process's log."""
    folder = StackSettings().logs
    known = sorted(path.stem for path in folder.glob("*.log"))
    if name is not None and name not in known:
        raise StackError(f"there is no log of {name!r}; the logs are: {', '.join(known) or 'none'}")
    for each in known if name is None else [name]:
        print(f"== {folder / each}.log")
        print("\n".join(log_files.last_lines(folder / f"{each}.log", lines)))
