"""search: ask the gateway and print its answer."""

from __future__ import annotations

import json
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
    text: Annotated[str, typer.Argument(help="What the pictures should show.")],
    limit: Annotated[int, typer.Option("--limit", "-n", help="At most this many.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="The gateway's answer as it is.")] = (
        False
    ),
) -> None:
    """Find pictures that a text describes."""
    answer = ask(StackSettings().gateway_url, {"text": text, "limit": limit})
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
