"""Converts records to Arrow tables whose schema is derived from the event's model.

Every record of a topic becomes one row. If it cannot be decoded, its bytes are stored in `raw` and
the reason in `invalid`, so that no offset is missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from functools import cache
from operator import attrgetter
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin
from uuid import UUID

import pyarrow as pa
from pydantic import AwareDatetime, BaseModel

from adapters.log.port import LogRecord
from schemas.codec import InvalidEvent, decode
from schemas.events import Event
from schemas.topics import Topic

RECORD_FIELDS: Final = (
    pa.field("partition", pa.int32(), nullable=False),
    pa.field("offset", pa.int64(), nullable=False),
    pa.field("logged_at", pa.timestamp("ms", "UTC"), nullable=False),
    pa.field("key", pa.string()),
    pa.field("invalid", pa.string()),
    pa.field("raw", pa.binary()),
)
"""Columns of every topic, before those of its event. `logged_at` is Kafka's timestamp."""

_SCALARS: Final[dict[type, pa.DataType]] = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    bytes: pa.binary(),
    datetime: pa.timestamp("us", "UTC"),
    AwareDatetime: pa.timestamp("us", "UTC"),
    UUID: pa.string(),
}


@cache
def schema_of(topic: Topic) -> pa.Schema:
    """The columns of a topic: `RECORD_FIELDS`, then the fields of its event.

    A nested model is a struct, a tuple of models a list of structs, a mapping JSON text, and an
    identifier (UUID) or a member of an enumeration its text. Every field of the event may be null.

    Raises:
        TypeError: the model has a field of another type.
    """
    fields = [
        pa.field(name, _type_of(info.annotation)) for name, info in topic.event.model_fields.items()
    ]
    return pa.schema([*RECORD_FIELDS, *fields], metadata={"topic": topic.name})


def table_of(topic: Topic, records: Sequence[LogRecord]) -> pa.Table:
    """The records as rows of `schema_of(topic)`, in their order."""
    events: list[Event | None] = []
    invalid: list[str | None] = []
    raw: list[bytes | None] = []
    for record in records:
        try:
            events.append(decode(topic.event, record.value))
            invalid.append(None)
            raw.append(None)
        except InvalidEvent as error:
            events.append(None)
            invalid.append(str(error))
            raw.append(record.value)
    schema = schema_of(topic)
    columns: list[pa.Array] = [
        pa.array([record.position.partition for record in records], pa.int32()),
        pa.array([record.position.offset for record in records], pa.int64()),
        pa.array([record.timestamp_ms for record in records], schema.field("logged_at").type),
        pa.array([_text(record.key) for record in records], pa.string()),
        pa.array(invalid, pa.string()),
        pa.array(raw, pa.binary()),
    ]
    for name, info in topic.event.model_fields.items():
        columns.append(_array(info.annotation, _fields(events, name)))
    return pa.Table.from_arrays(columns, schema=schema)


def event_of(topic: Topic, row: Mapping[str, Any]) -> Event:
    """The event in a row; the inverse of `table_of`.

    Raises:
        pydantic.ValidationError: the row does not hold a valid event.
    """
    values: dict[str, Any] = {}
    for name, info in topic.event.model_fields.items():
        value = row.get(name)
        if value is None:
            continue  # Absent or null: null is the default of every nullable field.
        is_text = get_origin(_unwrap(info.annotation)) is dict
        values[name] = json.loads(value) if is_text else value
    return topic.event.model_validate(values)


def _text(key: bytes | None) -> str | None:
    return None if key is None else key.decode(errors="replace")


def _unwrap(annotation: Any) -> Any:
    """The annotation without `Annotated` and without `| None`."""
    if get_origin(annotation) is Annotated:
        return _unwrap(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        rest = [part for part in get_args(annotation) if part is not type(None)]
        if len(rest) != 1:
            raise TypeError(f"{annotation} has no column type")
        return _unwrap(rest[0])
    return annotation


def _type_of(annotation: Any) -> pa.DataType:
    kind = _unwrap(annotation)
    origin = get_origin(kind)
    if origin in (tuple, list):
        return pa.list_(_type_of(get_args(kind)[0]))
    if origin is dict:
        return pa.string()
    if isinstance(kind, type):
        if issubclass(kind, BaseModel):
            fields = kind.model_fields.items()
            return pa.struct([pa.field(name, _type_of(info.annotation)) for name, info in fields])
        if issubclass(kind, Enum):
            return pa.string()
        if kind in _SCALARS:
            return _SCALARS[kind]
    raise TypeError(f"{annotation} has no column type")


def _array(annotation: Any, values: list[Any]) -> pa.Array:
    """One column. Lists of structs are built as one flat array per field."""
    kind = _unwrap(annotation)
    origin = get_origin(kind)
    if origin in (tuple, list):
        offsets: list[int] = [0]
        flat: list[Any] = []
        for value in values:
            flat.extend(value or ())
            offsets.append(len(flat))
        return pa.ListArray.from_arrays(
            pa.array(offsets, pa.int32()),
            _array(get_args(kind)[0], flat),
            mask=_nulls(values),
        )
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = kind.model_fields
        children = [_array(info.annotation, _fields(values, name)) for name, info in fields.items()]
        return pa.StructArray.from_arrays(children, names=list(fields), mask=_nulls(values))
    convert = _converter(kind)
    if convert is not None:
        values = [None if value is None else convert(value) for value in values]
    return pa.array(values, _type_of(kind))


def _fields(models: Sequence[BaseModel | None], name: str) -> list[Any]:
    """One field of each model; None for None."""
    get = attrgetter(name)
    return [None if model is None else get(model) for model in models]


def _converter(kind: Any) -> Callable[[Any], str] | None:
    if get_origin(kind) is dict:
        return lambda value: json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    if kind is UUID or (isinstance(kind, type) and issubclass(kind, Enum)):
        return str
    return None


def _nulls(values: Sequence[Any]) -> pa.Array | None:
    if not any(value is None for value in values):
        return None
    return pa.array([value is None for value in values], pa.bool_())
