"""search: ask the gateway and print its answer."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table

from stack.errors import StackError
from stack.settings import StackSettings


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(search)


def search(
    text: Annotated[str | None, typer.Argument(help="What the pictures should show.")] = None,
    like: Annotated[
        str | None, typer.Option("--like", help="More like this indexed picture.")
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option("--image", help="More like this file.", exists=True, dir_okay=False),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="At most this many.")] = 10,
    min_score: Annotated[
        float | None, typer.Option("--min-score", help="Only matches of this score or more.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The gateway's answer as it is.")] = (
        False
    ),
) -> None:
    """Find pictures by a text or by a picture."""
    query: dict[str, Any] = {
        "text": text,
        "image_name": like,
        "image": base64.b64encode(image.read_bytes()).decode() if image else None,
        "min_score": min_score,
    }
    body = {name: value for name, value in query.items() if value is not None}
    answer = ask(StackSettings().gateway_url, {**body, "limit": limit})
    if as_json:
        print(json.dumps(answer, indent=2, ensure_ascii=False))
        return
    table = Table("score", "picture", box=None)
    for match in answer["matches"]:
        table.add_row(f"{match['score']:.3f}", match["image_name"])
    console = Console()
    console.print(table if answer["matches"] else "nothing found")
    console.print(f"model: {answer['model_name']}")


def ask(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """POST a search.

    Raises:
        StackError: the gateway cannot be reached, or its problem document.
    """
    try:
        response = httpx.post(f"{url}/api/v1/search-image", json=body, timeout=60, trust_env=False)
    except httpx.HTTPError as error:
        raise StackError(
            f"the gateway at {url} cannot be reached ({error}); is it up? ./image-search status"
        ) from error
    answer: dict[str, Any] = response.json()
    if not response.is_success:
        details = [answer.get("title", ""), answer.get("detail", "")]
        raise StackError(": ".join(part for part in details if part))
    return answer
