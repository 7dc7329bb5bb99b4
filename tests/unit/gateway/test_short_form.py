"""The short form of queries: what people type, and what they must not lose by it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.search.query import Term, describe
from gateway.search.short_form import BadShortForm, ShortFormTerm, parse


@pytest.mark.parametrize(
    ("query", "parts"),
    [
        ("tennis", [ShortFormTerm(1, "tennis")]),
        ("a red  car", [ShortFormTerm(1, "a red car")]),
        (
            "2:dog + ./a.jpg - fruit",
            [ShortFormTerm(2, "dog"), ShortFormTerm(1, path="./a.jpg"), ShortFormTerm(-1, "fruit")],
        ),
        ("- fruit", [ShortFormTerm(-1, "fruit")]),
        ("+ dog", [ShortFormTerm(1, "dog")]),
        ("0.5:a dog - 1.5:a cat", [ShortFormTerm(0.5, "a dog"), ShortFormTerm(-1.5, "a cat")]),
        ("2: dog", [ShortFormTerm(2, "dog")]),
        ("black-and-white C++ a+b -x", [ShortFormTerm(1, "black-and-white C++ a+b -x")]),
        ("16:9 screen", [ShortFormTerm(1, "16:9 screen")]),
        ('"rock - roll" + x', [ShortFormTerm(1, "rock - roll"), ShortFormTerm(1, "x")]),
        ('"./not a file"', [ShortFormTerm(1, "./not a file")]),
        ('2:"16:9 - screen"', [ShortFormTerm(2, "16:9 - screen")]),
        ("/photos/my cat.jpg", [ShortFormTerm(1, path="/photos/my cat.jpg")]),
        (
            "../x.png - ~/y.png",
            [ShortFormTerm(1, path="../x.png"), ShortFormTerm(-1, path="~/y.png")],
        ),
        ("3:./a.jpg", [ShortFormTerm(3, path="./a.jpg")]),
        ("time 10:30 at night", [ShortFormTerm(1, "time 10:30 at night")]),
    ],
)
def test_the_short_form_is_parsed(query: str, parts: list[ShortFormTerm]) -> None:
    assert parse(query) == parts


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("dog +", "end"),
        ("+", "end"),
        ("dog + - cat", "before -"),
        ("+ + cat", "before +"),
        ("0:dog", "weight"),
        ("101:dog", "weight"),
        ('"dog', "quote"),
        ('""', "empty"),
        ("2:", "empty"),
        (" + ".join("x" * 17), "at most 16"),
    ],
)
def test_an_invalid_short_form_is_reported(query: str, message: str) -> None:
    with pytest.raises(BadShortForm, match=message.replace("+", r"\+")):
        parse(query)


words = st.from_regex(r"[a-z]{1,8}( [a-z]{1,8}){0,2}", fullmatch=True)
weights = st.integers(1, 99).map(float) | st.sampled_from([0.5, 2.25])


@pytest.mark.slow
@given(st.lists(st.tuples(words, weights, st.booleans(), st.booleans()), min_size=1, max_size=16))
def test_the_gateways_short_form_is_parsed_back(
    terms: list[tuple[str, float, bool, bool]],
) -> None:
    written = [
        Term(
            "x",
            -weight if negative else weight,
            text=None if image else word,
            image_id=word if image else None,
        )
        for word, weight, negative, image in terms
    ]
    expected = [
        ShortFormTerm(
            term.weight, term.text, None if term.image_id is None else f"./{term.image_id}"
        )
        for term in written
    ]
    assert parse(describe(written)) == expected


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(query: str) -> None:
    try:
        parts = parse(query)
    except BadShortForm:
        return
    assert all((part.text or part.path) and part.weight for part in parts)
