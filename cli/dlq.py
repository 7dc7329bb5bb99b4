"""dlq: list, retry and drop the records that could not be indexed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cli.output import AlwaysJson, AsJson, columns, print_json
from stack.errors import StackError
from stack.install.standard_output import printable

if TYPE_CHECKING:
    from adapters.log.dead_letter_reader import Letter
    from adapters.log.port import EventLog
    from consumers.repair.dead_letters import LetterFilter, RetryResult

T = TypeVar("T")

Names = Annotated[
    list[str] | None, typer.Argument(help="partition:offset of each letter, as `list` shows.")
]
ErrorClass = Annotated[
    str | None, typer.Option("--class", help="Only letters of this error class.")
]
Source = Annotated[
    str | None,
    typer.Option(
        "--source", help="Only letters about records PARTITION or PARTITION:FIRST-LAST of images."
    ),
]


def register(app: typer.Typer) -> None:
    """Register these commands."""
    group = typer.Typer(help="Records that could not be indexed.", no_args_is_help=True)
    group.command(name="list")(list_letters)
    group.command()(show)
    group.command()(retry)
    group.command()(drop)
    app.add_typer(group, name="dlq")


def list_letters(
    error_class: ErrorClass = None,
    source: Source = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Include letters that were retried or dropped.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the open dead letters, oldest source record first."""
    from adapters.log.dead_letter_reader import read_letters

    wanted = _filter(None, error_class, source)

    async def read(log: EventLog) -> list[Letter]:
        return [
            letter
            for letter in await read_letters(log)
            if wanted.matches(letter) and (everything or letter.settled_as is None)
        ]

    letters = _with_log(read)
    if as_json:
        print_json([_letter_as_json(letter) for letter in letters])
        return
    rows: list[tuple[str, ...]] = [("letter", "class", "tried", "picture", "reason")]
    for letter in letters:
        reason = letter.event.reason
        if letter.settled_as:
            reason = f"[{letter.settled_as}] {reason}"
        event = letter.event
        texts = (letter.name, event.error_class, str(event.attempts), event.image_id, reason)
        rows.append(tuple(map(printable, texts)))
    print(columns(rows) if letters else "no dead letters")


def show(
    name: Annotated[str, typer.Argument(help="partition:offset of the letter.")],
    as_json: AlwaysJson = True,
) -> None:
    """Show everything that is known about one letter, as JSON."""
    from adapters.log.dead_letter_reader import read_letters

    letters = _with_log(read_letters)
    found = [letter for letter in letters if letter.name == name]
    if not found:
        raise StackError(f"there is no letter {name}; ./image-search dlq list --all shows them")
    print_json(_letter_as_json(found[0]))


def retry(
    names: Names = None,
    error_class: ErrorClass = None,
    source: Source = None,
    everything: Annotated[bool, typer.Option("--all", help="All open letters.")] = False,
    as_json: AsJson = False,
) -> None:
    """Publish the records again, so that they are indexed again."""
    from consumers.repair import dead_letters

    wanted = _selection(names, error_class, source, everything)

    async def work(log: EventLog) -> RetryResult:
        return await dead_letters.retry(log, await dead_letters.open_letters(log, wanted))

    done = _with_log(work)
    if as_json:
        print_json(
            {
                "retried": list(done.published),
                "superseded": list(done.superseded),
                "unreadable": dict(done.unreadable),
            }
        )
        return
    print(f"retried {len(done.published)}")
    if done.superseded:
        print(f"settled, because newer events of their pictures exist: {len(done.superseded)}")
    if done.unreadable:
        print("still open, because their records cannot be published again:")
        for name, reason in done.unreadable.items():
            print(f"  {name}: {printable(reason)}")


def drop(
    names: Names = None,
    error_class: ErrorClass = None,
    source: Source = None,
    everything: Annotated[bool, typer.Option("--all", help="All open letters.")] = False,
    as_json: AsJson = False,
) -> None:
    """Settle letters without publishing their records again."""
    from consumers.repair import dead_letters

    wanted = _selection(names, error_class, source, everything)

    async def work(log: EventLog) -> int:
        return await dead_letters.drop(log, await dead_letters.open_letters(log, wanted))

    dropped = _with_log(work)
    if as_json:
        print_json({"dropped": dropped})
    else:
        print(f"dropped {dropped}")


def _with_log(work: Callable[[EventLog], Awaitable[T]]) -> T:
    import asyncio

    from adapters.bootstrap import connections
    from cli.servers import server_settings

    async def connect() -> T:
        async with connections(server_settings()) as servers:
            return await work(servers.log)

    return asyncio.run(connect())


def _selection(
    names: list[str] | None, error_class: str | None, source: str | None, everything: bool
) -> LetterFilter:
    if not (names or error_class or source or everything):
        raise StackError("specify the letters, or --class, --source or --all")
    return _filter(names, error_class, source)


def _filter(names: list[str] | None, error_class: str | None, source: str | None) -> LetterFilter:
    from consumers.repair.dead_letters import LetterFilter

    partition: int | None = None
    offsets: tuple[int, int] | None = None
    if source is not None:
        number, _, between = source.partition(":")
        try:
            partition = int(number)
            if between:
                first, _, last = between.partition("-")
                offsets = (int(first), int(last or first))
        except ValueError as error:
            raise StackError(f"{source!r} is not PARTITION or PARTITION:FIRST-LAST") from error
    return LetterFilter(frozenset(names) if names else None, error_class, partition, offsets)


def _letter_as_json(letter: Letter) -> dict[str, object]:
    event = letter.event
    return {
        "letter": letter.name,
        "settled_as": letter.settled_as,
        "history": list(letter.history),
        **event.model_dump(mode="json", exclude={"original_key", "original_value"}),
        "original_key": _text(event.original_key),
        "original_value": _text(event.original_value),
    }


def _text(data: bytes | None) -> str | None:
    if data is None:
        return None
    import base64

    try:
        return data.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(data).decode()
