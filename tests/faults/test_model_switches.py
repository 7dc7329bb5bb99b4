"""Only a change of the active collection counts as a switch of the model."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from adapters.log.port import Message
from analytics.lake import Lake, LakePartition, PartitionEnd
from analytics.views import query
from schemas.events import ModelActivated, ModelStep
from tests.support.lake_events import BEGIN, Events, records, topic_of

ACTIVATED, ROLLED_BACK = ModelStep.ACTIVATED, ModelStep.ROLLED_BACK
BACKFILLING, RETIRED = ModelStep.BACKFILLING, ModelStep.RETIRED


def event(day: float, name: str, step: ModelStep) -> Message:
    return Message(
        name,
        ModelActivated(
            occurred_at=BEGIN + timedelta(days=day),
            model_name=name,
            model_version="1",
            collection=f"Images_{name}",
            step=step,
        ),
    )


def switches(folder: Path, *events: tuple[float, str, ModelStep]) -> list[dict[str, Any]]:
    """The rows of the view, with a search every four hours of ten days."""
    lake, source = Lake(str(folder)), Events(3)
    searches = []
    for number in range(60):
        search = source.search()
        when = BEGIN + timedelta(days=number / 6)
        moved = search.model_copy(update={"occurred_at": when})
        searches.append(Message(str(search.search_id), moved))
    for topic, messages in (("searches", searches), ("models", [event(*e) for e in events])):
        lake.current().append(
            topic_of(topic), LakePartition(topic, 0), PartitionEnd(), records(messages)
        )
    return query(lake, "FROM model_switches")


PLAIN = ((0, "a", ACTIVATED), (2, "b", ACTIVATED), (8, "a", ROLLED_BACK))
NOISE = [
    (3, "b", ACTIVATED),
    (3, "b", ROLLED_BACK),
    (3, "c", BACKFILLING),
    (3, "c", RETIRED),
    (1, "a", ACTIVATED),
    (9, "b", RETIRED),
    (9, "a", ACTIVATED),
]


@pytest.mark.slow
@pytest.mark.parametrize("noise", NOISE, ids=lambda noise: "-".join(map(str, noise)))
def test_only_changes_of_the_active_collection_count_as_switches(
    tmp_path: Path, noise: tuple[float, str, ModelStep]
) -> None:
    wanted = switches(tmp_path / "plain", *PLAIN)
    assert [(row["from_collection"], row["collection"]) for row in wanted] == [
        ("Images_a", "Images_b"),
        ("Images_b", "Images_a"),
    ]
    assert [(row["searches_before"], row["searches_after"]) for row in wanted] == [
        (12, 36),
        (36, 12),
    ]
    assert switches(tmp_path / "noisy", *sorted((*PLAIN, noise))) == wanted
