"""The configuration reference, generated from the settings by `python -m cli.configuration`.

The description of a setting is the docstring of its field. It is read from the source here, because
pydantic would read it at the start of every process.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from pydantic.fields import FieldInfo

from adapters.logging import LoggingSettings
from adapters.settings import EnvironmentSettings, ServerSettings
from consumers.analytics.settings import AnalyticsSettings
from consumers.indexing.settings import IndexingSettings
from gateway.settings import GatewaySettings
from producers.settings import WatcherSettings
from stack.settings import ROOT, StackSettings

REFERENCE: Final = ROOT / "docs" / "configuration.md"

COMMON: Final = "Every process"
LOCAL: Final = "Local stack"

PROCESSES: Final[dict[str, tuple[type[EnvironmentSettings], ...]]] = {
    COMMON: (LoggingSettings, ServerSettings),
    "Watcher": (WatcherSettings,),
    "Indexer": (IndexingSettings,),
    "Analytics consumer": (AnalyticsSettings,),
    "Gateway": (GatewaySettings,),
    LOCAL: (StackSettings,),
}
"""Heading -> the settings in its table."""

ONLY_OF_GATEWAY: Final = {"jwt_secret_file", "thumbnails_dir"}
"""Settings of the local stack that are passed to the gateway alone, whose table lists them."""

INTRODUCTIONS: Final = {
    COMMON: "Read by the watcher, the indexers, the analytics consumer, the gateway and the "
    "provisioning of topics and collection, `python -m adapters.provision`, which reads no others. "
    "Commands that call the servers read these as well, with the addresses of the local stack as "
    "defaults.",
    "Watcher": "`python -m producers`: publishes the changes of the folders and buckets.",
    "Indexer": "`python -m consumers indexing`: a member of the group that fills a collection.",
    "Analytics consumer": "`python -m consumers analytics`: a member of the group that writes the "
    "event lake.",
    "Gateway": "`python -m gateway`: the HTTP API and the page.",
    LOCAL: "What `./image-search up` starts, and where. Every command reads these. `status` "
    "also reads `ADVICE_…`, and the queries of `analytics` (`analytics sql` and others) read "
    "`ANALYTICS_…`, which are listed with the gateway. The "
    "processes that it starts get the addresses and folders of the local stack, and inherit all "
    "other settings from its environment.",
}

COMMANDS: Final = {
    "API_KEY": "The key that `search` sends to the gateway; by default the first one of "
    "`API_KEYS`.",
    "HF_ENDPOINT": "Address of the hub that `models pull` uses, Hugging Face's by default.",
    "HF_TOKEN": "Token with which `models pull` signs in to the hub.",
    "NO_FOLLOW": "If it has any value, `up` does not show the logs of the processes.",
}
"""Variables that are not fields of settings -> their description."""

HEAD: Final = """\
# Configuration

Settings are environment variables. This page is generated from the code by
`python -m cli.configuration`; do not edit it. A variable whose value is empty counts as not set. A
process that finds an invalid value exits with one line that names the variable. Times are in
seconds, at most 1,000,000. Each process reads the settings in its own table and those of every
process; a setting that is listed in both has another default in the process's own.

Folders and buckets are opened by [fsspec](https://filesystem-spec.readthedocs.io): S3's address and
keys come from the usual `AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID` and so on.
"""


def reference() -> str:
    """The whole page, in Markdown.

    Raises:
        ValueError: a setting has no description.
    """
    common = {name: field for _, name, field in _fields(PROCESSES[COMMON])}
    sections = [HEAD]
    for heading, classes in PROCESSES.items():
        rows = [
            (name.upper(), _default(field), description(owner, name))
            for owner, name, field in _fields(classes)
            if heading in (COMMON, LOCAL)
            or name not in common
            or field.default != common[name].default
            if not (heading == LOCAL and name in ONLY_OF_GATEWAY)
        ]
        sections.append(_section(heading, INTRODUCTIONS[heading], rows))
    others = [(name, "", text) for name, text in COMMANDS.items()]
    sections.append(_section("Commands", "Read only by `./image-search`.", others))
    return "\n".join(sections)


def _fields(
    classes: Iterable[type[EnvironmentSettings]],
) -> Iterator[tuple[type[EnvironmentSettings], str, FieldInfo]]:
    """Each setting; those that a class defines come before those that it inherits."""
    for settings in classes:
        own = [name for name in settings.model_fields if name in settings.__annotations__]
        inherited = [name for name in settings.model_fields if name not in own]
        for name in (*own, *inherited):
            yield settings, name, settings.model_fields[name]


def description(settings: type[EnvironmentSettings], name: str) -> str:
    """The description of a setting, in one line.

    Raises:
        ValueError: it has none.
    """
    for each in settings.__mro__:
        if issubclass(each, EnvironmentSettings) and name in each.__annotations__:
            text = _docstrings(each).get(name, "")
            if not text:
                raise ValueError(f"{each.__module__}.{each.__name__}.{name} has no description")
            return " ".join(text.split())
    raise ValueError(f"{settings.__name__} has no setting {name}")


def _docstrings(settings: type[EnvironmentSettings]) -> dict[str, str]:
    """Field -> the string that follows it in the body of its class."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(settings))).body
    assert isinstance(definition, ast.ClassDef)  # noqa: S101 (the source of a class)
    found = {}
    for field, after in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            found[field.target.id] = str(after.value.value)
    return found


def _default(field: FieldInfo) -> str:
    value = field.get_default()
    if field.default_factory is not None or value is None or value == ():
        return ""
    if isinstance(value, Path):
        value = value.relative_to(ROOT) if value.is_relative_to(ROOT) else value
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{value}`"


def _section(heading: str, introduction: str, rows: Iterable[tuple[str, str, str]]) -> str:
    lines = [f"## {heading}", "", introduction, "", "| variable | default | what it does |"]
    lines.append("|---|---|---|")
    for name, default, text in rows:
        escaped = text.replace("|", r"\|")
        lines.append(f"| `{name}` | {default} | {escaped} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    REFERENCE.write_text(reference(), encoding="utf-8")
