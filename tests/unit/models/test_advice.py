"""Advice from ratings: when it is given, whom it names, and where it is shown."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import uuid4

import httpx
from fastapi import FastAPI

from adapters.embedder.fake import FakeEmbedder
from adapters.embedder.spec import ModelSpec
from adapters.index.fake import FakeImageIndex
from adapters.index.port import Collection, ImageRecord
from adapters.log.fake import FakeEventLog
from adapters.log.port import Message
from gateway.routes import advice as advice_route
from gateway.routes.metrics import router
from gateway.state.rating_metrics import RatingMetrics
from models.advice import Advice, advise
from models.settings import AdviceSettings
from schemas.events import (
    FeedbackGiven,
    ModelActivated,
    ModelStep,
    SearchKind,
    SearchPerformed,
    SearchResult,
    SearchTimings,
    now,
)
from schemas.topics import FEEDBACK, MODELS, SEARCHES

SETTINGS = AdviceSettings(advice_window=3600, advice_threshold=5, advice_ratings=2)


def model(name: str) -> ModelSpec:
    return ModelSpec(
        name=name,
        version="0123456789ab",
        dimension=8,
        width=4,
        height=4,
        resize_mode="stretch",
        licence="MIT",
    )


class Bench:
    """An active model that answers 'cats' with x, and others that know that c is right."""

    def __init__(self, *names: str) -> None:
        self.log, self.index = FakeEventLog(), FakeImageIndex()
        self.embedder = FakeEmbedder(served={name: model(name) for name in names})

    async def start(self) -> None:
        old = await self.index.ensure_collection(self.embedder.served["old"])
        await self.index.activate(old)
        await self.publish(old, ModelStep.ACTIVATED)
        search = SearchPerformed(
            search_id=uuid4(),
            kind=SearchKind.TEXT,
            text="cats",
            limit=3,
            model_name="old",
            model_version=old.model_version,
            collection=old.name,
            results=(SearchResult(image_name="x", score=0.5),),
            latency_ms=SearchTimings(embed=1, query=1, total=2),
        )
        await self.log.publish(SEARCHES, [Message(str(search.search_id), search)])

    async def publish(self, collection: Collection, step: ModelStep) -> None:
        event = ModelActivated(
            step=step,
            model_name=collection.model_name,
            model_version=collection.model_version,
            collection=collection.name,
        )
        await self.log.publish(MODELS, [Message(collection.model_name, event)])

    async def fill(self, name: str, images: Sequence[str]) -> Collection:
        """A model that is kept current and answers 'cats' with these, best first."""
        collection = await self.index.ensure_collection(self.embedder.served[name])
        (vector,) = await self.embedder.embed_texts(name, ["cats"])
        for position, image in enumerate(images):
            record = ImageRecord(
                image_id=image,
                uri="file:///x",
                sha256="a" * 64,
                media_type="image/png",
                size_bytes=1,
                width=1,
                height=1,
                modified_at=now(),
                added_at=now(),
                vector=(vector * (1 - position / 10)).tolist(),
            )
            await self.index.upsert(collection, [record])
        await self.publish(collection, ModelStep.BACKFILLING)
        return collection

    async def rate(self, name: str, rating: int, *, model_name: str = "old", days: int = 0) -> None:
        event = FeedbackGiven(
            search_id=uuid4(),
            rating=rating,
            image_name=name,
            text="cats",
            model_name=model_name,
            searched_at=now(),
            occurred_at=now() - timedelta(days=days),
        )
        await self.log.publish(FEEDBACK, [Message(str(event.search_id), event)])


async def test_there_is_no_advice_while_ratings_are_few_old_good_or_of_another_model() -> None:
    bench = Bench("old", "new")
    await bench.start()
    await bench.fill("new", ["c"])
    await bench.rate("x", 1, days=2)
    await bench.rate("x", 1, model_name="new")
    await bench.rate("x", 1)
    advice = await advise(bench.log, bench.embedder, bench.index, SETTINGS)
    assert (advice.ratings, advice.mean, advice.low) == (1, 1.0, False)
    for _ in range(3):
        await bench.rate("c", 9)
    advice = await advise(bench.log, bench.embedder, bench.index, SETTINGS)
    assert (advice.ratings, advice.mean, advice.low) == (4, 7.0, False)
    assert advice.sentence() == ""


async def test_low_ratings_name_the_loaded_model_that_ranks_best() -> None:
    bench = Bench("old", "new", "better", "retired", "unloaded")
    await bench.start()
    await bench.fill("new", ["a", "c"])
    await bench.fill("better", ["c", "a"])
    await bench.publish(await bench.fill("retired", ["c"]), ModelStep.RETIRED)
    await bench.fill("unloaded", ["c"])
    served = {name: spec for name, spec in bench.embedder.served.items() if name != "unloaded"}
    bench.embedder.served = served
    for _ in range(3):
        await bench.rate("x", 1)
    await bench.rate("c", 10)
    advice = await advise(bench.log, bench.embedder, bench.index, SETTINGS)
    assert (advice.low, advice.candidate) == (True, "better")
    assert (advice.active_ndcg, advice.candidate_ndcg) == (0, 1)
    assert "better would have scored higher" in advice.sentence()
    assert "models switch better" in advice.sentence()


async def test_low_ratings_without_a_better_model() -> None:
    bench = Bench("old", "new")
    await bench.start()
    await bench.fill("new", ["a"])
    for _ in range(2):
        await bench.rate("x", 2)
    advice = await advise(bench.log, bench.embedder, bench.index, SETTINGS)
    assert (advice.low, advice.candidate) == (True, None)
    assert "no loaded model would have done better" in advice.sentence()


async def test_there_is_no_advice_without_an_active_model() -> None:
    bench = Bench("old")
    advice = await advise(bench.log, bench.embedder, bench.index, SETTINGS)
    assert (advice.model, advice.low) == (None, False)


async def test_advice_is_a_prometheus_metric() -> None:
    bench = Bench("old", "new")
    await bench.start()
    await bench.fill("new", ["c"])
    for _ in range(3):
        await bench.rate("x", 1)
    await bench.rate("c", 5)
    ratings = RatingMetrics(bench.log, bench.embedder, bench.index, SETTINGS)
    app = FastAPI()
    app.include_router(router(ratings))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert "image_search_ratings" not in (await client.get("/metrics")).text
        await ratings.refresh()
        lines = (await client.get("/metrics")).text.splitlines()
    assert 'image_search_ratings_count{model="old"} 4.0' in lines
    assert 'image_search_ratings_mean{model="old"} 2.0' in lines
    assert 'image_search_ratings_low{model="old"} 1.0' in lines
    assert 'image_search_ratings_candidate_ndcg_gain{candidate="new",model="old"} 1.0' in lines


async def test_the_gateway_says_what_the_command_shows() -> None:
    bench = Bench("old", "new")
    await bench.start()
    await bench.fill("new", ["c"])
    ratings = RatingMetrics(bench.log, bench.embedder, bench.index, SETTINGS)
    app = FastAPI()
    app.include_router(advice_route.router(ratings))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for _ in range(3):
            await bench.rate("x", 1)
        await bench.rate("c", 5)
        answer = (await client.get("/api/v1/advice")).json()
    assert answer == (await ratings.newest()).as_json()
    assert (answer["model"], answer["low"], answer["candidate"]) == ("old", True, "new")
    assert "./image-search models switch new" in Advice(**answer).sentence()
