"""The gateway's services do not know HTTP, and each of their errors has an answer."""

import importlib
import inspect
from pathlib import Path

import pytest

from adapters import errors as adapter_errors
from gateway import errors
from gateway.http import problems
from tests.architecture.test_imports import ROOT, imports, modules, relative, top

HTTP_LIBRARIES = {"fastapi", "http", "starlette", "uvicorn"}
HTTP_PACKAGES = ("gateway/http/", "gateway/routes/")
BUILDERS = {"gateway/app.py", "gateway/__main__.py"}
BASES = {errors.GatewayError, adapter_errors.AdapterError}
"""Only their subclasses are raised."""


ELSEWHERE = {"gateway.search.short_form.BadShortForm"}
"""Raised only where a query is typed, by the commands: no request has this form."""
SERVICES = [
    path
    for path in modules("gateway")
    if not relative(path).startswith(HTTP_PACKAGES) and relative(path) not in BUILDERS
]


def test_services_do_not_import_http() -> None:
    assert ROOT / "gateway" / "search" / "service.py" in SERVICES
    wrong = {
        (relative(path), name)
        for path in SERVICES
        for name in imports(path)
        if top(name) in HTTP_LIBRARIES or name.startswith(("gateway.http", "gateway.routes"))
    }
    assert not wrong


def test_services_define_their_errors_in_one_place() -> None:
    """Where the test below finds them."""
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in SERVICES]
    defined = {
        f"{each.__module__}.{each.__qualname__}"
        for name in names
        for _, each in inspect.getmembers(importlib.import_module(name), inspect.isclass)
        if issubclass(each, Exception) and each.__module__ == name != errors.__name__
    }
    assert defined == ELSEWHERE


def test_every_error_has_a_problem() -> None:
    ours = {
        each
        for module in (errors, adapter_errors)
        for _, each in inspect.getmembers(module, inspect.isclass)
        if issubclass(each, Exception)
    }
    unmapped = {each for each in ours - BASES if not set(each.__mro__) & set(problems.TABLE)}
    assert not unmapped


@pytest.mark.parametrize("path", modules("gateway/routes"), ids=lambda path: path.stem)
def test_routes_are_added_one_way(path: Path) -> None:
    if path.stem == "__init__":
        return
    module = importlib.import_module(f"gateway.routes.{path.stem}")
    assert inspect.signature(module.router).return_annotation == "APIRouter"


def test_routes_are_in_their_folder() -> None:
    elsewhere = {
        relative(path)
        for path in modules("gateway")
        if not relative(path).startswith("gateway/routes/")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip().startswith(("@app.get", "@app.post", "@routes.", "@router."))
    }
    assert not elsewhere
