"""How a picture is laid out in a Weaviate collection: properties, and records to and fro."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from datetime import datetime
from typing import Any, Final

from weaviate.classes.config import DataType, Property, Tokenization

from adapters.embedder.spec import ModelSpec
from adapters.errors import Rejected
from adapters.index.facts import ImageFacts, names
from adapters.index.port import STORED, Collection, ImageRecord, KnownVector
from adapters.index.storable import kept

KNOWN_PROPERTIES: Final = ("sha256", *names(ImageFacts))
"""What is copied when a vector is reused for the same content."""
_REQUIRED_FACTS: Final = {each.name for each in fields(ImageFacts) if each.default is MISSING}
_RANGED: Final = {int: DataType.INT, float: DataType.NUMBER, datetime: DataType.DATE}
_NOT_FILTERED: Final = ("facts_version",)


def _text(name: str) -> Property:
    """A text property that filters compare as a whole, not word by word."""
    return Property(
        name=name,
        data_type=DataType.TEXT,
        tokenization=Tokenization.FIELD,
        index_filterable=True,
        index_searchable=False,
    )


def _ranged(name: str, data_type: DataType) -> Property:
    """A property that filters compare by order as well as by equality."""
    return Property(name=name, data_type=data_type, index_filterable=True, index_range_filters=True)


def properties() -> list[Property]:
    """The properties of a collection: the folder, and all that is `STORED`."""
    return [_text("folder"), *(_property(name, kind) for name, kind in STORED.items())]


def _property(name: str, kind: type) -> Property:
    if kind is str:
        return _text(name)
    if name not in _NOT_FILTERED:
        return _ranged(name, _RANGED[kind])
    return Property(
        name=name,
        data_type=_RANGED[kind],
        index_filterable=False,
        index_range_filters=False,
    )


def stored_properties(record: ImageRecord) -> dict[str, Any]:
    """The record's properties; absent ones are left out, which Weaviate takes as null."""
    record = kept(record)
    stored = {name: getattr(record, name) for name in STORED}
    stored["folder"] = folder_of(record.image_id)
    return {name: value for name, value in stored.items() if value is not None}


def folder_of(image_id: str) -> str:
    """The folder an image id lies in, with a slash at its end; empty for the root."""
    head, slash, _ = image_id.rpartition("/")
    return head + slash


def known_vector(properties: Mapping[str, Any], vector: Sequence[float]) -> KnownVector | None:
    """A stored object as what may be reused of it; None if it lacks what every picture has."""
    read = {name: typed(name, properties.get(name)) for name in names(ImageFacts)}
    facts = {name: value for name, value in read.items() if value is not None}
    if not vector or not facts.keys() >= _REQUIRED_FACTS:
        return None
    return KnownVector(vector=vector, **facts)


def typed(name: str, value: object) -> Any:
    """The value of a property as it was stored; None if it is absent, or of another type."""
    kind = STORED[name]
    if kind in (int, float):
        # Weaviate gives integers back as floats.
        return kind(value) if isinstance(value, int | float) else None
    return value if isinstance(value, kind) else None


def looks_temporary(message: str) -> bool:
    """Whether a per-object error is the server's state rather than the object's fault."""
    lowered = message.lower()
    return any(
        word in lowered
        for word in (
            "shutdown",
            "shutting down",
            "unavailable",
            "read-only",
            "readonly",
            "timeout",
            "deadline",
            "context canceled",
            "no space left",
            "not enough memory",
            "connection refused",
            "leader not found",
            "no such class",
            "not found in schema",
            "could not find class",
            "not loaded",
        )
    )


def looks_too_large(message: str) -> bool:
    """Whether it is gRPC's word, of the client or of the server, that a message is too large."""
    return "RESOURCE_EXHAUSTED" in message and "larger than max" in message


def description(spec: ModelSpec, incarnation: str) -> str:
    """What a collection says of itself, as JSON: Weaviate keeps no typed metadata on it."""
    facts = {
        "model_name": spec.name,
        "model_version": spec.version,
        "dimension": spec.dimension,
        "incarnation": incarnation,
    }
    return json.dumps(facts)


def described(name: str, text: str | None) -> Collection:
    """The collection of this name, from its description.

    Raises:
        Rejected: it was not made by `description`.
    """
    try:
        facts = json.loads(text or "{}")
        return Collection(
            name=name,
            model_name=facts["model_name"],
            model_version=facts["model_version"],
            dimension=int(facts["dimension"]),
            incarnation=str(facts.get("incarnation", "")),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise Rejected(f"the collection {name} does not say which model filled it") from error
