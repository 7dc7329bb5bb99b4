"""What the HTTP API takes and gives. The shapes of the two first endpoints never change."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic_core import PydanticCustomError

from gateway.query import Term

MAX_TEXT = 2_000
MAX_TOKEN = 16_000


def _plain_text(text: str) -> str:
    text = text.strip()
    if not text:
        raise ValueError("must not be blank")
    # Cs: lone surrogates, which no UTF-8 can hold; Cc: control characters but for white space.
    if any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n\r" for c in text):
        raise ValueError("must not contain control characters")
    return text


QueryText = Annotated[str, Field(min_length=1, max_length=MAX_TEXT), AfterValidator(_plain_text)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


ImageName = Annotated[str, Field(min_length=1, max_length=4096)]
Weight = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]


class TermBody(_Request):
    """One part of a combined query: exactly one of `text`, `image_name` and `image`."""

    text: QueryText | None = None
    image_name: Annotated[
        ImageName | None, Field(description="The name of an indexed picture.")
    ] = None
    image: Annotated[Base64Bytes | None, Field(description="A picture, in Base64.")] = None
    weight: Annotated[Weight, Field(description="Negative to turn away from it; not 0.")] = 1.0

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if sum(part is not None for part in (self.text, self.image_name, self.image)) != 1:
            raise ValueError("give exactly one of text, image_name and image")
        if self.weight == 0:
            raise ValueError("weight must not be 0")
        return self


class SearchRequest(_Request):
    """What to look for: exactly one of `text`, `image_name`, `image` and `terms`."""

    text: Annotated[QueryText | None, Field(description="What the pictures should show.")] = None
    image_name: Annotated[
        ImageName | None, Field(description="More like this indexed picture.")
    ] = None
    image: Annotated[
        Base64Bytes | None, Field(description="More like this picture, given in Base64.")
    ] = None
    terms: Annotated[
        list[TermBody] | None,
        Field(min_length=1, max_length=16, description="A weighted combination."),
    ] = None
    limit: Annotated[
        int, Field(strict=True, ge=1, le=1000, description="At most this many matches.")
    ] = 10
    min_score: Annotated[
        float | None,
        Field(ge=-1, le=1, allow_inf_nan=False, description="Only matches of this score or more."),
    ] = None

    @model_validator(mode="after")
    def _one_query(self) -> Self:
        given = (self.text, self.image_name, self.image, self.terms)
        if sum(part is not None for part in given) != 1:
            raise PydanticCustomError(
                "one_query", "give exactly one of text, image_name, image and terms"
            )
        return self

    def as_terms(self) -> list[Term]:
        """The query as the terms it consists of."""
        if self.terms is not None:
            return [
                Term(f"terms.{number}", term.weight, term.text, term.image_name, term.image)
                for number, term in enumerate(self.terms)
            ]
        field = next(
            name for name in ("text", "image_name", "image") if getattr(self, name) is not None
        )
        return [Term(field, 1.0, self.text, self.image_name, self.image)]


class MatchBody(BaseModel):
    """One picture; `score` is the cosine similarity of picture and query, -1 to 1."""

    image_name: str
    score: float


class SearchResponse(BaseModel):
    """The matches, best first, and the signed receipt that feedback refers to."""

    text: str
    model_name: str
    matches: list[MatchBody]
    jwt: str


class FeedbackRequest(_Request):
    """How good the answer to a search was."""

    user_feedback: Annotated[
        int, Field(strict=True, ge=1, le=10, description="1 (useless) to 10 (just right).")
    ]
    jwt: Annotated[str, Field(min_length=1, max_length=MAX_TOKEN, description="The receipt.")]
    image_name: Annotated[
        str | None, Field(max_length=4096, description="The one picture that is rated.")
    ] = None


class FeedbackResponse(BaseModel):
    """The feedback is stored."""

    status: str = "stored"
    search_id: UUID


class HealthBody(BaseModel):
    """A search can be answered."""

    status: str = "ok"
    model_name: str
    model_version: str
    collection: str
    images: int
