"""Bodies of a search's request and response, whose shape never changes, and common types."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Base64Bytes,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from adapters.index.port import DETAILS, EVERYTHING, STORED
from gateway.auth.receipts import longest_token
from gateway.search.filters import Filters, valid_unicode, whole
from gateway.search.query import Term
from gateway.search.service import Answer, Question

MAX_TEXT = 2_000
MAX_NAME = 4_096
"""Characters of an image's name: as many as a path may have."""
MAX_TERMS = 16
MAX_QUERY = MAX_TERMS * (MAX_NAME + 20)
"""Characters of a query in its short form: each term with its sign and weight."""
MAX_CURSOR = longest_token(MAX_NAME)
CURSOR_FORM = r"^[A-Za-z0-9_.-]+$"
"""The characters of a token. In an address, any other would take up to twelve of its bytes, and
the server refuses an address of 65,536 bytes before we see it."""


def _plain_text(text: str) -> str:
    text = text.strip()
    if not text:
        raise ValueError("must not be blank")
    # Cs: lone surrogates, which UTF-8 cannot encode. Cc: control characters.
    if any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n\r" for c in text):
        raise ValueError("must not contain control characters")
    return text


QueryText = Annotated[str, Field(min_length=1, max_length=MAX_TEXT), AfterValidator(_plain_text)]


