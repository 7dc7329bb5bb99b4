"""analytics: queries, exports and maintenance of the event lake."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.output import AlwaysJson, AsJson, columns, finite, print_json
from stack.errors import StackError

if TYPE_CHECKING:
    from analytics.lake import Lake
    from analytics.views import EventFilters
    from consumers.analytics.rebuild import RebuildResult

TOPIC_NAMES: Final = ("images", "images.indexed", "images.dlq", "searches", "feedback", "models")
"""The topics in the help, whose definitions (`schemas.topics`) take long to import."""
Since = Annotated[
    str | None, typer.Option("--since", help="Only events from this time on (ISO 8601, UTC).")
]
Until = Annotated[str | None, typer.Option("--until", help="Only events before this time.")]
Model = Annotated[str | None, typer.Option("--model", help="Only events of this model.")]
Into = Annotated[Path, typer.Option("--to", help="Folder to write the files into.")]


def register(app: typer.Typer) -> None:
    """Register these commands."""
    group = typer.Typer(help="Searches and ratings: the event lake, replay, queries, exports.")
    group.callback()(lambda: None)
    group.command("sql")(sql)
    group.command("replay")(replay_events)
    group.command("rebuild")(rebuild_lake)
    group.command("compact")(compact_lake)
    group.command("forget")(forget_events)
    group.command("report")(write_report)
    group.command("export-qrels")(export_qrels)
    group.command("export-ubi")(export_ubi)
    group.command("metrics")(metrics)
    app.add_typer(group, name="analytics")


def lake() -> Lake:
    """The environment's lake, else the local stack's."""
    from analytics.lake import Lake
    from stack.settings import StackSettings

    return Lake(StackSettings().lake)


def sql(
    statement: Annotated[
        str, typer.Argument(help="SQL of DuckDB, for instance FROM latency_by_stage.")
    ],
    since: Since = None,
    until: Until = None,
    model: Model = None,
    as_json: AsJson = False,
) -> None:
    """Run an SQL query on the views of analytics/views.sql."""
    wanted = filters(since, until, model)
    import duckdb
    from rich.console import Console
    from rich.table import Table

    from analytics.views import query

    try:
        rows = query(lake(), statement, wanted)
    except duckdb.Error as error:
        raise StackError(str(error)) from error
    if as_json:
        print_json(rows, str)
        return
    table = Table(*(rows[0] if rows else ("nothing",)))
    for row in rows:
        table.add_row(*(_shown(value) for value in row.values()))
    Console().print(table)


def replay_events(
    topic: Annotated[str, typer.Option("--topic", help=f"One of {', '.join(TOPIC_NAMES)}.")],
    start: Annotated[
        str | None, typer.Option("--from", help="First offset, or a time (ISO 8601).")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Offset or time to stop before.")] = None,
    as_json: AlwaysJson = True,
) -> None:
    """Print a topic's events as JSON lines. Times are those at which Kafka stored them."""
    import asyncio

    if topic not in TOPIC_NAMES:
        raise StackError(f"there is no topic {topic!r}; the topics are {', '.join(TOPIC_NAMES)}")
    asyncio.run(_replay(topic, _point("--from", start), _point("--to", end)))


async def _replay(topic: str, start: int | datetime | None, end: int | datetime | None) -> None:
    from adapters.bootstrap import connections
    from cli.servers import server_settings
    from consumers.analytics.replay import replay
    from schemas.topics import BY_NAME

    async with connections(server_settings()) as servers:
        async for line in replay(servers.log, BY_NAME[topic], start, end):
            sys.stdout.write(f"{line}\n")


def rebuild_lake(as_json: AsJson = False) -> None:
    """Build a new lake from the beginning of the log, then replace the present one with it."""
    import asyncio

    from adapters.bootstrap import connections
    from analytics.compaction import expire
    from cli.servers import server_settings
    from consumers.analytics.rebuild import rebuild

    async def work() -> RebuildResult:
        async with connections(server_settings()) as servers:
            done = await rebuild(servers.log, lake())
            if days := server_settings().retention_days:
                # Kafka deletes whole segments, so the log may hold events that have expired.
                await asyncio.to_thread(expire, lake(), days)
            return done

    done = asyncio.run(work())
    if as_json:
        print_json({"read": done.read, "carried": done.carried})
        return
    for topic, count in done.read.items():
        carried = done.carried[topic]
        only_lake = f", {carried} of them no longer in the log" if carried else ""
        print(f"{topic}: {count} events{only_lake}")


