"""How Weaviate's collections store images: their properties, and conversion of records."""

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
from adapters.index.storable import storable

KNOWN_PROPERTIES: Final = ("sha256", *names(ImageFacts))
"""The properties that are read when a vector is reused for the same content."""
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
    """The record's properties; absent ones are omitted, which Weaviate treats as null."""
    record = storable(record)
    stored = {name: getattr(record, name) for name in STORED}
    stored["folder"] = folder_of(record.image_id)
    return {name: value for name, value in stored.items() if value is not None}


def folder_of(image_id: str) -> str:
    """The folder of an image id, with a slash at its end; empty for the root."""
    head, slash, _ = image_id.rpartition("/")
    return head + slash


def known_vector(properties: Mapping[str, Any], vector: Sequence[float]) -> KnownVector | None:
    """The reusable part of a stored object; None if it lacks a required fact."""
    read = {name: typed(name, properties.get(name)) for name in names(ImageFacts)}
    facts = {name: value for name, value in read.items() if value is not None}
    if not vector or not facts.keys() >= _REQUIRED_FACTS:
        return None
    return KnownVector(vector=vector, **facts)


def typed(name: str, value: object) -> Any:
    """The value of a property as it was stored; None if it is absent, or of another type."""
    kind = STORED[name]
    if kind in (int, float):
        # Weaviate returns integers as floats.
        return kind(value) if isinstance(value, int | float) else None
    return value if isinstance(value, kind) else None


def looks_temporary(message: str) -> bool:
    """Whether an object's error is caused by the server's state rather than by the object."""
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
    """Whether gRPC, in the client or the server, says that a message is too large."""
    return "RESOURCE_EXHAUSTED" in message and "larger than max" in message


def collection_description(spec: ModelSpec, incarnation: str) -> str:
    """A collection's description, as JSON: Weaviate has no typed metadata of collections."""
    facts = {
        "model_name": spec.name,
        "model_version": spec.version,
        "dimension": spec.dimension,
        "incarnation": incarnation,
    }
    return json.dumps(facts)


def collection_of(name: str, description: str | None) -> Collection:
    """The collection of this name, parsed from its description.

    Raises:
        Rejected: the description is not one of `collection_description`.
    """
    try:
        facts = json.loads(description or "{}")
        return Collection(
            name=name,
            model_name=facts["model_name"],
            model_version=facts["model_version"],
            dimension=int(facts["dimension"]),
            incarnation=str(facts.get("incarnation", "")),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise Rejected(f"the collection {name} has no description that states its model") from error
