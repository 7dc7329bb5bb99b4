"""A real S3 server as a process of a test's own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx

from stack.tcp_ports import free_ports


@dataclass
class ObjectStore:
    """The server's address, and the environment of its clients."""

    url: str
    process: subprocess.Popen[bytes]

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for processes that use it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def client(self) -> Any:
        """A client other than the one under test."""
        names = self.environment
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=names["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=names["AWS_SECRET_ACCESS_KEY"],
            region_name=names["AWS_DEFAULT_REGION"],
        )


@contextmanager
def running_object_store(log: Path) -> Iterator[ObjectStore]:
    """An empty server while the block runs."""
    (port,) = free_ports(1)
    server = Path(sys.executable).with_name("moto_server")
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(server), "-H", "127.0.0.1", "-p", str(port)],
            stdout=output,
            stderr=output,
            env={**os.environ, "MOTO_S3_CUSTOM_ENDPOINTS": ""},
        )
    store = ObjectStore(f"http://127.0.0.1:{port}", process)
    try:
        deadline = time.monotonic() + 60
        while not _answers(store.url):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, "the object store does not answer"
            time.sleep(0.1)
        yield store
    finally:
        process.kill()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=2).is_success
    except httpx.HTTPError:
        return False
