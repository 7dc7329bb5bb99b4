"""A server that comes back without its data: everything is found again, without a command."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from adapters.bootstrap import connections
from adapters.errors import AdapterError
from adapters.provision import newest_activation
from adapters.settings import ServerSettings
from analytics.lake import Lake
from consumers.repair.audit import audit
from schemas.codec import decode
from schemas.topics import FEEDBACK, IMAGES, SEARCHES, Topic
from tests.conftest import run_image_search, servers_of, stack_environment
from tests.e2e.conftest import System, eventually, names

HEAL_SECONDS = 120
COUNT = 30

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that nobody shares, as what it stores is deleted under it."""
    images, state = tmp_path_factory.mktemp("images"), tmp_path_factory.mktemp("lost")
    for number in range(COUNT):
        Image.new("RGB", (80, 60), (number * 8, 255 - number * 7, 90)).save(
            images / f"{number:02}.png"
        )
    (images / "broken.png").write_bytes(b"no picture")
    environment = stack_environment(state, images)
    run_image_search(environment, "up", "--detach")
    try:
        yield System(servers_of(environment), images, state)
    finally:
        run_image_search(environment, "down")


@pytest.fixture
async def client(own: System) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=own.gateway, timeout=30, trust_env=False) as client:
        yield client


def settings(system: System) -> ServerSettings:
    return ServerSettings(
        kafka_bootstrap_servers=system.servers.kafka,
        weaviate_url=system.servers.weaviate_url,
        weaviate_grpc_port=system.servers.weaviate_grpc_port,
        triton_url=system.servers.triton_url,
    )


def lose(system: System, server: str) -> None:
    """Kill a server, and delete its folder before it is started again."""
    row = system.process(server)
    assert row.pid is not None
    process = psutil.Process(row.pid)
    process.kill()
    psutil.wait_procs([process], timeout=20)
    gone = system.state / f"lost-{server}-{row.pid}"
    (system.state / server).rename(gone)
    shutil.rmtree(gone)


def expected(system: System) -> set[str]:
    return {path.name for path in system.images.glob("[0-9]*.png")}


async def is_whole(system: System, client: httpx.AsyncClient) -> bool:
    """Searches find exactly what is there, and log and index agree."""
    if set(await names(client, "a plain colour")) != expected(system):
        return False
    try:
        async with connections(settings(system)) as servers:
            active = await servers.index.active()
            if active is None:
                return False
            found = await audit(servers.log, servers.index, active, lambda *_: True)
            return found.is_clean and found.agreed == len(expected(system))
    except AdapterError:
        return False


async def failed(client: httpx.AsyncClient) -> int:
    return int((await client.get("/api/v1/state")).json()["failed"])


async def test_weaviate_without_its_data_is_refilled(
    own: System, client: httpx.AsyncClient
) -> None:
    await eventually(lambda: is_whole(own, client), seconds=HEAL_SECONDS)
    lose(own, "weaviate")
    (own.images / "00.png").unlink()
    Image.new("RGB", (80, 60), (200, 10, 10)).save(own.images / "90.png")
    await asyncio.sleep(1)
    await eventually(lambda: is_whole(own, client), seconds=HEAL_SECONDS, every=0.5)


async def test_everything_is_published_again_to_kafka_without_its_data(
    own: System, client: httpx.AsyncClient
) -> None:
    await eventually(lambda: is_whole(own, client), seconds=HEAL_SECONDS)
    lose(own, "kafka")
    (own.images / "02.png").unlink()
    await asyncio.sleep(1)
    Image.new("RGB", (80, 60), (10, 10, 200)).save(own.images / "91.png")

    async def whole() -> bool:
        try:
            async with connections(settings(own)) as servers:
                reported = {
                    r.key async for r in servers.log.read_all(IMAGES) if r.value is not None
                }
                active = await newest_activation(servers.log)
        except AdapterError:
            return False
        names_published = {(key or b"").decode() for key in reported} - {"broken.png"}
        return names_published == expected(own) and active is not None

    await eventually(whole, seconds=HEAL_SECONDS, every=0.5)
    await eventually(lambda: is_whole(own, client), seconds=HEAL_SECONDS, every=0.5)

    async def letters_arise_again() -> bool:
        return await failed(client) == 1

    await eventually(letters_arise_again, seconds=HEAL_SECONDS)


