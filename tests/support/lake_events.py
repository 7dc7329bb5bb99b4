"""Events as a busy system would write them, from a seed, and lakes to put them in."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pyarrow as pa

from adapters.log.port import LogRecord, Message, Position
from analytics.lake import TOPICS, Lake
from schemas.codec import encode
from schemas.events import (
    DeadLetter,
    FeedbackGiven,
    ImageIndexed,
    IndexAction,
    ModelActivated,
    ModelStep,
    SearchKind,
    SearchPerformed,
    SearchResult,
    SearchTimings,
    StageTimings,
)
from schemas.topics import BY_NAME, Topic

BEGIN = datetime(2026, 1, 5, 6, tzinfo=UTC)
WORDS = ("a red car", "tennis", "été à la mer", "dog's ball", "snow", "nothing of the kind")
MODEL_STEPS = (
    ("lite", ModelStep.ACTIVATED),
    ("clip", ModelStep.BACKFILLING),
    ("clip", ModelStep.ACTIVATED),
    ("clip", ModelStep.ACTIVATED),
    ("third", ModelStep.BACKFILLING),
    ("lite", ModelStep.ROLLED_BACK),
    ("clip", ModelStep.RETIRED),
    ("third", ModelStep.ACTIVATED),
)


class Events:
    """A source of events; the same seed gives the same ones."""

    def __init__(self, seed: int, *, days: int = 40) -> None:
        self.rng = random.Random(seed)
        self.days = days
        self.searches: list[SearchPerformed] = []

    def when(self) -> datetime:
        return BEGIN + timedelta(seconds=self.rng.uniform(0, self.days * 86_400))

    def uuid(self) -> UUID:
        return UUID(int=self.rng.getrandbits(128), version=4)

    def search(self, *, results: int | None = None) -> SearchPerformed:
        rng = self.rng
        kind = rng.choices(list(SearchKind), weights=(8, 1, 2, 1))[0]
        count = rng.choice((0, 1, 3, 10)) if results is None else results
        scores = sorted((rng.uniform(-0.1, 0.9) for _ in range(count)), reverse=True)
        model = rng.choice(("lite", "clip"))
        event = SearchPerformed(
            event_id=self.uuid(),
            occurred_at=self.when(),
            search_id=self.uuid(),
            kind=kind,
            text=None if kind is SearchKind.IMAGE else rng.choice(WORDS),
            limit=10,
            filters=rng.choice(({}, {"min_score": 0.2})),
            model_name=model,
            model_version=f"{model}-1",
            collection=f"Images_{model}_1",
            results=tuple(
                SearchResult(image_name=f"p/{rng.randrange(50)}.jpg", score=score)
                for score in scores
            ),
            latency_ms=SearchTimings(
                embed=rng.uniform(1, 30), query=rng.uniform(1, 9), total=rng.uniform(31, 60)
            ),
            client=rng.choice((None, "c1", "c2")),
        )
        self.searches.append(event)
        return event

    def feedback(self) -> FeedbackGiven:
        rng = self.rng
        search = rng.choice(self.searches[-500:] or [self.search()])
        results = search.results
        rated = rng.choice(results).image_name if results and rng.random() < 0.5 else None
        return FeedbackGiven(
            event_id=self.uuid(),
            occurred_at=search.occurred_at + timedelta(seconds=rng.uniform(1, 3600)),
            search_id=search.search_id,
            rating=rng.randint(1, 10),
            image_name=rated,
            text=search.text,
            model_name=search.model_name,
            top_image=results[0].image_name if results else None,
            top_score=results[0].score if results else None,
            searched_at=search.occurred_at,
        )

    def indexed(self) -> ImageIndexed:
        rng = self.rng
        when = self.when()
        removed = rng.random() < 0.1
        return ImageIndexed(
            event_id=self.uuid(),
            occurred_at=when,
            image_id=f"p/{rng.randrange(50)}.jpg",
            action=IndexAction.REMOVED if removed else IndexAction.UPSERTED,
            sha256=None if removed else f"{rng.getrandbits(256):064x}",
            model_name=rng.choice(("lite", "clip")),
            collection="Images_lite_1",
            source_partition=rng.randrange(12),
            source_offset=rng.randrange(1000),
            added_at=None if removed else when - timedelta(seconds=rng.expovariate(0.5)),
            vector_reused=rng.random() < 0.2,
            timings_ms=StageTimings(read=1.5, decode=rng.uniform(2, 9), embed=20, write=3),
        )

    def dead_letter(self) -> DeadLetter:
        rng = self.rng
        return DeadLetter(
            event_id=self.uuid(),
            occurred_at=self.when(),
            image_id=f"p/{rng.randrange(9)}.jpg",
            error_class=rng.choice(("Rejected", "InvalidName", "InvalidEvent")),
            reason="no picture",
            attempts=1,
            source_topic="images",
            source_partition=1,
            source_offset=rng.randrange(1000),
            original_value=b"\x00\xff",
        )

    def model_step(self, number: int) -> ModelActivated:
        """One event every five days: fill, activate (twice), roll back, retire."""
        name, step = MODEL_STEPS[number % len(MODEL_STEPS)]
        return ModelActivated(
            event_id=self.uuid(),
            occurred_at=BEGIN + timedelta(days=5 * number),
            step=step,
            model_name=name,
            model_version=f"{name}-1",
            collection=f"Images_{name}_1",
            previous_collection=None if number == 0 else "Images_other_1",
        )

    def messages(self, topic: str, count: int) -> list[Message]:
        """Messages for this topic, with its keys."""
        made: list[Message] = []
        for number in range(count):
            event: Any
            if topic == "searches":
                event = self.search()
                key = str(event.search_id)
            elif topic == "feedback":
                event = self.feedback()
                key = str(event.search_id)
            elif topic == "images.indexed":
                event = self.indexed()
                key = event.image_id
            elif topic == "images.dlq":
                event = self.dead_letter()
                key = event.image_id
            else:
                event = self.model_step(number)
                key = event.model_name
            made.append(Message(key, event))
        return made


def records(
    messages: Sequence[Message], partition: int = 0, first: int = 0, *, step_ms: int = 1000
) -> list[LogRecord]:
    """The messages as a partition's records, `step_ms` apart from `BEGIN` on."""
    begin = int(BEGIN.timestamp() * 1000)
    return [
        LogRecord(
            Position(partition, first + number),
            message.key.encode(),
            None if message.event is None else encode(message.event),
            begin + (first + number) * step_ms,
        )
        for number, message in enumerate(messages)
    ]


def table(lake: Lake, topic: Topic | str) -> pa.Table:
    """All rows of a topic as readers see them, by partition and offset."""
    name = topic if isinstance(topic, str) else topic.name
    generation = lake.current()
    tables = [lake.storage.read_table(file.path) for file in generation.snapshot(name)]
    if not tables:
        return lake.storage.read_table(
            f"{generation.name}/topic={name}/date=1970-01-01/empty.parquet"
        )
    return pa.concat_tables(tables).sort_by([("partition", "ascending"), ("offset", "ascending")])


def all_tables(lake: Lake) -> dict[str, pa.Table]:
    """Topic -> all its rows."""
    return {topic.name: table(lake, topic) for topic in TOPICS}


def topic_of(name: str) -> Topic:
    return BY_NAME[name]
