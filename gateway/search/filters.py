"""The filters of a search request, and their forms for the index and for events."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from adapters.index.port import Between, ImageFilter

LARGEST = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly."""
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def valid_unicode(text: str) -> str:
    """The text, if it contains neither NUL nor lone surrogates, which UTF-8 cannot encode."""
    if any(unicodedata.category(c) == "Cs" or c == "\0" for c in text):
        raise ValueError("must be valid Unicode without NUL")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text.strip()


def _whole_folders(folder: str) -> str:
    folder = folder.strip("/")
    return folder + "/" if folder else ""


def date_as_text(value: object) -> object:
    """The value, if it begins as a date does.

    pydantic would read a number, also one in a text, as seconds since 1970, which is hardly ever
    what is meant.
    """
    if value is None or isinstance(value, datetime):
        return value
    if not isinstance(value, str) or DATE.match(value) is None:
        raise ValueError("must be a text such as 2026-07-14T12:00:00Z or 2026-07-14")
    return value


def whole(value: object) -> object:
    """A float without a fraction as an integer: JSON does not distinguish 3.0 from 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


Name = Annotated[
    str,
    Field(min_length=1, max_length=300),
    AfterValidator(valid_unicode),
    AfterValidator(_not_blank),
]
Folder = Annotated[
    str, Field(max_length=4096), AfterValidator(valid_unicode), AfterValidator(_whole_folders)
]
# `Field` comes first, or its bounds would be missing in the JSON Schema.
Count = Annotated[int, Field(strict=True, ge=0, le=LARGEST), BeforeValidator(whole)]
Moment = Annotated[datetime, BeforeValidator(date_as_text), AfterValidator(_in_utc)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NumberRange(_Part):
    """From `min` to `max`, both included."""

    min: Count | None = None
    max: Count | None = None

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min must not be over max")
        return self

    def between(self) -> Between[int]:
        """The range as the index takes it."""
        return Between(self.min, self.max)


class TimeRange(_Part):
    """From one instant to another, both included; UTC if there is no offset."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    start: Annotated[Moment | None, Field(alias="from")] = None
    end: Annotated[Moment | None, Field(alias="to")] = None

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.start is not None and self.end is not None and self.start > self.end:
            raise ValueError("from must not be after to")
        return self

    def between(self) -> Between[datetime]:
        """The range as the index takes it."""
        return Between(self.start, self.end)


class Filters(_Part):
    """All given filters must match. A picture without a property is outside every range of it."""

    # The fields have the names of those of `ImageFilter`.

    folder: Annotated[
        Folder | None, Field(description="In this folder or below it, for instance `holiday/2026`.")
    ] = None
    media_type: Annotated[
        list[Name] | None, Field(min_length=1, max_length=20, description="Any of these.")
    ] = None
    size_bytes: NumberRange | None = None
    width: Annotated[
        NumberRange | None, Field(description="In pixels, of the upright picture.")
    ] = None
    height: Annotated[
        NumberRange | None, Field(description="In pixels, of the upright picture.")
    ] = None
    taken_at: Annotated[
        TimeRange | None, Field(description="When it was taken, according to its metadata.")
    ] = None
    added_at: Annotated[
        TimeRange | None, Field(description="When it was first seen in the folder.")
    ] = None
    camera: Annotated[
        Name | None, Field(description="The exact name, as in the answer with `include: [camera]`.")
    ] = None
    has_gps: Annotated[
        bool | None, Field(strict=True, description="Whether it has coordinates.")
    ] = None

    def where(self) -> ImageFilter:
        """The filter in the index's terms."""
        given: dict[str, Any] = {}
        for name, value in self:
            if isinstance(value, NumberRange | TimeRange):
                given[name] = value.between()
            elif value is not None:
                given[name] = tuple(value) if isinstance(value, list) else value
        return ImageFilter(**given)

    def flat(self) -> dict[str, str | int | float | bool]:
        """The filters as search events carry them, for instance `{"width.min": 640}`."""
        flat: dict[str, str | int | float | bool] = {}
        for name, value in self.model_dump(mode="json", by_alias=True, exclude_none=True).items():
            if isinstance(value, dict):
                flat |= {f"{name}.{end}": bound for end, bound in value.items()}
            else:
                flat[name] = ",".join(value) if isinstance(value, list) else value
        return flat
