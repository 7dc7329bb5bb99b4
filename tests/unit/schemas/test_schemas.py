"""Events, codec, topic table and the checked-in JSON Schemas."""

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import json_schema
from schemas.codec import (
    InvalidEvent,
    decode,
    decode_image_change,
    decode_key,
    encode,
    encode_key,
)
from schemas.events import SCHEMA_VERSION, FeedbackGiven, ImageAdded, ImageRemoved
from schemas.topics import BY_NAME, IMAGES, TOPICS

EXAMPLES = Path(json_schema.__file__).parent / "examples"
CASES = sorted(EXAMPLES.glob("*/1/*.json"))


def example(topic: str, case: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((EXAMPLES / topic / "1" / f"{case}.json").read_text())
    return content


def value_of(case: dict[str, Any]) -> bytes | None:
    return None if case["value"] is None else json.dumps(case["value"]).encode()


def test_every_topic_has_examples() -> None:
    assert {path.parts[-3] for path in CASES} == set(BY_NAME)


@pytest.mark.parametrize("path", CASES, ids=lambda path: "/".join(path.parts[-3:]))
def test_example_is_read_and_survives_a_round_trip(path: Path) -> None:
    case = json.loads(path.read_text())
    topic = BY_NAME[path.parts[-3]]
    if topic is IMAGES:
        key = encode_key(case["key"])
        change = decode_image_change(key, value_of(case))
        assert change.image_id == case["key"]
        if isinstance(change, ImageRemoved):
            return
        assert decode_image_change(key, encode(change)) == change
    else:
        event = decode(topic.event, value_of(case))
        assert decode(topic.event, encode(event)) == event
    schema = json_schema.generate()[f"1/{topic.name}.json"]
    jsonschema.validate(case["value"], schema)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema_version": "2.0"}, "schema version 2.0 is not supported"),
        ({"schema_version": "one"}, "schema version one is not"),
        ({"schema_version": None}, "schema_version"),
        ({"sha256": "abc"}, "sha256"),
        ({"size_bytes": -1}, "size_bytes"),
        ({"modified_at": "2026-01-05T10:00:00"}, "modified_at"),
        ({"image_id": "other.jpg"}, "the event names 'other.jpg'"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], reason: str) -> None:
    case = example("images", "added")
    with pytest.raises(InvalidEvent, match=reason):
        decode_image_change(case["key"].encode(), json.dumps({**case["value"], **change}).encode())


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"null", b'"text"', b"\xff", b"{}", b"NaN"])
def test_an_invalid_event_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidEvent):
        decode_image_change(b"a.jpg", value)


@pytest.mark.parametrize("key", [None, b"", b"\xff"])
def test_a_key_that_is_not_text_is_refused(key: bytes | None) -> None:
    with pytest.raises(InvalidEvent):
        decode_image_change(key, None)


def test_a_lone_surrogate_is_refused_as_a_key() -> None:
    with pytest.raises(InvalidEvent, match="Unicode"):
        encode_key("bad\udcff.jpg")


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_every_unicode_key_survives(key: str) -> None:
    assert decode_key(encode_key(key)) == key


@given(st.binary())
def test_random_bytes_are_always_invalid(value: bytes) -> None:
    with pytest.raises(InvalidEvent):
        decode(ImageAdded, value)


@pytest.mark.parametrize("rating", [0, 11, 5.5, "x", None])
def test_a_rating_is_a_whole_number_from_1_to_10(rating: object) -> None:
    value = {**example("feedback", "rated")["value"], "rating": rating}
    with pytest.raises(InvalidEvent, match="rating"):
        decode(FeedbackGiven, json.dumps(value).encode())


def test_names_in_the_topic_table_are_unique_and_each_topic_is_written_and_read() -> None:
    assert len(BY_NAME) == len(TOPICS)
    for topic in TOPICS:
        assert topic.partitions >= 1
        assert topic.written_by
        assert topic.read_by


def test_checked_in_schemas_are_up_to_date() -> None:
    generated = json_schema.generate()
    found = {
        path.relative_to(json_schema.DIRECTORY).as_posix(): path.read_text()
        for path in json_schema.DIRECTORY.glob("1/*.json")
    }
    assert found == {name: json_schema.render(schema) for name, schema in generated.items()}, (
        "run: python -m schemas.json_schema"
    )


