"""The contract of the topics as an AsyncAPI 3 document, for clients in any language.

`python -m schemas.json_schema` writes it to `generated/asyncapi.json`, the gateway serves it, and a
test fails when the checked-in one is out of date.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from schemas.codec import SUPPORTED_MAJOR
from schemas.events import SCHEMA_VERSION
from schemas.topics import TOPICS, Topic

ASYNCAPI: Final = "3.0.0"
BINDING: Final = "0.5.0"
"""Version of AsyncAPI's Kafka bindings."""


def document() -> dict[str, Any]:
    """The whole document: a channel, a message and two operations for each topic.

    Payloads are in AsyncAPI's own schema language, a superset of JSON Schema draft 7. The
    broker's address is a variable, as the document does not describe a particular installation.
    """
    schemas: dict[str, Any] = {}
    for topic in TOPICS:
        schemas |= _schemas(topic)
    return {
        "asyncapi": ASYNCAPI,
        "info": {
            "title": "Image search: events",
            "version": SCHEMA_VERSION,
            "description": (
                "The image search publishes its state changes as events in Kafka, with UTF-8 JSON "
                "values and UTF-8 keys. Other programs can read them from the beginning with a "
                "consumer group of their own. Readers ignore unknown fields and reject other major "
                "versions; within a major version, fields are only added. Delivery is at least "
                "once: `event_id` identifies duplicates."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "{host}:{port}",
                "protocol": "kafka",
                "variables": {"host": {"default": "127.0.0.1"}, "port": {"default": "9092"}},
            }
        },
        "channels": {_name(topic): _channel(topic) for topic in TOPICS},
        "operations": {
            name: operation for topic in TOPICS for name, operation in _operations(topic).items()
        },
        "components": {
            "messages": {_name(topic): _message(topic) for topic in TOPICS},
            "schemas": dict(sorted(schemas.items())),
        },
    }


def _name(topic: Topic) -> str:
    """`images.dlq` as `imagesDlq`, because dots have a meaning in references."""
    return re.sub(r"\.(\w)", lambda found: found[1].upper(), topic.name)


def _ref(*parts: str) -> dict[str, str]:
    return {"$ref": "/".join(("#", *parts))}


def _channel(topic: Topic) -> dict[str, Any]:
    name, config = _name(topic), topic.config()
    configuration: dict[str, Any] = {
        "cleanup.policy": [config["cleanup.policy"]],
        "retention.ms": int(config["retention.ms"]),
    }
    if "delete.retention.ms" in config:
        configuration["delete.retention.ms"] = int(config["delete.retention.ms"])
    return {
        "address": topic.name,
        "description": topic.description,
        "messages": {name: _ref("components", "messages", name)},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "topicConfiguration": configuration,
                "bindingVersion": BINDING,
            }
        },
    }


def _message(topic: Topic) -> dict[str, Any]:
    payload = _ref("components", "schemas", topic.event.__name__)
    return {
        "name": topic.event.__name__,
        "summary": topic.description,
        "contentType": "application/json",
        # In a compacted topic a null value means that the key was removed.
        "payload": {"oneOf": [payload, {"type": "null"}]} if topic.compacted else payload,
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": f"The {topic.key}, in UTF-8."},
                "bindingVersion": BINDING,
            }
        },
    }


def _operations(topic: Topic) -> Mapping[str, dict[str, Any]]:
    name = _name(topic)
    title = name[0].upper() + name[1:]
    return {
        f"{verb}{title}": {
            "action": action,
            "channel": _ref("channels", name),
            "messages": [_ref("channels", name, "messages", name)],
            "summary": f"{label} by: {', '.join(programs)}.",
        }
        for verb, action, label, programs in (
            ("write", "send", "Written", topic.written_by),
            ("read", "receive", "Read", topic.read_by),
        )
    }


def _schemas(topic: Topic) -> dict[str, Any]:
    """The event's schema and those it refers to, by name."""
    body = topic.event.model_json_schema(
        mode="serialization", ref_template="#/components/schemas/{model}"
    )
    parts: dict[str, Any] = body.pop("$defs", {})
    body["properties"]["schema_version"]["pattern"] = rf"^{SUPPORTED_MAJOR}\.\d+$"
    return {**parts, topic.event.__name__: body}
