"""How a picture is laid out in a Weaviate collection: properties, and records to and fro."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from weaviate.classes.config import DataType, Property, Tokenization

from adapters.embedder.spec import ModelSpec
from adapters.errors import Rejected
from adapters.index.port import Collection, ImageRecord, KnownVector
from adapters.index.storable import kept

KNOWN_PROPERTIES: Final = (
    "sha256",
    "width",
    "height",
    "media_type",
    "taken_at",
    "camera",
    "latitude",
    "longitude",
    "facts_version",
)
"""What is copied when a vector is reused for the same content."""


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
    return [
        *(_text(name) for name in ("image_id", "folder", "uri", "sha256", "media_type", "camera")),
        *(_ranged(name, DataType.INT) for name in ("size_bytes", "width", "height")),
        *(_ranged(name, DataType.DATE) for name in ("modified_at", "added_at", "taken_at")),
        *(_ranged(name, DataType.NUMBER) for name in ("latitude", "longitude")),
        Property(
            name="facts_version",
            data_type=DataType.INT,
            index_filterable=False,
            index_range_filters=False,
        ),
    ]


def stored_properties(record: ImageRecord) -> dict[str, Any]:
    """The record's properties; absent ones are left out, which Weaviate takes as null."""
    record = kept(record)
    properties: dict[str, Any] = {
        "image_id": record.image_id,
        "folder": folder_of(record.image_id),
        "uri": record.uri,
        "sha256": record.sha256,
        "media_type": record.media_type,
        "size_bytes": record.size_bytes,
        "width": record.width,
        "height": record.height,
        "modified_at": record.modified_at,
        "added_at": record.added_at,
        "taken_at": record.taken_at,
        "camera": record.camera,
        "latitude": record.latitude,
        "longitude": record.longitude,
        "facts_version": record.facts_version,
    }
    return {name: value for name, value in properties.items() if value is not None}


def folder_of(image_id: str) -> str:
    """The folder an image id lies in, with a slash at its end; empty for the root."""
    head, slash, _ = image_id.rpartition("/")
    return head + slash


def known_vector(properties: Mapping[str, Any], vector: Sequence[float]) -> KnownVector | None:
    """A stored object as what may be reused of it; None if it lacks what every picture has."""
    width, height = integer(properties.get("width")), integer(properties.get("height"))
    media_type = properties.get("media_type")
    if not vector or width is None or height is None or not isinstance(media_type, str):
        return None
    taken_at = properties.get("taken_at")
    return KnownVector(
        vector=vector,
        width=width,
        height=height,
        media_type=media_type,
        taken_at=taken_at if isinstance(taken_at, datetime) else None,
        camera=properties.get("camera"),
        latitude=properties.get("latitude"),
        longitude=properties.get("longitude"),
        facts_version=integer(properties.get("facts_version")) or 0,
    )


def integer(value: object) -> int | None:
    """A number as Weaviate gives it back (a float), as int; None where it is absent."""
    return int(value) if isinstance(value, int | float) else None


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
