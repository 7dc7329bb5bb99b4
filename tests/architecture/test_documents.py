"""The documents for maintainers name only files that exist."""

import re
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem)
def test_a_decision_has_three_short_parts(record: Path) -> None:
    text = record.read_text(encoding="utf-8")
    assert re.match(rf"# {int(record.stem[:4])}\. ", text)
    parts = re.split(r"(?m)^## ", text)[1:]
    assert [part.partition("\n")[0] for part in parts] == RECORD_PARTS
    assert all(part.partition("\n")[2].strip() for part in parts)
    assert len(text.split()) <= RECORD_WORDS