class RequestBody(BaseModel):
    """Base of the bodies of requests: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


ImageName = Annotated[
    str,
    Field(min_length=1, max_length=MAX_NAME, pattern=r"^[^\x00]*$"),
    AfterValidator(valid_unicode),
]
Weight = Annotated[
    float,
    Field(
        strict=True,
        ge=-100,
        le=100,
        allow_inf_nan=False,
        json_schema_extra={"not": {"const": 0}},
    ),
]
Score = Annotated[float, Field(strict=True, ge=-1, le=1, allow_inf_nan=False)]
if TYPE_CHECKING:
    Detail = str
else:
    Detail = Literal[DETAILS]


def _one_of(**kinds: str) -> ConfigDict:
    """The JSON Schema rule that exactly one of these fields is present and not null."""
    choices: list[JsonValue] = [
        {"required": [name], "properties": {name: {"type": kind}}} for name, kind in kinds.items()
    ]
    return ConfigDict(json_schema_extra={"oneOf": choices})


class TermBody(RequestBody):
    """One part of a combined query: exactly one of `text`, `image_name` and `image`."""

    model_config = _one_of(text="string", image_name="string", image="string")

    text: QueryText | None = None
    image_name: Annotated[
        ImageName | None, Field(description="The name of an indexed picture.")
    ] = None
    image: Annotated[Base64Bytes | None, Field(description="A picture, in Base64.")] = None
    weight: Annotated[
        Weight, Field(description="Negative to search away from the term; not 0.")
    ] = 1.0

    @model_validator(mode="after")
    def _check_one_field(self) -> Self:
        if sum(part is not None for part in (self.text, self.image_name, self.image)) != 1:
            raise ValueError("give exactly one of text, image_name and image")
        if self.weight == 0:
            raise ValueError("weight must not be 0")
        return self


class WaitFor(RequestBody):
    """The picture to wait for, as named in the answer to its upload, and how long to wait."""

    image_name: ImageName
    sha256: Annotated[
        str | None,
        Field(
            pattern=r"^[0-9a-f]{64}$",
            description="Hash of the content to wait for; any content if absent.",
        ),
    ] = None
    timeout_s: Annotated[float, Field(strict=True, gt=0, le=60, allow_inf_nan=False)] = 10.0


class SearchRequest(RequestBody):
    """A search: exactly one of `text`, `image_name`, `image` and `terms` is the query."""

    model_config = _one_of(text="string", image_name="string", image="string", terms="array")

    text: Annotated[QueryText | None, Field(description="What the pictures should show.")] = None
    image_name: Annotated[
        ImageName | None, Field(description="Find pictures like this indexed one.")
    ] = None
    image: Annotated[
        Base64Bytes | None, Field(description="Find pictures like this one, in Base64.")
    ] = None
    terms: Annotated[
        list[TermBody] | None,
        Field(min_length=1, max_length=MAX_TERMS, description="A weighted combination of terms."),
    ] = None
    limit: Annotated[
        int,
        Field(strict=True, ge=1, le=1000, description="Maximum number of matches."),
        BeforeValidator(whole),
    ] = 10
    min_score: Annotated[Score | None, Field(description="Minimum score of a match.")] = None
    cut_off: Annotated[
        Literal["auto", "none"],
        Field(
            description="`auto`: only matches that score clearly above the rest of the collection."
        ),
    ] = "none"
    filters: Annotated[Filters | None, Field(description="Conditions that a match must meet.")] = (
        None
    )
    include: Annotated[
        list[Detail],
        Field(max_length=20, description="Further properties of each match in the answer."),
    ] = []
    collapse_duplicates: Annotated[
        bool,
        Field(
            strict=True,
            description="Group near-duplicates under the best match, which counts as one.",
        ),
    ] = False
    paged: Annotated[
        bool,
        Field(strict=True, description="Include `next_cursor`, which is null on the last page."),
    ] = False
    cursor: Annotated[
        str | None,
        Field(
            min_length=1, max_length=MAX_CURSOR, description="`next_cursor` of the previous page."
        ),
    ] = None
    wait_for: Annotated[
        WaitFor | None, Field(description="Wait until this picture can be found, then answer.")
    ] = None

    @model_validator(mode="after")
    def _check_one_query(self) -> Self:
        given = (self.text, self.image_name, self.image, self.terms)
        if sum(part is not None for part in given) != 1:
            raise PydanticCustomError(
                "one_query", "give exactly one of text, image_name, image and terms"
            )
        return self

    def question(self) -> Question:
        """The request in the form that the search service takes."""
        return Question(
            terms=self.as_terms(),
            limit=self.limit,
            min_score=self.min_score,
            where=self.filters.where() if self.filters else EVERYTHING,
            recorded_filters=self.filters.flat() if self.filters else {},
            details=tuple(dict.fromkeys(self.include)),
            automatic_cut_off=self.cut_off == "auto",
            collapse=self.collapse_duplicates,
            paged=self.paged or self.cursor is not None,
            cursor=self.cursor,
        )

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


class _Match(BaseModel):
    image_name: str
    score: float


if TYPE_CHECKING:

    class _MatchWithDetails(_Match):
        def __init__(self, *, image_name: str, score: float, **details: Any) -> None: ...

else:
    _MatchWithDetails = create_model(
        "_MatchWithDetails",
        __base__=_Match,
        **{name: (STORED[name] | None, None) for name in DETAILS},
    )


class MatchBody(_MatchWithDetails):
    """One picture; `score` is the cosine similarity of picture and query, -1 to 1.

    Properties listed in `include` are present, null if the picture does not have them.
    `duplicates` is present with `collapse_duplicates`.
    """

    duplicates: list[str] | None = None


class SearchResponse(BaseModel):
    """The matches, best first, and a signed receipt, which feedback refers to.

    `cut_off_score` is present with `cut_off: auto`, `next_cursor` with `paged` or `cursor`.
    """

    text: str
    model_name: str
    matches: list[MatchBody]
    jwt: str
    cut_off_score: float | None = None
    next_cursor: str | None = None


def search_response(request: SearchRequest, answer: Answer, jwt: str) -> SearchResponse:
    """The response's body; optional fields are set only if the request selects them."""
    matches = []
    for each in answer.matches:
        more: dict[str, Any] = dict(each.match.details)
        if request.collapse_duplicates:
            more["duplicates"] = list(each.duplicates)
        matches.append(MatchBody(image_name=each.match.image_id, score=each.match.score, **more))
    more = {}
    if request.cut_off == "auto":
        more["cut_off_score"] = answer.cut_off_score
    if request.paged or request.cursor is not None:
        more["next_cursor"] = answer.next_cursor
    return SearchResponse(
        text=answer.query,
        model_name=answer.collection.model_name,
        matches=matches,
        jwt=jwt,
        **more,
    )
