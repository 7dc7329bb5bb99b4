"""search: send a query to the gateway and show the answer."""

from __future__ import annotations

import base64
import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlencode

import typer

from cli.output import columns, finite, print_json
from stack.errors import StackError
from stack.install.standard_output import printable

if TYPE_CHECKING:
    from cli.terminal_images import ImageProtocol
    from gateway.search.short_form import ShortFormTerm

TIMEOUT_SECONDS = 60
OK = 200


class CutOff(StrEnum):
    """How the matches are cut off."""

    AUTO = "auto"
    NONE = "none"


def register(app: typer.Typer) -> None:
    """Register this command."""
    app.command()(search)


def search(
    query: Annotated[
        str | None,
        typer.Argument(help="What the pictures should show: tennis, or 2:dog + ./a.jpg - fruit."),
    ] = None,
    like: Annotated[
        str | None, typer.Option("--like", help="Find pictures like this indexed one.")
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option("--image", help="Find pictures like this file.", exists=True, dir_okay=False),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="Maximum number of matches.")] = 10,
    min_score: Annotated[
        float | None, typer.Option("--min-score", help="Minimum score of a match.", callback=finite)
    ] = None,
    cut_off: Annotated[
        CutOff | None,
        typer.Option("--cut-off", help="auto: only clear matches; the default without --json."),
    ] = None,
    folder: Annotated[
        str | None, typer.Option("--folder", help="Only pictures in this folder or below it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the gateway's answer as JSON.")] = (
        False
    ),
    open_page: Annotated[
        bool, typer.Option("--open", help="Open the search on the page in a browser.")
    ] = (False),
    show_images: Annotated[
        bool | None,
        typer.Option(
            "--pictures/--no-pictures",
            help="Show the pictures; by default if the terminal supports it.",
        ),
    ] = None,
) -> None:
    """Find pictures by a text, a picture, or a combination of several."""
    from stack.settings import StackSettings

    if sum(part is not None for part in (query, like, image)) != 1:
        raise StackError("specify a query, --like or --image")
    url = StackSettings().gateway_url
    if open_page:
        if image is not None:
            raise StackError("--open needs a query or --like: an address cannot contain a picture")
        typer.launch(f"{url}/?{urlencode({'q': query or f'./{like}'})}")
        return
    body: dict[str, Any] = {"limit": limit, **query_body(query, like, image)}
    if min_score is not None:
        body["min_score"] = min_score
    if folder is not None:
        body["filters"] = {"folder": folder}
    # --json is for programs: they get all that the API returns unless they set a cut-off.
    body["cut_off"] = (cut_off or (CutOff.NONE if as_json else CutOff.AUTO)).value
    if not as_json:
        body["include"] = ["width", "height"]
    answer = post_search(url, body)
    if as_json:
        print_json(answer)
    else:
        show(url, answer, show_images)


def query_body(query: str | None, like: str | None, image: Path | None) -> dict[str, Any]:
    """The fields of the request's body that hold the query.

    Raises:
        StackError: the query cannot be parsed, or a term is neither a file nor an image id.
    """
    if like is not None:
        return {"image_name": like}
    if image is not None:
        return {"image": _encode_file(image)}
    if query is None or not query.strip():
        return {"text": query or ""}
    from gateway.search.short_form import BadShortForm, parse

    try:
        parts = parse(query)
    except BadShortForm as error:
        raise StackError(f"{query!r}: {error}") from error
    if len(parts) == 1 and parts[0].weight > 0:
        return _term(parts[0])
    return {"terms": [{**_term(part), "weight": part.weight} for part in parts]}


def _term(part: ShortFormTerm) -> dict[str, Any]:
    if part.path is None:
        return {"text": part.text}
    file = Path(part.path).expanduser()
    if file.is_file():
        return {"image": _encode_file(file)}
    if part.path.startswith("./"):
        # The gateway's short form of an indexed image.
        return {"image_name": part.path.removeprefix("./")}
    raise StackError(f"there is no file {part.path}")


def _encode_file(file: Path) -> str:
    try:
        return base64.b64encode(file.read_bytes()).decode()
    except OSError as error:
        raise StackError(f"{file} cannot be read: {error.strerror}") from error


def show(url: str, answer: dict[str, Any], show_images: bool | None) -> None:
    """Print the answer as a table, with pictures above it if they can be shown."""
    from cli.terminal_images import image_protocol

    protocol = image_protocol(os.environ, is_terminal=sys.stdout.isatty())
    if show_images or (show_images is None and protocol is not None):
        _show_images(url, answer["matches"], protocol or "blocks")
    rows = [("score", "picture", "size")]
    for match in answer["matches"]:
        size = printable(f"{match.get('width', '?')} x {match.get('height', '?')}")
        rows.append((f"{match['score']:.3f}", printable(match["image_name"]), size))
    print(columns(rows) if answer["matches"] else "nothing found")
    print(f"model: {printable(answer['model_name'])}")
    if answer.get("cut_off_score") is not None:
        print(f"cut off at {answer['cut_off_score']:.3f}; --cut-off none shows the rest")


def _show_images(url: str, matches: list[dict[str, Any]], protocol: ImageProtocol) -> None:
    from cli.terminal_images import lines
    from stack.questions import NoAnswer, ask, credentials

    for match in matches:
        address = f"{url}/thumbnails/{quote(match['image_name'])}?size=256"
        try:
            status, content = ask(address, TIMEOUT_SECONDS, credentials())
        except NoAnswer as error:
            raise StackError(_unreachable(url, error)) from error
        if status == OK:
            try:
                shown = list(lines(content, protocol))
            except OSError:
                shown = []  # It is no picture that can be decoded.
            for line in shown:
                print(line)
        print(f"{match['score']:.3f} {printable(match['image_name'])}")


def post_search(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """POST a search.

    Raises:
        StackError: the gateway cannot be reached, or returned a problem document.
    """
    from stack.questions import NoAnswer, ask, credentials

    try:
        status, content = ask(f"{url}/api/v1/search-image", TIMEOUT_SECONDS, credentials(), body)
    except NoAnswer as error:
        raise StackError(_unreachable(url, error)) from error
    try:
        answer = json.loads(content)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or (status == OK and not _is_answer(answer)):
        raise StackError(f"the server at {url} is not the gateway")
    if status != OK:
        details = [str(answer.get("title", "")), str(answer.get("detail", ""))]
        said = ": ".join(printable(part) for part in details if part)
        raise StackError(said or f"the gateway answered with status {status}")
    return answer


def _is_answer(answer: dict[str, Any]) -> bool:
    """Whether it has what the table shows; another server may answer anything."""
    matches, cut_off = answer.get("matches"), answer.get("cut_off_score")
    return (
        isinstance(answer.get("model_name"), str)
        and isinstance(cut_off, int | float | None)
        and isinstance(matches, list)
        and all(
            isinstance(each, dict)
            and isinstance(each.get("image_name"), str)
            and isinstance(each.get("score"), int | float)
            for each in matches
        )
    )


def _unreachable(url: str, error: Exception) -> str:
    return f"the gateway at {url} cannot be reached ({error}); see: ./image-search status"
