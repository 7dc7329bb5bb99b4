"""Whatever stands in a picture's metadata, the picture is read, and its facts can be true.

`make test-long` makes 100,000 examples of each (FACTS_EXAMPLES). What is ever found belongs into
`tests/fuzz/seeds/facts`, where it is a test from then on.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import facts
from tests.support.metadata_builders import image_with_metadata
from tests.support.metadata_strategies import exifs, files, packets

EXAMPLES = int(os.environ.get("FACTS_EXAMPLES", "200"))
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(max(300, EXAMPLES)),
]
at_length = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.slow
@at_length
@given(st.sampled_from(["JPEG", "PNG", "WEBP"]), exifs, packets)
def test_an_image_with_any_metadata_is_decoded(
    kind: str, about: bytes | None, packet: bytes | None
) -> None:
    assert facts(image_with_metadata(kind, about, packet))


@pytest.mark.slow
@at_length
@given(files)
def test_a_damaged_file_is_read_or_refused(data: bytes) -> None:
    facts(data)
