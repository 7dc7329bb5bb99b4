"""Time from adding a file until a search finds it, and from deleting it until none does.

`.venv/bin/python -m benchmarks.freshness` needs a running system (`make run`) and its IMAGES_DIR.
It adds pictures of new content one after another, searches without pause until each is found,
deletes it and searches until it is gone. Prints a table in Markdown; times are in seconds.
"""

import argparse
import asyncio
import os
import platform
import statistics
import time

import httpx
from PIL import Image, ImageEnhance

from stack.settings import StackSettings

PAUSE = 0.02
LIMIT = 60.0


async def until(client: httpx.AsyncClient, name: str, present: bool) -> float:
    """Seconds until a search has the picture among its matches, or no longer has it."""
    started = time.perf_counter()
    while time.perf_counter() - started < LIMIT:
        answer = await client.post("/api/v1/search-image", json={"text": "a cat", "limit": 1000})
        answer.raise_for_status()
        found = any(match["image_name"] == name for match in answer.json()["matches"])
        if found is present:
            return time.perf_counter() - started
        await asyncio.sleep(PAUSE)
    raise SystemExit(f"{name}: not within {LIMIT} s")


async def measure(rounds: int) -> None:
    """Run and print."""
    settings = StackSettings()
    source = settings.images / "photos" / "cat.jpg"
    added: list[float] = []
    removed: list[float] = []
    async with httpx.AsyncClient(base_url=settings.gateway_url, timeout=30) as client:
        for number in range(rounds):
            name = f"freshness-{number}.jpg"
            target = settings.images / name
            with Image.open(source) as image:
                ImageEnhance.Brightness(image).enhance(0.7 + number / rounds / 2).save(target)
            added.append(await until(client, name, present=True))
            target.unlink()
            removed.append(await until(client, name, present=False))
    print(f"{platform.machine()}, {os.cpu_count()} cores, {rounds} rounds, in seconds\n")
    print("| | p50 | p95 | max |\n|---|---|---|---|")
    for what, times in (("copied -> found", added), ("deleted -> gone", removed)):
        p95 = statistics.quantiles(times, n=20)[-1]
        print(f"| {what} | {statistics.median(times):.2f} | {p95:.2f} | {max(times):.2f} |")


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    asyncio.run(measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