PUBLISHED = json_schema.published()
ACCEPTED_INCOMPATIBILITIES = {
    # Sources without modification times used to report 1970. Readers of 1.0 require a time.
    "images": {"field modified_at changed its type"},
    # Dead letters of files that were never published used to name offset 0 of partition 0, which is
    # the position of another record. Readers of 1.0 require a position.
    "images.dlq": {
        "field source_partition changed its type",
        "field source_offset changed its type",
    },
}
"""Topic -> incompatibilities with version 1.0 that were accepted deliberately."""


def test_current_schemas_are_compatible_with_all_published_ones() -> None:
    assert SCHEMA_VERSION in PUBLISHED, "run: python -m schemas.json_schema"
    generated = json_schema.generate()
    for version, topics in PUBLISHED.items():
        for name, old in topics.items():
            new = generated[f"{version.partition('.')[0]}/{name}.json"]
            found = set(json_schema.incompatibilities(old, new))
            assert found == ACCEPTED_INCOMPATIBILITIES.get(name, set()), (version, name)


@pytest.mark.slow
def test_every_published_version_of_every_event_has_an_example_that_is_read() -> None:
    """Read by today's code, and valid by the schema that was published with it."""
    for version, topics in PUBLISHED.items():
        for name, schema in topics.items():
            examples = [
                case["value"]
                for path in EXAMPLES.glob(f"{name}/{version.partition('.')[0]}/*.json")
                for case in [json.loads(path.read_text())]
                if case["value"] and case["value"]["schema_version"] == version
            ]
            assert examples, (version, name)
            for value in examples:
                decode(BY_NAME[name].event, json.dumps(value).encode())
                jsonschema.validate(value, schema)


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_no_published_field_could_be_removed_or_retyped_unnoticed(name: str) -> None:
    old = PUBLISHED[SCHEMA_VERSION][name]
    for field in old["properties"]:
        removed = copy.deepcopy(json_schema.generate()[f"1/{name}.json"])
        del removed["properties"][field]
        assert f"field {field} was removed" in json_schema.incompatibilities(old, removed)
        retyped = copy.deepcopy(json_schema.generate()[f"1/{name}.json"])
        retyped["properties"][field] = {"type": "null"}
        assert f"field {field} changed its type" in json_schema.incompatibilities(old, retyped)


class TestCompatibility:
    """The checker itself: it fires on each kind of breaking change and on none that is safe."""

    def changed(self, **edits: Any) -> list[str]:
        old = json_schema.generate()["1/searches.json"]
        new = copy.deepcopy(dict(old))
        for path, value in edits.items():
            node = new
            *parents, last = path.split("__")
            for parent in parents:
                node = node[parent]
            if value is None:
                del node[last]
            else:
                node[last] = value
        return list(json_schema.incompatibilities(old, new))

    def test_an_unchanged_schema_is_compatible(self) -> None:
        assert self.changed() == []

    def test_a_field_with_a_default_may_be_added(self) -> None:
        assert self.changed(properties__page={"type": "integer", "default": 1}) == []

    def test_a_required_field_may_not_be_added(self) -> None:
        required = [*json_schema.generate()["1/searches.json"]["required"], "page"]
        found = self.changed(properties__page={"type": "integer"}, required=required)
        assert found == ["new field page has no default"]

    def test_a_field_may_not_be_removed(self) -> None:
        assert self.changed(properties__text=None) == ["field text was removed"]

    def test_a_field_may_not_be_retyped(self) -> None:
        assert self.changed(properties__limit={"type": "string"}) == [
            "field limit changed its type"
        ]

    def test_a_change_inside_a_nested_object(self) -> None:
        path = {"$defs__SearchResult__properties__score": {"type": "string"}}
        assert self.changed(**path) == ["SearchResult: field score changed its type"]

    def test_an_enum_value_may_not_be_removed(self) -> None:
        assert self.changed(**{"$defs__SearchKind__enum": ["text", "image", "terms"]}) == [
            "SearchKind no longer allows similar"
        ]
