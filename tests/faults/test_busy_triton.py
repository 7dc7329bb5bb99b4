"""A busy Triton is not restarted; a hanging one is."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from adapters.errors import TooSlow, Unavailable
from adapters.settings import ServerSettings
from stack import probes


class World:
    """What inference and statistics answer."""

    def __init__(self) -> None:
        self.texts: Exception | None = None
        self.images: Exception | None = None
        self.completed: int | None = 0
        self.now = 1000.0


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()

    class Embedder:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        async def spec(self, _: str) -> Any:
            return type("Spec", (), {"width": 4, "height": 4})

        async def embed_texts(self, *_: object) -> None:
            if world.texts:
                raise world.texts

        async def embed_images(self, *_: object) -> None:
            if world.images:
                raise world.images

        async def close(self) -> None:
            return None

    async def completed(_: str) -> int | None:
        return world.completed

    monkeypatch.setattr(probes, "connect_embedder", Embedder)
    monkeypatch.setattr(probes, "_count_completed", completed)
    monkeypatch.setattr(time, "monotonic", lambda: world.now)
    return world


def works() -> Callable[[], Any]:
    return probes.TritonProbe(ServerSettings(triton_url="http://x"), lambda: "lite")


async def test_a_triton_that_answers_is_alive(world: World) -> None:
    assert await works()()


@pytest.mark.slow
async def test_a_busy_triton_is_alive(world: World) -> None:
    alive = works()
    world.images = TooSlow("no answer within 10 s, although Triton is alive")
    for _ in range(200):
        world.now += 13
        world.completed = (world.completed or 0) + 1
        assert await alive()


async def test_a_triton_with_one_slow_batch_is_alive(world: World) -> None:
    alive = works()
    assert await alive()
    world.images = TooSlow("slow")
    world.now += probes.HUNG_SECONDS - 1
    assert await alive()


async def test_a_triton_without_completed_requests_is_hung(world: World) -> None:
    alive = works()
    world.images = TooSlow("slow")
    assert await alive()
    world.now += probes.HUNG_SECONDS + 1
    assert not await alive()
    world.images = None
    assert await alive()


async def test_a_triton_whose_model_process_ended_is_not_alive(world: World) -> None:
    alive = works()
    world.texts = Unavailable("stub process is not healthy")
    assert not await alive()


async def test_a_lost_text_encoder_is_detected_while_the_image_encoder_is_busy(
    world: World,
) -> None:
    alive = works()
    world.images = TooSlow("slow")
    world.texts = Unavailable("stub process is not healthy")
    assert not await alive()
