"""A new fact of an image is added in a handful of files: here is where each one is named."""

import ast
from functools import cache
from pathlib import Path

import pytest

from adapters.index.facts import ImageMetadata, names
from adapters.index.port import DETAILS, STORED, ImageFilter
from adapters.index.schema import KNOWN_PROPERTIES, properties
from gateway.search.filters import Filters
from tests.architecture.test_imports import PACKAGES, ROOT, imports, modules, relative, tree

DECLARED = "adapters/index/facts.py"
SOURCE = "imaging/metadata/exif.py"
FILTER = {"adapters/index/port.py", "gateway/search/filters.py"}
POSITION = {"adapters/index/storable.py"}
"""Latitude and longitude are one thing in two numbers: both or neither are there."""
GPS_FILTER = {"adapters/index/filters.py", "adapters/index/fake.py"}
"""`has_gps` asks whether there is a latitude."""
DOCUMENT = "docs/api.md"

NAMED_IN = {
    "taken_at": {DECLARED, SOURCE, *FILTER},
    "camera": {DECLARED, SOURCE, *FILTER},
    "latitude": {DECLARED, SOURCE, *POSITION, *GPS_FILTER},
    "longitude": {DECLARED, SOURCE, *POSITION},
}
"""Property -> the modules that name it. With the page of docs, a new one takes five files."""


INDEX = "adapters.index"


@cache
def property_names(path: Path) -> frozenset[str]:
    """Names in this module that may be those of stored properties.

    They are names of fields, attributes and keywords, and whole texts, in the modules of the index
    and in those that import it. Local names are not: a variable or a function may have any name.
    """
    if path.parent != ROOT / INDEX.replace(".", "/") and not any(
        name.startswith(f"{INDEX}.") for name in imports(path)
    ):
        return frozenset()
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        match node:
            case ast.ClassDef(body=body):
                found.update(
                    each.target.id
                    for each in body
                    if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
                )
            case ast.Attribute(attr=name) | ast.keyword(arg=str(name)):
                found.add(name)
            case ast.Constant(value=str(name)):
                found.add(name)
    return frozenset(found)


@pytest.mark.parametrize("name", names(ImageMetadata))
def test_a_property_is_named_in_few_places(name: str) -> None:
    found = {
        relative(path)
        for package in PACKAGES
        for path in modules(package)
        if name in property_names(path)
    }
    assert found == NAMED_IN[name]
    assert f"`{name}`" in (ROOT / DOCUMENT).read_text(encoding="utf-8")


def test_a_new_property_with_its_filter_takes_five_files() -> None:
    assert len({DECLARED, SOURCE, *FILTER, DOCUMENT}) <= 5


def test_everything_else_is_derived() -> None:
    stored = {*STORED}
    assert {*names(ImageMetadata)} < stored
    assert {each.name for each in properties()} == stored | {"folder"}
    assert {*DETAILS} == stored - {"image_id", "uri", "facts_version"}
    assert {*names(ImageMetadata)} < {*KNOWN_PROPERTIES}


def test_filters_of_requests_are_named_as_those_of_the_index() -> None:
    assert [*Filters.model_fields] == [*ImageFilter.__slots__]
    assert {*ImageFilter.__slots__} - {"folder", "has_gps"} < {*STORED}
