"""A hub of one repository on this machine: what a download uses of the Hugging Face API.

Files above `LFS_BYTES` are listed as those in Git LFS, with their SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LFS_BYTES = 1000


class Hub(ThreadingHTTPServer):
    """Serves `folder` as any repository.

    It interrupts one download after `break_after` bytes. Of each file it sends only the first
    `hold_after` bytes until `released` is set.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.break_after: int | None = None
        self.hold_after: int | None = None
        self.released = threading.Event()
        self.ranges: list[str] = []
        self.downloads: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        address = self.path.split("?")[0]
        if re.fullmatch(r"/api/models/[^/]+/[^/]+/tree/[^/]+", address) and "nobody" not in address:
            tree = [
                _entry(path.relative_to(self.server.folder).as_posix(), path.read_bytes())
                for path in sorted(self.server.folder.rglob("*"))
                if path.is_file()
            ]
            self._send(200, json.dumps(tree).encode(), {"Content-Type": "application/json"}, body)
            return
        if found := re.fullmatch(r"/api/models/(.+?)(?:/revision/(.+?))?", address):
            if found[2] not in (None, "main", COMMIT) or "nobody" in found[1]:
                self._send(404, b'{"error": "Repository not found"}', {}, body)
                return
            files = [
                {"rfilename": p.relative_to(self.server.folder).as_posix()}
                for p in sorted(self.server.folder.rglob("*"))
                if p.is_file()
            ]
            listing = {"id": found[1], "sha": COMMIT, "siblings": files, "private": False}
            self._send(
                200, json.dumps(listing).encode(), {"Content-Type": "application/json"}, body
            )
            return
        match = re.fullmatch(r"/(?:[^/]+/[^/]+)/resolve/[^/]+/(.+)", address)
        path = self.server.folder / match[1] if match else None
        if path is None or not path.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
            return
        data = path.read_bytes()
        headers = {
            "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
        }
        status, start = 200, 0
        if requested := self.headers.get("Range"):
            self.server.ranges.append(requested)
            start = int(re.findall(r"\d+", requested)[0])
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if body:
            self.server.downloads.append(match[1] if match else "")
        self._send(status, data[start:], headers, body, start)

    def _send(
        self, status: int, data: bytes, headers: dict[str, str], body: bool, start: int = 0
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        limit = self.server.break_after
        if body and limit is not None and len(data) > limit:
            self.server.break_after = None
            self.wfile.write(data[:limit])
            self.wfile.flush()
            self.close_connection = True
        elif body:
            hold = self.server.hold_after
            try:
                if hold is not None and start + len(data) > hold:
                    now = max(0, hold - start)
                    self.wfile.write(data[:now])
                    self.wfile.flush()
                    if not self.server.released.wait(300):
                        raise TimeoutError
                    data = data[now:]
                self.wfile.write(data)
            except (ConnectionError, TimeoutError):
                self.close_connection = True


def _entry(path: str, data: bytes) -> dict[str, object]:
    """One entry of a listing: Git's id of the blob, and the SHA-256 of a large file."""
    size = len(data)
    blob = hashlib.sha1(b"blob %d\0" % size + data, usedforsecurity=False).hexdigest()
    entry: dict[str, object] = {"type": "file", "path": path, "size": size, "oid": blob}
    if size > LFS_BYTES:
        sha256 = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"oid": sha256, "size": size, "pointerSize": 130}
    return entry


@contextmanager
def hub(folder: Path) -> Iterator[Hub]:
    """The hub, listening."""
    server = Hub(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
