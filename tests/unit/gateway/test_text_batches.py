"""Texts requested at the same time share batches; none waits for another or fails with it."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from adapters.embedder.arrays import Vectors
from adapters.embedder.fake import FakeEmbedder
from adapters.errors import Rejected, Unavailable
from gateway.search.text_batches import IN_FLIGHT, MAX_TEXTS, TextBatches


class Slow(FakeEmbedder):
    """Answers each text with its number, after a moment, and notes what came together."""

    def __init__(self) -> None:
        super().__init__()
        self.requested: list[list[str]] = []
        self.at_once = 0
        self.most_at_once = 0

    async def embed_texts(self, model_name: str, texts: Sequence[str]) -> Vectors:
        self.check()
        self.requested.append(list(texts))
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        await asyncio.sleep(0.02)
        self.at_once -= 1
        if "bad" in texts:
            raise Rejected("a bad text")
        return np.array([[float(text)] for text in texts], np.float32)


async def test_a_single_text_is_embedded_at_once() -> None:
    embedder = Slow()
    assert await TextBatches(embedder).embed("m", "7") == [7.0]
    assert embedder.requested == [["7"]]


async def test_texts_that_arrive_during_a_request_share_the_next_batch() -> None:
    embedder = Slow()
    batches = TextBatches(embedder)
    count = 3 * MAX_TEXTS
    found = await asyncio.gather(*(batches.embed("m", str(n)) for n in range(count)))
    assert found == [[float(n)] for n in range(count)]
    assert sorted(int(t) for texts in embedder.requested for t in texts) == list(range(count))
    assert max(map(len, embedder.requested)) <= MAX_TEXTS
    assert len(embedder.requested) <= 2 * IN_FLIGHT + 2
    assert embedder.most_at_once <= IN_FLIGHT


async def test_models_are_not_mixed() -> None:
    embedder = Slow()
    batches = TextBatches(embedder)
    models = [("m", "1"), ("n", "2"), ("m", "3"), ("n", "4")]
    found = await asyncio.gather(*(batches.embed(*each) for each in models))
    assert found == [[1.0], [2.0], [3.0], [4.0]]
    assert not any(
        {"1", "3"} & set(texts) and {"2", "4"} & set(texts) for texts in embedder.requested
    )


async def test_a_refused_text_does_not_fail_the_others() -> None:
    batches = TextBatches(Slow())
    requested = ["0", "0", "1", "bad", "2"]
    found = await asyncio.gather(
        *(batches.embed("m", text) for text in requested), return_exceptions=True
    )
    assert [found[0], found[2], found[4]] == [[0.0], [1.0], [2.0]]
    assert isinstance(found[3], Rejected)


async def test_an_outage_reaches_all_callers_and_ends() -> None:
    embedder = Slow()
    batches = TextBatches(embedder)
    embedder.available = False
    found = await asyncio.gather(
        *(batches.embed("m", str(n)) for n in range(5)), return_exceptions=True
    )
    assert all(isinstance(each, Unavailable) for each in found)
    embedder.available = True
    assert await batches.embed("m", "5") == [5.0]


@pytest.mark.parametrize("away", [[4], [0], [0, 1], [2, 3, 4, 5]])
async def test_cancelled_callers_do_not_delay_others(away: list[int]) -> None:
    embedder = Slow()
    batches = TextBatches(embedder)
    tasks = [asyncio.create_task(batches.embed("m", str(n))) for n in range(6)]
    await asyncio.sleep(0)
    for number in away:
        tasks[number].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    for number, each in enumerate(found):
        if number in away:
            assert isinstance(each, asyncio.CancelledError)
        else:
            assert each == [float(number)]
    # The limit of requests in flight is the same afterwards.
    embedder.most_at_once = embedder.at_once = 0
    await asyncio.gather(*(batches.embed("m", str(n)) for n in range(6)))
    assert embedder.most_at_once == IN_FLIGHT