def compact_lake(
    min_files: Annotated[
        int, typer.Option(min=2, help="Minimum number of adjacent files to merge.")
    ] = 2,
    grace: Annotated[
        float,
        typer.Option(
            min=0,
            max=1_000_000,
            callback=finite,
            help="Seconds for which readers may still use merged files.",
        ),
    ] = 600.0,
    as_json: AsJson = False,
) -> None:
    """Merge small files, and delete files that were merged earlier."""
    from dataclasses import asdict

    from analytics.compaction import compact
    from analytics.lake import TOPICS

    generation = lake().current()
    found: dict[str, dict[str, int]] = {}
    for topic in TOPICS:
        done = compact(generation, topic.name, min_files=min_files, grace_seconds=grace)
        found[topic.name] = asdict(done)
        if not as_json:
            print(
                f"{topic.name}: merged {done.merged} files into {done.written}; "
                f"deleted {done.removed} old files"
            )
    if as_json:
        print_json(found)


def forget_events(
    search: Annotated[list[str] | None, typer.Option("--search", help="Id of a search.")] = None,
    client: Annotated[
        list[str] | None, typer.Option("--client", help="Name of a client, as events contain it.")
    ] = None,
    who: Annotated[
        list[str] | None,
        typer.Option("--who", help="Address, API key or token subject of a client."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remove searches and their ratings from the lake, now and in every rebuild.

    Later events of such a client are not stored in the lake either. Kafka's own copy stays until
    its topic's retention (RETENTION_DAYS) removes it.
    """
    if not search and not client and not who:
        raise StackError("specify --search, --client or --who")
    from analytics.compaction import forget
    from analytics.lake import ForgetRequest

    names = {*(client or ()), *(name for each in who or () for name in _names(each))}
    taken = forget(lake(), ForgetRequest(frozenset(search or ()), frozenset(names)))
    if as_json:
        print_json({"removed": taken})
    else:
        print(f"{taken} events removed")


def _names(who: str) -> frozenset[str]:
    """The names of this client in events."""
    from gateway.auth.privacy import Privacy
    from gateway.auth.receipts import receipt_secret
    from gateway.settings import GatewaySettings
    from stack.settings import StackSettings

    file = Path(StackSettings().environment()["JWT_SECRET_FILE"])
    settings = GatewaySettings(jwt_secret_file=file)
    return Privacy(settings, receipt_secret(settings)).names(who)


def write_report(
    to: Annotated[Path, typer.Option("--to", help="File to write.")] = Path("analytics.html"),
    since: Since = None,
    until: Until = None,
    model: Model = None,
    as_json: AsJson = False,
) -> None:
    """Write the analytics page as one self-contained HTML file."""
    from analytics import report

    to.write_text(report.render(lake(), filters(since, until, model)), encoding="utf-8")
    if as_json:
        print_json({"file": str(to)})
    else:
        print(f"wrote {to}")


def export_qrels(
    to: Into = Path("judgments"),
    since: Since = None,
    until: Until = None,
    model: Model = None,
    as_json: AsJson = False,
) -> None:
    """Write the ratings as relevance judgments (TREC qrels), with the runs and the queries."""
    from analytics import judgments

    _print_lines(judgments.write_trec(lake(), to, filters(since, until, model)), as_json)


def export_ubi(
    to: Into = Path("ubi"),
    since: Since = None,
    until: Until = None,
    model: Model = None,
    as_json: AsJson = False,
) -> None:
    """Write searches and ratings as OpenSearch's User Behavior Insights (JSON lines)."""
    from analytics import judgments

    _print_lines(judgments.write_ubi(lake(), to, filters(since, until, model)), as_json)


def _print_lines(written: Mapping[Path, int], as_json: bool) -> None:
    """Print how many lines each file has that was written."""
    if as_json:
        print_json({"lines": {str(path): count for path, count in written.items()}})
        return
    for path, count in written.items():
        print(f"{path}: {count} lines")


def metrics(
    since: Since = None, until: Until = None, model: Model = None, as_json: AsJson = False
) -> None:
    """Show nDCG, reciprocal rank and precision of each model, from ratings of single pictures."""
    from analytics import judgments

    found = judgments.metrics(lake(), filters(since, until, model))
    if as_json:
        print_json(found)
        return
    if not found:
        print("no picture has been rated yet")
        return
    names = list(next(iter(found.values())))
    rows = [("model", *names)]
    for name, values in found.items():
        rows.append((name, *(_shown(values[metric]) for metric in names)))
    print(columns(rows))


def filters(since: str | None, until: str | None, model: str | None) -> EventFilters:
    """The options as filters; a time without a zone is UTC."""
    times = _time("--since", since), _time("--until", until)
    from analytics.views import EventFilters  # Once the times are known to be right.

    return EventFilters(*times, model)


def _point(option: str, text: str | None) -> int | datetime | None:
    return int(text) if text is not None and text.isdecimal() else _time(option, text)


def _time(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise StackError(f"{option}: {text!r} is not a time such as 2026-01-05T08:00") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
