"""Every odd and hostile file is indexed or refused, exactly as `docs/formats.md` says."""

from pathlib import Path

import pytest

from adapters.errors import Rejected
from adapters.model_spec import ModelSpec
from adapters.picture import decode
from tests.unit.corpus import INDEXED, Case, cases

CASES = list(cases())
TABLE = Path(__file__).parents[2] / "docs" / "formats.md"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_becomes_of_it_what_the_table_says(case: Case, small_spec: ModelSpec) -> None:
    if case.outcome == INDEXED:
        found = decode(case.data, small_spec)
        assert found.pixels.shape == (16, 16, 3)
        assert (found.width, found.height) == case.size
    else:
        with pytest.raises(Rejected, match=case.outcome):
            decode(case.data, small_spec)


def test_the_table_lists_exactly_these() -> None:
    rows = [line.split("|")[1:3] for line in TABLE.read_text().splitlines() if line[:2] == "| "]
    listed = {name.strip(): outcome.strip() for name, outcome in rows[1:]}
    assert listed == {
        case.name: INDEXED if case.outcome == INDEXED else f"dead letter: {case.outcome}"
        for case in CASES
    }
    assert len(CASES) >= 60
