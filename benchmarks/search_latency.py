"""The time of a search through the gateway, against the two calls that it has to make.

`.venv/bin/python -m benchmarks.search_latency` needs a running system (`make run`). Bare calls are
the embedding of one text by Triton and one vector search by Weaviate, with the clients that the
gateway uses. Both kinds run in one process and take turns, so that other load on the machine
affects both alike. Every text is new, so no cache answers. Prints a table in Markdown; times in ms.
With `--against FOLDER` the gateway of another checkout takes turns with that of this one, and
nothing else is measured: old against new. The same environment must do for both.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp

from adapters.embedder.triton import TritonEmbedder
from adapters.index.port import Collection
from adapters.index.weaviate import WeaviateIndex
from adapters.settings import ServerSettings
from benchmarks.intervals import interval
from stack.questions import credentials
from stack.settings import ROOT, StackSettings
from stack.tcp_ports import free_ports

LIMIT = 10
WARM_UP = 30
SUBJECTS = ("a cat", "a red car", "a bird on a branch", "fruit in a bowl", "a tennis player")
Search = Callable[[str], Awaitable[None]]


async def alternating(
    queries: dict[str, Search], texts: itertools.count[int], requests: int
) -> dict[str, list[float]]:
    """Take turns, one request at a time; the time of each request in ms."""
    times: dict[str, list[float]] = {name: [] for name in queries}
    for number in range(requests):
        # The order alternates, as the second call finds the servers' caches warm.
        for name in list(queries) if number % 2 else list(queries)[::-1]:
            started = time.perf_counter()
            await queries[name](text(next(texts)))
            times[name].append((time.perf_counter() - started) * 1e3)
    return times


async def crowd(
    query: Search, texts: itertools.count[int], clients: int, seconds: float
) -> tuple[list[float], float]:
    """Search with `clients` at once for `seconds`; the times of requests in ms, and the seconds."""
    times: list[float] = []
    began = time.perf_counter()

    async def client() -> None:
        while (started := time.perf_counter()) < began + seconds:
            await query(text(next(texts)))
            times.append((time.perf_counter() - started) * 1e3)

    await asyncio.gather(*(client() for _ in range(clients)))
    return times, time.perf_counter() - began


async def one_client(queries: dict[str, Search], texts: itertools.count[int], rounds: int) -> None:
    """Print p50 and p95 of one client, and their ratios."""
    await alternating(queries, texts, WARM_UP)
    times = await alternating(queries, texts, rounds)
    print("| one client | p50 ms | p95 ms |\n|---|---|---|")
    quantiles = {name: statistics.quantiles(each, n=100) for name, each in times.items()}
    for name, each in quantiles.items():
        print(f"| {name} | {each[49]:.2f} | {each[94]:.2f} |")
    gateway, bare = quantiles["gateway"], quantiles["bare calls"]
    print(f"| **ratio** | **{gateway[49] / bare[49]:.2f}** | **{gateway[94] / bare[94]:.2f}** |\n")


async def many_clients(
    queries: dict[str, Search],
    texts: itertools.count[int],
    clients: int,
    seconds: float,
    rounds: int,
) -> None:
    """Take turns of `seconds` with `clients` at once; print throughput, p50 and p95."""
    done: dict[str, list[float]] = {name: [] for name in queries}
    spent = dict.fromkeys(queries, 0.0)
    for _ in range(rounds):
        for name, query in queries.items():
            times, took = await crowd(query, texts, clients, seconds)
            done[name] += times
            spent[name] += took
    print(f"| {clients} clients | requests/s | p50 ms | p95 ms |\n|---|---|---|---|")
    rates = {name: len(times) / spent[name] for name, times in done.items()}
    for name, times in done.items():
        p95 = statistics.quantiles(times, n=20)[-1]
        print(f"| {name} | {rates[name]:.1f} | {statistics.median(times):.1f} | {p95:.1f} |")
    print(f"| **ratio** | **{rates['gateway'] / rates['bare calls']:.2f}** | | |")


def through(gateway_url: str, session: aiohttp.ClientSession) -> Search:
    """A search through the gateway at this address."""

    async def search(query: str) -> None:
        body = {"text": query, "limit": LIMIT}
        async with session.post(f"{gateway_url}/api/v1/search-image", json=body) as response:
            assert response.status == 200, await response.text()
            assert len((await response.json())["matches"]) == LIMIT

    return search


def text(number: int) -> str:
    """A query text that was not used before, of a usual length."""
    return f"{SUBJECTS[number % len(SUBJECTS)]} {number}"


@contextmanager
def gateways(other: Path) -> Iterator[dict[str, int]]:
    """The gateways of another checkout and of this one; yields name -> port."""
    stack = StackSettings()
    environment = {
        **os.environ,
        **stack.environment(),
        "JWT_SECRET": "a secret of the benchmark, of many bytes",
        "LAKE_URL": str(stack.state / "benchmark-lake"),
    }
    ports = dict(zip(("before", "now"), free_ports(2), strict=True))
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "gateway"],
            cwd=code,
            env={**environment, "GATEWAY_PORT": str(port)},
            stderr=subprocess.DEVNULL,
        )
        for port, code in zip(ports.values(), (other, ROOT), strict=True)
    ]
    try:
        yield ports
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(60)


async def compare(
    ports: dict[str, int], rounds: int, requests: int, clients: int, seconds: float
) -> None:
    """Let the gateways at these ports take turns, and print a table in Markdown."""
    texts = itertools.count(int(time.time()) * 1_000_000)
    medians: dict[str, list[float]] = {name: [] for name in ports}
    rates: dict[str, list[float]] = {name: [] for name in ports}
    connector = aiohttp.TCPConnector(limit=clients)
    async with aiohttp.ClientSession(connector=connector, headers=credentials()) as session:
        queries = {
            name: through(f"http://127.0.0.1:{port}", session) for name, port in ports.items()
        }
        for query in queries.values():
            await answering(query)
        for number in range(rounds + 1):
            times = await alternating(queries, texts, requests)
            for name in list(queries)[:: -1 if number % 2 else 1]:
                done, spent = await crowd(queries[name], texts, clients, seconds)
                if number:  # The first round warms up.
                    medians[name].append(statistics.median(times[name]))
                    rates[name].append(len(done) / spent)
    print("| what | before | now | now / before, with 95 % |\n|---|---|---|---|")
    for what, found in (
        (f"p50 of one client, ms, {requests} requests a round", medians),
        (f"requests/s of {clients} clients", rates),
    ):
        ratios = [new / old for old, new in zip(found["before"], found["now"], strict=True)]
        low, high = interval(ratios)
        print(
            f"| {what} | {statistics.median(found['before']):.2f} "
            f"| {statistics.median(found['now']):.2f} "
            f"| {statistics.median(ratios):.3f} ({low:.3f} to {high:.3f}) |"
        )


async def answering(query: Search) -> None:
    """Wait until a gateway answers."""
    async with asyncio.timeout(60):
        while True:
            try:
                await query("ready?")
            except (aiohttp.ClientError, AssertionError):
                await asyncio.sleep(0.2)
            else:
                return


async def measure(rounds: int, clients: int, seconds: float) -> None:
    """Run and print."""
    stack = StackSettings()
    environment = {name.lower(): value for name, value in stack.environment().items()}
    settings = ServerSettings.model_validate(environment)
    embedder = TritonEmbedder(settings.triton_url, concurrency=clients)
    index = WeaviateIndex(settings.weaviate_url, grpc_port=settings.weaviate_grpc_port)
    collection = await index.active()
    assert collection is not None
    # Texts of an earlier run would come from the gateway's cache.
    texts = itertools.count(int(time.time()) * 1_000_000)
    connections = aiohttp.TCPConnector(limit=clients)
    async with aiohttp.ClientSession(connector=connections, headers=credentials()) as session:
        queries: dict[str, Search] = {
            "gateway": through(stack.gateway_url, session),
            "bare calls": bare(embedder, index, collection),
        }
        count = await index.count(collection)
        print(
            f"{platform.machine()}, {os.cpu_count()} cores, load average "
            f"{os.getloadavg()[0]:.1f} before, model {collection.model_name}, {count} pictures, "
            f"{rounds} requests of one client, {clients} clients for 4 x {seconds:g} s\n"
        )
        await one_client(queries, texts, rounds)
        await many_clients(queries, texts, clients, seconds, 4)
    await asyncio.gather(embedder.close(), index.close())


def bare(embedder: TritonEmbedder, index: WeaviateIndex, collection: Collection) -> Search:
    """The two calls alone."""

    async def search(query: str) -> None:
        vectors = await embedder.embed_texts(collection.model_name, [query])
        assert len(await index.search(collection, vectors[0].tolist(), LIMIT)) == LIMIT

    return search


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--against", type=Path, help="another checkout: old against new")
    parser.add_argument("--requests", type=int, default=300, help="of one client, in each round")
    arguments = parser.parse_args()
    clients, seconds = arguments.clients, arguments.seconds
    if arguments.against:
        with gateways(arguments.against.resolve()) as ports:
            asyncio.run(compare(ports, arguments.rounds, arguments.requests, clients, seconds))
    else:
        asyncio.run(measure(arguments.rounds, clients, seconds))


if __name__ == "__main__":
    main()
