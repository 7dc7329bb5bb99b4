"""Runs queries on the views of `views.sql`, each on a new connection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from adapters.errors import Unavailable
from analytics.engine import CancellationToken, QueryLimits, connect

if TYPE_CHECKING:
    import duckdb

    from analytics.lake import Lake

SQL: Final = Path(__file__).with_name("views.sql")
ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class EventFilters:
    """Selects events: `since` <= time < `until`, and the model."""

    since: datetime | None = None
    until: datetime | None = None
    model: str | None = None


class EmptyLake(Unavailable):
    """Nothing was written to the lake yet."""


@contextmanager
def views(
    lake: Lake,
    filters: EventFilters | None = None,
    limits: QueryLimits | None = None,
    cancellation: CancellationToken | None = None,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with all views, on the lake as it is now. Blocks.

    Raises:
        EmptyLake: nothing was written to the lake yet.
        Unavailable: a query needs more than `limits` allow.
        QueryCancelled: the query was cancelled.
    """
    if lake.existing() is None:
        raise EmptyLake("the event lake is empty: the analytics consumer has written nothing yet")
    filters = filters or EventFilters()
    with connect(limits, cancellation) as connection:
        if not lake.storage.is_local:
            connection.register_filesystem(lake.storage.fs)
        _set(connection, "lake", lake.storage.url("").rstrip("/"))
        for name, value in (("since", filters.since), ("until", filters.until)):
            if value is not None:
                _set(connection, name, _utc(value))
        if filters.model is not None:
            _set(connection, "model", filters.model)
        connection.execute(SQL.read_text(encoding="utf-8"))
        yield connection


def query(
    lake: Lake,
    sql: str,
    filters: EventFilters | None = None,
    parameters: Mapping[str, Any] | None = None,
    *,
    limits: QueryLimits | None = None,
    cancellation: CancellationToken | None = None,
) -> list[dict[str, Any]]:
    """The rows of a query over the views, as dictionaries. Blocks.

    If compaction or a rebuild removes a file meanwhile, the lake is listed again.

    Raises:
        Unavailable: the lake is empty or cannot be read, or the query needs more than `limits`
            allow (by default, those of the settings).
        QueryCancelled: the query was cancelled.
        duckdb.Error: the query is wrong.
    """
    return read(lake, {"": sql}, filters, parameters, limits=limits, cancellation=cancellation)[""]


def read(
    lake: Lake,
    queries: Mapping[str, str],
    filters: EventFilters | None = None,
    parameters: Mapping[str, Any] | None = None,
    *,
    limits: QueryLimits | None = None,
    cancellation: CancellationToken | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """As `query`, for several queries on one state of the lake. Returns name -> rows."""
    import duckdb

    cancellation = cancellation or CancellationToken()
    for attempt in range(ATTEMPTS):
        try:
            with views(lake, filters, limits, cancellation) as connection:
                found = {}
                for name, sql in queries.items():
                    found[name] = _rows(connection, sql, parameters)
                    # DuckDB ignores an interruption between two statements.
                    cancellation.raise_if_cancelled()
                return found
        except duckdb.IOException as error:
            if attempt == ATTEMPTS - 1:
                raise Unavailable(f"read the event lake: {error}") from error
    raise AssertionError("unreachable: the last attempt returns or raises")


def _rows(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    cursor = connection.execute(sql, dict(parameters)) if parameters else connection.execute(sql)
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _set(connection: duckdb.DuckDBPyConnection, name: str, value: object) -> None:
    connection.execute(f"SET VARIABLE {name} = $value", {"value": value})


def _utc(moment: datetime) -> datetime:
    """The time in UTC without a zone, as in the views."""
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