async def ids_of(system: System, topic: Topic) -> set[str]:
    """Event ids in the log; none while it cannot be read."""
    try:
        async with connections(settings(system)) as servers:
            return {
                str(decode(topic.event, record.value).event_id)
                async for record in servers.log.read_all(topic)
            }
    except AdapterError:
        return set()


def filed(system: System, topic: Topic) -> list[str]:
    """Event ids in the lake, in no particular order."""
    generation = Lake(str(system.state / "lake")).existing()
    if generation is None:
        return []
    found: list[str] = []
    for file in generation.snapshot(topic.name):
        found += generation.lake.storage.read_table(file.path)["event_id"].to_pylist()
    return found


async def test_searches_and_ratings_are_restored_to_a_new_kafka(
    own: System, client: httpx.AsyncClient
) -> None:
    for number in range(5):
        answer = await client.post("/api/v1/search-image", json={"text": f"restore {number}"})
        receipt = {"user_feedback": 7, "jwt": answer.json()["jwt"]}
        assert (await client.post("/api/v1/create-feedback", json=receipt)).status_code == 200

    async def all_filed() -> bool:
        for topic in (SEARCHES, FEEDBACK):
            known = await ids_of(own, topic)
            if not known or not known <= set(filed(own, topic)):
                return False
        return True

    await eventually(all_filed, seconds=HEAL_SECONDS)
    before = {topic: await ids_of(own, topic) for topic in (SEARCHES, FEEDBACK)}
    assert len(before[FEEDBACK]) >= 5
    lose(own, "kafka")

    async def restored() -> bool:
        for topic, wanted in before.items():
            if not wanted <= await ids_of(own, topic):
                return False
        return True

    await eventually(restored, seconds=HEAL_SECONDS, every=1)
    await eventually(lambda: is_whole(own, client), seconds=HEAL_SECONDS, every=0.5)
    await client.post("/api/v1/search-image", json={"text": "after that"})
    await eventually(all_filed, seconds=HEAL_SECONDS)
    for topic in before:
        rows = filed(own, topic)
        assert len(rows) == len(set(rows))


async def test_a_lake_that_is_deleted_is_filled_from_the_log(
    own: System, client: httpx.AsyncClient
) -> None:
    # Moved, as it cannot be emptied while files come into it.
    (own.state / "lake").rename(own.state / "a lake that is gone")
    await client.post("/api/v1/search-image", json={"text": "one more"})

    async def whole() -> bool:
        return bool(filed(own, SEARCHES)) and set(filed(own, SEARCHES)) == await ids_of(
            own, SEARCHES
        )

    await eventually(whole, seconds=HEAL_SECONDS, every=0.5)
    assert len(filed(own, FEEDBACK)) >= 5


async def test_weaviate_and_kafka_lose_their_data_while_the_stack_is_stopped(
    own: System, client: httpx.AsyncClient
) -> None:
    run_image_search(own.servers.environment, "down")
    for server in ("weaviate", "kafka"):
        shutil.rmtree(own.state / server)
    run_image_search(own.servers.environment, "up", "--detach")
    await eventually(lambda: is_whole(own, client), seconds=HEAL_SECONDS, every=0.5)
    assert Path(own.state / "lake").is_dir()


async def test_an_image_removed_while_kafka_loses_its_data_is_no_longer_found(
    own: System, client: httpx.AsyncClient
) -> None:
    await eventually(lambda: is_whole(own, client), seconds=HEAL_SECONDS)
    run_image_search(own.servers.environment, "down")
    shutil.rmtree(own.state / "kafka")
    for name in ("03.png", "04.png"):
        (own.images / name).unlink()
    run_image_search(own.servers.environment, "up", "--detach")
    await eventually(lambda: is_whole(own, client), seconds=HEAL_SECONDS, every=0.5)
