"""Encodes and decodes events: values are UTF-8 JSON, keys UTF-8 text."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from schemas.events import SCHEMA_VERSION, Event, ImageAdded, ImageRemoved

E = TypeVar("E", bound=Event)

SUPPORTED_MAJOR = SCHEMA_VERSION.partition(".")[0]


class InvalidEvent(ValueError):
    """The bytes are not an event that this version can read; the message has the reason."""


class _Version(BaseModel):
    schema_version: str


def encode(event: Event | bytes) -> bytes:
    """The event as UTF-8 JSON; bytes are returned unchanged."""
    if isinstance(event, bytes):
        return event
    return event.model_dump_json().encode()


def encode_key(key: str) -> bytes:
    """A key as UTF-8.

    Raises:
        InvalidEvent: the text has a lone surrogate, which UTF-8 cannot hold.
    """
    try:
        return key.encode()
    except UnicodeEncodeError as error:
        raise InvalidEvent(f"the key {key!r} is not valid Unicode: {error.reason}") from error


def decode(event_type: type[E], value: bytes | None) -> E:
    """The event in `value`.

    Raises:
        InvalidEvent: no value, not JSON, a missing or wrong field, or an unknown major version.
    """
    if value is None:
        raise InvalidEvent(f"{event_type.__name__}: the value is null")
    try:
        event = event_type.model_validate_json(value)
    except ValidationError as error:
        _refuse_other_versions(event_type, value)
        raise InvalidEvent(f"{event_type.__name__}: {_reasons(error)}") from error
    _check_version(event_type, event.schema_version)
    return event


def _refuse_other_versions(event_type: type[Event], value: bytes) -> None:
    """Raise for another major version, which is a better reason than a validation error."""
    try:
        version = _Version.model_validate_json(value).schema_version
    except ValidationError:
        return
    _check_version(event_type, version)


def _check_version(event_type: type[Event], version: str) -> None:
    if version.partition(".")[0] != SUPPORTED_MAJOR:
        raise InvalidEvent(
            f"{event_type.__name__}: schema version {version} is not supported "
            f"(this reader supports {SUPPORTED_MAJOR}.x)"
        )


def _reasons(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'value'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_input=False)
    )


def decode_key(key: bytes | None) -> str:
    """The key as text.

    Raises:
        InvalidEvent: there is no key, or it is not UTF-8.
    """
    if not key:
        raise InvalidEvent("the record has no key")
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise InvalidEvent(f"the key is not UTF-8: {error.reason}") from error


def decode_image_change(key: bytes | None, value: bytes | None) -> ImageAdded | ImageRemoved:
    """One record of `images`: an addition, or a removal where the value is null.

    Raises:
        InvalidEvent: the key or the value cannot be read, or they name different images.
    """
    image_id = decode_key(key)
    if value is None:
        try:
            return ImageRemoved(image_id=image_id)
        except ValidationError as error:
            raise InvalidEvent(f"the key names no picture: {_reasons(error)}") from error
    added = decode(ImageAdded, value)
    if added.image_id != image_id:
        raise InvalidEvent(f"the key names {image_id!r} but the event names {added.image_id!r}")
    return added
