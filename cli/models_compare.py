"""models compare: a candidate's answers to the recorded searches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.names import ModelNameArgument
from cli.output import AsJson, columns, print_json
from stack.errors import StackError

if TYPE_CHECKING:
    from adapters.bootstrap import Connections
    from adapters.index.port import Collection
    from models.comparison import Comparison

Gate = Annotated[
    str | None,
    typer.Option(
        "--gate", help="Minimum values of the comparison, for instance overlap=0.3,ndcg_gain=0."
    ),
]
Limit = Annotated[
    int, typer.Option("--limit", min=1, help="Number of the newest queries to compare.")
]


def register(group: typer.Typer) -> None:
    """Register this command."""
    group.command()(compare)


def compare(
    name: ModelNameArgument,
    as_json: AsJson = False,
    page: Annotated[
        Path | None,
        typer.Option("--html", help="Write an HTML page that shows both answers to this file."),
    ] = None,
    gate: Gate = None,
    limit: Limit = 500,
) -> None:
    """Compare a model's answers to the recorded searches with the active model's.

    With --gate, exits with status 1 if a value is not reached. The model's collection has to be
    filled first: models switch NAME --backfill-only
    """
    gates = gates_of(gate)
    import asyncio

    from models.comparison import refusals
    from stack.settings import StackSettings

    result = asyncio.run(_compare(name, limit))
    if page is not None:
        page.write_text(as_page(result, StackSettings().gateway_url), encoding="utf-8")
    if as_json:
        print_json(result.as_json())
    else:
        show(result)
    refused = refusals(result, gates)
    if refused:
        raise StackError("; ".join(refused))


def gates_of(text: str | None) -> dict[str, float]:
    """The thresholds in an option's value.

    Raises:
        StackError: it is not of the form NAME=NUMBER,….
    """
    if not text:
        return {}
    from models.comparison import parse_gates

    try:
        return parse_gates(text)
    except ValueError as error:
        raise StackError(f"--gate: {error}") from error


async def _compare(name: str, limit: int) -> Comparison:
    from adapters.bootstrap import connections
    from cli.servers import server_settings
    from stack.settings import StackSettings
    from stack.triton_models import model_registry

    if name not in model_registry(StackSettings()).read().current:
        raise StackError(
            f"{name} has no filled collection; fill it first: models switch {name} --backfill-only"
        )
    async with connections(server_settings()) as servers:
        spec = await servers.embedder.spec(name)
        candidate = await servers.index.ensure_collection(spec)
        return await against_active(servers, candidate, limit)


async def against_active(
    servers: Connections, candidate: Collection, limit: int = 500
) -> Comparison:
    """Compare the candidate with the active model.

    Raises:
        StackError: it is the active model.
    """
    from models.comparison import compare as compare_models

    active = await servers.index.active()
    if active is None or active.name == candidate.name:
        raise StackError(f"{candidate.model_name} is the active model; compare another one")
    return await compare_models(
        servers.log, servers.embedder, servers.index, active, candidate, limit=limit
    )


def show(result: Comparison) -> None:
    """Print the summary as a table."""
    summary = result.summary()
    rows = [("", summary["active"], summary["candidate"])]
    for label, left, right in (
        ("queries compared", summary["queries"], summary["queries"]),
        ("overlap of the first 10 pictures", "", summary["overlap"]),
        ("rank-biased overlap", "", summary["rbo"]),
        ("median score", summary["active_scores"].get("median"), _median(summary)),
        ("nDCG of the rated queries", summary["active_ndcg"], summary["ndcg"]),
        ("rated queries won", summary["losses"], summary["wins"]),
    ):
        rows.append((label, _cell(left), _cell(right)))
    print(columns(rows))


def _median(summary: dict[str, Any]) -> float | None:
    median: float | None = summary["candidate_scores"].get("median")
    return median


def _cell(value: object) -> str:
    if value is None:
        return "unknown"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def as_page(result: Comparison, gateway: str) -> str:
    """An HTML page; its pictures come from the gateway. The least similar answers come first."""
    import html
    from urllib.parse import quote

    def images(names: Sequence[str]) -> str:
        return "".join(
            f'<figure><img loading="lazy" src="{html.escape(gateway)}/images/{quote(name)}" '
            f'alt="{html.escape(name)}"><figcaption>{html.escape(name)}</figcaption></figure>'
            for name in names
        )

    rows = "".join(
        f"<section><h2>{html.escape(each.query)}</h2>"
        f"<p>overlap {each.overlap:.2f}, rank-biased overlap {each.rbo:.2f}, "
        f"nDCG {_cell(each.active_ndcg)} / {_cell(each.candidate_ndcg)}</p>"
        f"<div><div>{images(each.active)}</div><div>{images(each.candidate)}</div></div>"
        "</section>"
        for each in sorted(result.queries, key=lambda each: each.rbo)
    )
    left, right = html.escape(result.active_model), html.escape(result.candidate_model)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>{left} and {right}</title>"
        "<style>body{font:15px system-ui;margin:2rem}section>div{display:grid;"
        "grid-template-columns:1fr 1fr;gap:2rem}figure{display:inline-block;margin:4px;"
        "vertical-align:top;width:110px}img{width:110px;height:84px;object-fit:cover}"
        "figcaption{font-size:11px;overflow-wrap:anywhere}</style>"
        f"<h1>{left} (left) and {right} (right)</h1>{rows}</html>\n"
    )
