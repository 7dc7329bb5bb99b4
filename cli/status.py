"""status: what runs, and whether searches can be answered."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import typer

from cli.output import AsJson, columns, print_json
from stack.install.standard_output import printable

if TYPE_CHECKING:
    from models.adoption_status import AdoptionStatus
    from stack.settings import StackSettings


def status(as_json: AsJson = False) -> None:
    """Show the processes, and whether searches can be answered. Exits with status 1 if not."""
    import asyncio

    from cli.answers import ask
    from models.adoption_status import AdoptionFile
    from stack import rows
    from stack.record import RecordFile
    from stack.settings import StackSettings

    current = StackSettings()
    record = RecordFile(current.run).read()
    processes = record.processes if record else []
    memory = rows.memory_by_session() if processes else {}
    found: dict[str, Any] = {
        "processes": [rows.as_json(row, current.run, memory) for row in processes]
    }
    found.update(asyncio.run(ask(current)))
    adoption = AdoptionFile(current.adoption).read()
    found["adoption"] = adoption.as_json() if adoption else None
    if as_json:
        print_json(found)
    else:
        # Without a launcher, the file is of an earlier run.
        shown = record and adoption and adoption.is_news_for(current.active_model)
        _print_status(found, current, adoption if shown else None)
    if found["gateway"]["status"] != "ok":
        raise typer.Exit(1)


def _print_status(
    found: dict[str, Any], current: StackSettings, adoption: AdoptionStatus | None
) -> None:
    _print_processes(found["processes"], current)
    for name, answers in found["servers"].items():
        print(f"{name}: {'answers' if answers else 'does not answer'}")
    health, lag, watcher = found["gateway"], found["lag"], found["watcher"]
    problem = "" if health["status"] == "ok" else f": {health.get('detail', '')}"
    print(printable(f"gateway: {health['status']} ({health['url']}){problem}"))
    if lag is not None:
        print(f"indexing: {lag} {'record' if lag == 1 else 'records'} behind the log")
    if watcher:
        print(_of_source("watcher", watcher))
        sources = watcher.get("sources")
        for name, source in sources.items() if isinstance(sources, dict) else ():
            print(_of_source(f"source {name}", source))
    if adoption:
        print(f"model: {adoption.sentence()}")
    if found["advice"] and found["advice"].get("low"):
        from models.advice import Advice

        with suppress(TypeError):  # It is of another version.
            print(Advice(**found["advice"]).sentence())


def _of_source(name: str, status: object) -> str:
    """A line on a source; of a status of another version, what is known."""
    found = status if isinstance(status, dict) else {}
    texts = (str(found[each]) for each in ("state", "problem") if found.get(each))
    return printable(f"{name}: {' '.join(texts) or 'not known'}")


def _print_processes(rows: list[dict[str, Any]], current: StackSettings) -> None:
    if not rows:
        print(f"no stack was started in {current.state}")
        return
    table = [("process", "state", "pid", "up", "restarts", "memory", "log")]
    for row in rows:
        up = "" if row["uptime_seconds"] is None else f"{row['uptime_seconds']} s"
        memory = f"{row['memory_bytes'] / 1e6:.0f} MB" if row["memory_bytes"] else ""
        restarts, pid = str(row["restarts"]), str(row["pid"] or "")
        table.append((row["name"], row["state"], pid, up, restarts, memory, row["log"]))
    print(columns(table))
    for row in rows:
        for waited in row["waiting_for"]:
            print(printable(f"{row['name']} waits: {waited}"))
