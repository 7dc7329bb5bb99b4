"""The documents for maintainers name only files that exist, and all packages."""

import re
from pathlib import Path

import pytest

from tests.architecture.test_imports import PACKAGES

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    "CONTRIBUTING.md",
    "docs/architecture.md",
    "docs/failures.md",
    *(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs/decisions").glob("*.md")),
)
RECORDS = sorted((ROOT / "docs/decisions").glob("*.md"))
RECORD_PARTS = ["Context", "Decision", "Consequences"]
RECORD_WORDS = 400
PACKAGES_WITH_CODE = {
    "schemas": "events, the table of topics, their encoding, JSON Schema and AsyncAPI",
    "adapters": "common settings, errors, retries, shutdown; `bootstrap.py` builds all clients",
    "adapters/log": "the port of the event log, Kafka, and a fake",
    "adapters/index": "the port of the image index, Weaviate, and a fake",
    "adapters/embedder": "the port of the models, Triton, and a fake",
    "imaging": "formats, decoding and thumbnails",
    "imaging/sandbox": "worker processes with limits of time and memory",
    "imaging/metadata": "time, place and camera from EXIF and XMP",
    "imaging/sources": "folders, mounts and buckets, and reading from them",
    "models": "the catalogue, conversion for Triton, the registry, switching and comparison",
    "analytics": "the event lake, its SQL views, the dashboard and exports",
    "producers": "the watcher: its rules, the guard against removals, its status",
    "producers/folder": "notifications, scans and examination of a folder",
    "producers/bucket": "listing a bucket",
    "producers/log": "the watcher's reading of the log, and its writes to it",
    "consumers": "the start of a consumer process",
    "consumers/process": "the loop of both consumer groups and the report of the lag",
    "consumers/indexing": "the group that fills the image index",
    "consumers/analytics": "the group that writes the event lake, its rebuild and replay",
    "consumers/repair": "the audit of the index, and dead letters",
    "gateway": "the HTTP application, its services and settings",
    "gateway/http": "what the routes share: limits, access, problem documents, static files",
    "gateway/routes": "one router for each subject",
    "gateway/search": "searches: queries, ranking, pages, duplicates, outages",
    "gateway/images": "image files: serving, thumbnails, uploads",
    "gateway/state": "the state of the system: indexing, dead letters, ratings",
    "gateway/auth": "API keys, tokens, receipts, cursors, privacy",
    "stack": "the local launcher: servers and our processes on one machine",
    "stack/install": "checks of the machine; environments and servers, installed or compiled",
    "cli": "the commands of `./image-search`",
}
"""Packages and sub-packages with code -> what is in them."""
SOURCES = (".py", ".sql", ".js", ".md", ".toml")
_QUOTED = re.compile(r"`([A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*/?)`")


def paths(text: str) -> list[str]:
    """What stands between backquotes and looks like a path in this repository."""
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()}
    return [
        each
        for each in _QUOTED.findall(text)
        if "/" in each and (each.partition("/")[0] in folders or each.endswith(SOURCES))
    ]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_that_a_document_names_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    missing = [each for each in paths(text) if not (ROOT / each).exists()]
    assert not missing


def test_the_guide_to_changes_has_its_answers() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    guide = text.partition("## Where do I change")[2]
    answers = re.split(r"(?m)^\d+\. ", guide)[1:]
    assert len(answers) == 12
    assert all(paths(each) or "docker-compose.yml" in each for each in answers)


@pytest.mark.parametrize("what", ["property", "filter", "format", "model", "topic", "route"])
def test_how_to_add_something_is_a_list_of_files(what: str) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.search(rf"(?ms)^### … an? {what}\b.*?(?=^###? |\Z)", text)
    assert found is not None
    assert paths(found[0])


def test_every_package_with_code_has_its_phrase() -> None:
    found = {
        path.parent.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }
    assert {*PACKAGES_WITH_CODE} == found


def test_the_table_of_packages_is_complete() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    table = text.partition("| package | what is in it |\n|---|---|\n")[2].partition("\n\n")[0]
    assert table.splitlines() == [
        f"| `{name}/` | {what} |" for name, what in PACKAGES_WITH_CODE.items()
    ]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem)
def test_a_decision_has_three_short_parts(record: Path) -> None:
    text = record.read_text(encoding="utf-8")
    assert re.match(rf"# {int(record.stem[:4])}\. ", text)
    parts = re.split(r"(?m)^## ", text)[1:]
    assert [part.partition("\n")[0] for part in parts] == RECORD_PARTS
    assert all(part.partition("\n")[2].strip() for part in parts)
    assert len(text.split()) <= RECORD_WORDS
