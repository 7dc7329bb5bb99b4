"""A bucket of a real S3 server as a source of the watcher, with real Kafka."""

import hashlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.object_store import ObjectStore, running_object_store
from tests.support.watcher_processes import (
    Broker,
    history,
    running_broker,
    running_watcher,
    shows,
)

BUCKET = "photos"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with running_broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ObjectStore]:
    with running_object_store(tmp_path / "store.log") as store:
        store.client().create_bucket(Bucket=BUCKET)
        yield store


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.timeout(900)
def test_a_bucket_is_followed_over_restarts_and_outages(
    broker: Broker, store: ObjectStore, tmp_path: Path
) -> None:
    s3 = store.client()
    root = tmp_path / "images"
    root.mkdir()
    (root / "own.jpg").write_bytes(b"own")
    wanted = {"own.jpg": sha256(b"own")}

    def put(key: str, data: bytes) -> None:
        s3.put_object(Bucket=BUCKET, Key=f"2026/{key}", Body=data)
        wanted[f"cloud/{key}"] = sha256(data)

    def delete(key: str) -> None:
        s3.delete_object(Bucket=BUCKET, Key=f"2026/{key}")
        del wanted[f"cloud/{key}"]

    for number in range(1100):  # more than one page of a listing
        put(f"many/{number}.jpg", b"%d" % number)
    for name in ("a b.jpg", "été & 100%.png", "deep/er/x#y?.webp", "plus+.jpg"):
        put(name, name.encode())
    s3.put_object(Bucket=BUCKET, Key="2026/notes.txt", Body=b"no picture")
    s3.put_object(Bucket=BUCKET, Key="2025/old.jpg", Body=b"elsewhere")
    settings: dict[str, Any] = {
        "images_sources": f"cloud=s3://{BUCKET}/2026",
        "list_seconds": 0.5,
        **store.environment,
    }
    with running_watcher(broker.address, root, tmp_path, **settings) as watcher:
        shows(broker.address, wanted, 180)
        put("many/5.jpg", b"X")  # as long as before, and within the second
        put("new.jpg", b"new")
        delete("many/7.jpg")
        shows(broker.address, wanted, 180)
        before = len(history(broker.address))

        watcher.kill()
        put("while down.jpg", b"1")
        delete("a b.jpg")
        watcher.start()
        shows(broker.address, wanted, 180)
        assert len(history(broker.address)) == before + 2

        store.process.send_signal(signal.SIGSTOP)
        (root / "own2.jpg").write_bytes(b"own2")
        wanted["own2.jpg"] = sha256(b"own2")
        shows(broker.address, wanted, 180)
        store.process.send_signal(signal.SIGCONT)

        # It takes two requests, and between them a listing would see some of it removed, rightly.
        watcher.send(signal.SIGSTOP)
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="2026/"):
            keys = [{"Key": found["Key"]} for found in page["Contents"]]
            s3.delete_objects(Bucket=BUCKET, Delete={"Objects": keys})
        watcher.send(signal.SIGCONT)
        watcher.wait_for(lambda s: s["sources"]["cloud"]["state"] == "removals held back")
        shows(broker.address, wanted, 10)
        watcher.send(signal.SIGUSR1)
        shows(broker.address, {k: v for k, v in wanted.items() if k.startswith("own")}, 180)

        store.process.kill()
        watcher.wait_for(lambda s: s["sources"]["cloud"]["state"] == "not reachable", 180)
        assert watcher.stop() == 0
