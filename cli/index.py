"""index: compare the active collection, and the sources, with the log."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import AsJson, print_json
from producers.skipped import MAX_NAMES, SkipReason
from stack.errors import StackError
from stack.install.standard_output import printable

if TYPE_CHECKING:
    import psutil

    from consumers.repair.audit import Audit
    from stack.settings import StackSettings

SHOWN = 20
REASONS: dict[str, str] = {
    SkipReason.NOT_AN_IMAGE: "the first bytes are not those of a picture",
    SkipReason.OTHER_SUFFIX: "the suffix is not that of a picture; not opened",
    SkipReason.IGNORED: "hidden, temporary, or matched by an ignore rule",
    SkipReason.NOT_A_FILE: "a link that is not followed, a pipe, a socket or a device",
    SkipReason.TOO_LARGE: "larger than MAX_IMAGE_BYTES; see dlq list",
    SkipReason.UNREADABLE: "cannot be read now; will be retried",
    SkipReason.NAME_NOT_UTF8: "the name is not UTF-8; see dlq list",
}
POLL_SECONDS = 0.2


def register(app: typer.Typer) -> None:
    """Register these commands."""
    group = typer.Typer(help="Check the collection that answers searches, and the sources.")
    group.callback()(lambda: None)
    group.command()(audit)
    group.command()(reconcile)
    group.command(name="skipped")(list_skipped)
    app.add_typer(group, name="index")


def audit(
    repair: Annotated[
        bool, typer.Option("--repair", help="Publish records that repair the differences.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare the log with the active collection. Exits with status 1 if they differ."""
    import asyncio

    result, published = asyncio.run(_audit(repair))
    if as_json:
        print_json(_audit_as_json(result) | ({"published": published} if repair else {}))
    else:
        _print(result)
    if published and not as_json:
        print(f"published {published} records; the indexers apply them", flush=True)
    if not result.is_clean and not published:
        raise typer.Exit(1)


def reconcile(
    allow_mass_removal: Annotated[
        bool,
        typer.Option(
            "--allow-mass-removal", help="Confirm that most pictures were really deleted."
        ),
    ] = False,
    wait: Annotated[bool, typer.Option(help="Wait until the comparison has ended.")] = True,
    as_json: AsJson = False,
) -> None:
    """Make the watcher compare every source with the log now."""
    import signal

    from cli.servers import watcher_status
    from stack.record import RecordFile, find
    from stack.settings import StackSettings

    settings = StackSettings()
    record = RecordFile(settings.run).read()
    rows = [row for row in record.processes if row.name == "watcher"] if record else []
    process = find(rows[0]) if rows else None
    if process is None:
        raise StackError("the watcher is not running; start it with './image-search up'")
    before = watcher_status(settings)
    process.send_signal(signal.SIGUSR1 if allow_mass_removal else signal.SIGHUP)
    if not wait and as_json:
        print_json({"state": "requested"})
        return
    if not wait:
        print("comparison requested; see: ./image-search logs watcher")
        return
    after = _wait_for_comparison(settings, before, process, silent=as_json)
    done = {
        "state": after["state"],
        "known": after["known"],
        "published": after["published"] - before.get("published", 0),
        "removed": after["removed"] - before.get("removed", 0),
        "problem": after["problem"],
    }
    if as_json:
        print_json(done)
        return
    print(
        f"{done['state']}: {done['known']} pictures known, {done['published']} published, "
        f"{done['removed']} removed{'; ' + done['problem'] if done['problem'] else ''}"
    )


def list_skipped(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, for programs, with more names.")
    ] = False,
) -> None:
    """List what the watcher skipped, and why. A folder counts as one, with its content."""
    from adapters.watcher_status import skipped
    from stack.settings import StackSettings

    found = skipped(StackSettings().watcher_status)
    if found is None:
        raise StackError("the watcher has not reported yet; start it with './image-search up'")
    rows = [
        {"reason": reason, "count": count, "names": found.names.get(reason, [])}
        for reason, count in found.counts.most_common()
    ]
    if as_json:
        print_json({"total": found.counts.total(), "reasons": rows})
        return
    print(f"{found.counts.total()} skipped")
    for reason, count in found.counts.most_common():
        print(f"\n{count} {reason}: {REASONS.get(reason, reason)}")
        names = found.names.get(reason, [])[:SHOWN]
        for name in names:
            # One line each, even if a name contains line breaks.
            print(f"  {name if name.isprintable() else ascii(name)}")
        if count > len(names):
            print(f"  and {count - len(names)} more; --json lists up to {MAX_NAMES} of each source")


def _wait_for_comparison(
    settings: StackSettings, before: dict[str, Any], process: psutil.Process, *, silent: bool
) -> dict[str, Any]:
    """The watcher's status after its next comparison; shows a progress bar on a terminal."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from cli.servers import watcher_status

    columns = (
        TextColumn("comparing"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, disable=silent or not sys.stdout.isatty(), transient=True) as bar:
        # The tree holds about as many images as are known; a first scan has no estimate.
        task = bar.add_task("", total=before.get("known") or None)
        while process.is_running():
            now = watcher_status(settings)
            if now and now["last_reconcile"] != before.get("last_reconcile"):
                return now
            if now.get("problem") and now["state"] == "folder missing":
                return now
            if now.get("scanned") is not None:
                bar.update(task, completed=now["scanned"])
            time.sleep(POLL_SECONDS)
    raise StackError("the watcher ended; see: ./image-search logs watcher")


async def _audit(repair: bool) -> tuple[Audit, int]:
    from adapters.bootstrap import connections
    from cli.servers import server_settings
    from consumers.repair.audit import audit as compare
    from consumers.repair.audit import repair as publish_repairs
    from schemas.topics import IMAGES

    async with connections(server_settings()) as servers:
        collection = await servers.index.active()
        if collection is None:
            raise StackError("no collection is active yet")
        before = await servers.groups.progress(IMAGES, collection.group)
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
    print(f"{result.agreed} pictures agree")
    for what, ids in (
        ("missing from the collection", result.missing),
        ("with outdated content", result.stale),
        ("orphaned in the collection", result.orphaned),
        ("dead-lettered (see dlq list)", result.dead_lettered),
        ("not read by the indexers yet", result.waiting),
    ):
        if ids:
            more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
            print(f"{len(ids)} {what}: {', '.join(map(printable, ids[:SHOWN]))}{more}")
