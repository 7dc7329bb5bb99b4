"""index: compare the active collection, and the sources, with the log."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from adapters.bootstrap import connections, group_progress
from adapters.watcher_status import skipped
from cli.servers import server_settings, watcher_status
from consumers.repair.audit import Audit
from consumers.repair.audit import audit as compare
from consumers.repair.audit import repair as publish_repairs
from producers.skipped import MAX_NAMES, SkipReason
from schemas.topics import IMAGES
from stack.errors import StackError
from stack.record import RecordFile, find
from stack.settings import StackSettings

SHOWN = 20
REASONS: dict[str, str] = {
    SkipReason.NOT_A_PICTURE: "the first bytes are those of no picture",
    SkipReason.OTHER_SUFFIX: "the name says that it is none; not opened",
    SkipReason.IGNORED: "hidden, temporary, or by an ignore rule",
    SkipReason.NOT_A_FILE: "a link that is not followed, a pipe, a socket or a device",
    SkipReason.TOO_LARGE: "over MAX_IMAGE_BYTES; see dlq list",
    SkipReason.UNREADABLE: "tried again later",
    SkipReason.NAME_NOT_UTF8: "see dlq list",
}
POLL_SECONDS = 0.2


def register(app: typer.Typer) -> None:
    """Add these commands."""
    group = typer.Typer(help="The collection that searches are answered from.")
    group.callback()(lambda: None)
    group.command()(audit)
    group.command()(reconcile)
    group.command(name="skipped")(list_skipped)
    app.add_typer(group, name="index")


def audit(
    repair: Annotated[
        bool, typer.Option("--repair", help="Publish what is wrong again, so that it is repaired.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Compare the log with the active collection. Exits with 1 when they disagree."""
    result, published = asyncio.run(_audit(repair))
    if as_json:
        print(json.dumps(_audit_as_json(result), indent=2, ensure_ascii=False))
    else:
        _print(result)
    if published:
        print(f"published {published} records; the indexers repair the rest", flush=True)
    if not result.is_clean and not published:
        raise typer.Exit(1)


def reconcile(
    allow_mass_removal: Annotated[
        bool,
        typer.Option(
            "--allow-mass-removal", help="Confirm that most of the pictures were deleted."
        ),
    ] = False,
    wait: Annotated[bool, typer.Option(help="Wait for the end of the comparison.")] = True,
) -> None:
    """Have the watcher compare every source with the log now."""
    settings = StackSettings()
    record = RecordFile(settings.run).read()
    rows = [row for row in record.processes if row.name == "watcher"] if record else []
    process = find(rows[0]) if rows else None
    if process is None:
        raise StackError("the watcher is not running; start it with './image-search up'")
    before = watcher_status(settings)
    process.send_signal(signal.SIGUSR1 if allow_mass_removal else signal.SIGHUP)
    if not wait:
        print("comparing; see: ./image-search logs watcher")
        return
    told = _follow(settings, before, process)
    print(
        f"{told['state']}: {told['known']} pictures known, "
        f"{told['published'] - before.get('published', 0)} published, "
        f"{told['removed'] - before.get('removed', 0)} removed"
        f"{'; ' + told['problem'] if told['problem'] else ''}"
    )


def list_skipped(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, for programs, with more names.")
    ] = False,
) -> None:
    """List what the watcher passed over, and why; a folder stands for everything in it."""
    found = skipped(StackSettings().watcher_status)
    if found is None:
        raise StackError("the watcher has not reported yet; start it with './image-search up'")
    rows = [
        {"reason": reason, "count": count, "names": found.names.get(reason, [])}
        for reason, count in found.counts.most_common()
    ]
    if as_json:
        print(json.dumps({"total": found.counts.total(), "reasons": rows}, indent=2))
        return
    print(f"{found.counts.total()} passed over")
    for reason, count in found.counts.most_common():
        print(f"\n{count} {reason}: {REASONS.get(reason, reason)}")
        names = found.names.get(reason, [])[:SHOWN]
        for name in names:
            # One line each, whatever is in a name.
            print(f"  {name if name.isprintable() else ascii(name)}")
        if count > len(names):
            print(f"  and {count - len(names)} more; --json lists up to {MAX_NAMES} of a source")


def _follow(
    settings: StackSettings, before: dict[str, Any], process: psutil.Process
) -> dict[str, Any]:
    """The watcher's state after its next comparison; on a terminal, a bar meanwhile."""
    columns = (
        TextColumn("comparing"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, disable=not sys.stdout.isatty(), transient=True) as bar:
        # The tree is about as large as what is known of it; a first scan has nothing to go by.
        task = bar.add_task("", total=before.get("known") or None)
        while process.is_running():
            told = watcher_status(settings)
            if told and told["last_reconcile"] != before.get("last_reconcile"):
                return told
            if told.get("problem") and told["state"] == "folder missing":
                return told
            if told.get("scanned") is not None:
                bar.update(task, completed=told["scanned"])
            time.sleep(POLL_SECONDS)
    raise StackError("the watcher ended; see: ./image-search logs watcher")


async def _audit(repair: bool) -> tuple[Audit, int]:
    settings = server_settings()
    async with connections(settings) as servers:
        collection = await servers.index.active()
        if collection is None:
            raise StackError("no collection is active yet")
        before = await group_progress(settings, IMAGES, collection.group)
        result = await compare(servers.log, servers.index, collection, before.has_read)
        published = (
            0 if result.is_clean or not repair else await publish_repairs(servers.log, result)
        )
        return result, published


def _audit_as_json(result: Audit) -> dict[str, object]:
    return {
        "clean": result.is_clean,
        "agreed": result.agreed,
        "missing": result.missing,
        "stale": result.stale,
        "orphaned": result.orphaned,
        "dead_lettered": result.dead_lettered,
        "waiting": result.waiting,
    }


def _print(result: Audit) -> None:
    console = Console()
    console.print(f"{result.agreed} pictures agree")
    for what, ids in (
        ("missing from the collection", result.missing),
        ("of former content", result.stale),
        ("orphaned in the collection", result.orphaned),
        ("dead-lettered (see dlq list)", result.dead_lettered),
        ("not read by the indexers yet", result.waiting),
    ):
        if ids:
            more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
            console.print(f"{len(ids)} {what}: {', '.join(ids[:SHOWN])}{more}", soft_wrap=True)
