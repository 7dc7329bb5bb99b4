"""JSON Schema of every event, checked in under `schemas/generated/<major>/` for other languages.

`python -m schemas.json_schema` writes the files, and the AsyncAPI document beside them; a test
fails when they are out of date. `schemas/published/<version>/` keeps the published schemas and is
never changed: a test fails when events of such a version could no longer be read. A new
`SCHEMA_VERSION` gets a new folder.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from schemas import asyncapi
from schemas.codec import SUPPORTED_MAJOR
from schemas.events import SCHEMA_VERSION
from schemas.topics import TOPICS

DIRECTORY: Final = Path(__file__).parent / "generated"
PUBLISHED: Final = Path(__file__).parent / "published"

Schema = Mapping[str, Any]


def generate() -> dict[str, Schema]:
    """Path below `generated/` -> JSON Schema (draft 2020-12) of the topic's event."""
    schemas: dict[str, Schema] = {}
    for topic in TOPICS:
        body = topic.event.model_json_schema(mode="serialization")
        schemas[f"{SUPPORTED_MAJOR}/{topic.name}.json"] = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"urn:image-search:event:{topic.name}:{SUPPORTED_MAJOR}",
            **body,
            "description": topic.description,
        }
    return schemas


def render(schema: Schema) -> str:
    """The schema as it is checked in."""
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def incompatibilities(old: Schema, new: Schema) -> Iterator[str]:
    """Why events written with `old` could not be read with `new`, or the other way round.

    Within a major version, only fields with a default may be added; fields must not be removed,
    change their type or become required.
    """
    before, after = old.get("properties", {}), new.get("properties", {})
    definitions = (old.get("$defs", {}), new.get("$defs", {}))
    for name in before:
        if name not in after:
            yield f"field {name} was removed"
        elif _shape(before[name]) != _shape(after[name]):
            yield f"field {name} changed its type"
    yield from (
        f"new field {name} has no default"
        for name in after
        if name not in before and "default" not in after[name] and name in new.get("required", ())
    )
    for name, definition in definitions[0].items():
        if name not in definitions[1]:
            yield f"definition {name} was removed"
        elif "enum" in definition:
            gone = set(definition["enum"]) - set(definitions[1][name].get("enum", ()))
            yield from (f"{name} no longer allows {value}" for value in sorted(gone))
        else:
            for problem in incompatibilities(definition, definitions[1][name]):
                yield f"{name}: {problem}"


def _shape(schema: Any) -> Any:
    """A field's schema without its descriptive parts."""
    if isinstance(schema, Mapping):
        return {
            key: _shape(value)
            for key, value in schema.items()
            if key not in ("title", "description", "default", "examples")
        }
    if isinstance(schema, list):
        return [_shape(item) for item in schema]
    return schema


def published() -> dict[str, dict[str, Schema]]:
    """Version -> topic -> the schema that was published then."""
    found: dict[str, dict[str, Schema]] = {}
    for path in sorted(PUBLISHED.glob("*/*.json")):
        schema = json.loads(path.read_text(encoding="utf-8"))
        found.setdefault(path.parent.name, {})[path.stem] = schema
    return found


def write() -> None:
    """Update the generated files; published schemas are never changed."""
    for name, schema in {**generate(), "asyncapi.json": asyncapi.document()}.items():
        _write(DIRECTORY / name, schema)
    if not (PUBLISHED / SCHEMA_VERSION).is_dir():
        for name, schema in generate().items():
            _write(PUBLISHED / SCHEMA_VERSION / Path(name).name, schema)


def _write(path: Path, schema: Schema) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(schema), encoding="utf-8")


if __name__ == "__main__":
    write()
