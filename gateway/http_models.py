"""What the HTTP API takes and gives. The shapes of the two first endpoints never change."""

from __future__ import annotations

import unicodedata
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

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


class SearchRequest(_Request):
    """What to look for."""

    text: Annotated[QueryText, Field(description="What the pictures should show.")]
    limit: Annotated[
        int, Field(strict=True, ge=1, le=1000, description="At most this many matches.")
    ] = 10


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
