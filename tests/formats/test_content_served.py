"""An image is served under any name with its content's type; skipped files are reported."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fsspec
import pytest
from typer.testing import CliRunner

from adapters.embedder.spec import ModelSpec
from adapters.log.fake import FakeEventLog
from cli.__main__ import build
from gateway import ttl_cache
from imaging.media_types import HEAD_BYTES, content_type, sniff_media_type
from tests.formats.test_content_local import CONTENTS, JPEG, NAMES
from tests.support.gateway_on_fakes import Gateway, gateway
from tests.unit.producers.test_watcher import eventually, watching

STATE = "/api/v1/state"


@pytest.fixture
async def bench(
    tmp_path: Path, small_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Gateway]:
    monkeypatch.setattr(ttl_cache, "TTL_SECONDS", 0.0)
    monkeypatch.setattr(ttl_cache, "TTL_PER_COST", 0.0)
    settings: dict[str, Any] = {
        "images_sources": "cloud=memory://served",
        "thumbnails_dir": tmp_path / "thumbnails",
        "watcher_status_file": tmp_path / "watcher.json",
    }
    async with gateway(tmp_path, small_spec, **settings) as bench:
        yield bench
    fsspec.filesystem("memory").store.clear()


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "cloud/"])
async def test_every_name_is_served(bench: Gateway, prefix: str) -> None:
    for name in NAMES:
        data = JPEG + name.encode()
        if prefix:
            fsspec.filesystem("memory").pipe_file(f"/served/{name}", data)
        else:
            (bench.images / name).write_bytes(data)
        await bench.holds(prefix + name)
        answer = await bench.client.get(f"/images/{prefix}{quote(name, safe='')}")
        assert (answer.status_code, answer.content) == (200, data), name
        assert answer.headers["content-type"] == "image/jpeg"
        small = await bench.client.get(f"/thumbnails/{prefix}{quote(name, safe='')}")
        assert small.status_code == 200, name


@pytest.mark.slow
async def test_a_trailing_newline_makes_another_name(bench: Gateway) -> None:
    (bench.images / "a.jpg").write_bytes(JPEG)
    await bench.holds("a.jpg")
    for route in ("images", "thumbnails"):
        assert (await bench.client.get(f"/{route}/a.jpg")).status_code == 200
        assert (await bench.client.get(f"/{route}/a.jpg%0A")).status_code == 404


@pytest.mark.parametrize("prefix", ["", "cloud/"])
async def test_the_type_is_that_of_the_content(bench: Gateway, prefix: str) -> None:
    for name, (data, media_type) in CONTENTS.items():
        if sniff_media_type(data) is None:
            continue
        if prefix:
            fsspec.filesystem("memory").pipe_file(f"/served/{name}", data)
        else:
            (bench.images / name).write_bytes(data)
        await bench.holds(prefix + name)
        answer = await bench.client.get(f"/images/{prefix}{quote(name)}")
        assert answer.headers["content-type"] == media_type, name


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "image/avif"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf", "image/heic"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1miaf", "image/heif"),
        (b"\0\0\0\x18ftypheix\0\0\0\0mif1heix", "image/heic"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", None),
        (b"\0\0\0\x14ftypisom\0\0\0\0mp42heic", None),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", None),
        (b"BM, the text", None),
        (b"II*\0\x10\0\0\0CR\2\0", "image/x-raw"),
        (b"MM\0*\0\0\0\x08\0\1\xc6\x12" + bytes(10), "image/x-raw"),
        (b"MM\0*\0\0\0\x08\0\1\x01\x00" + bytes(10), "image/tiff"),
        (b"MM\0*\xff\xff\xff\xff", "image/tiff"),
        (b"II*\0", "image/tiff"),
    ],
)
def test_the_media_type_is_detected_from_the_first_bytes(
    head: bytes, media_type: str | None
) -> None:
    assert sniff_media_type(head) == media_type
    assert sniff_media_type(head.ljust(HEAD_BYTES, b"\0")) == media_type


def test_the_suffix_only_distinguishes_tiff_from_raw() -> None:
    assert content_type(b"II*\0" + bytes(99), "a.NEF") == "image/x-raw"
    assert content_type(b"II*\0" + bytes(99), "a.jpg") == "image/tiff"
    assert content_type(JPEG, "a.NEF") == "image/jpeg"
    assert content_type(b"text", "a.jpg") is None


@pytest.mark.slow
async def test_the_state_has_the_number_of_skipped_files(bench: Gateway, tmp_path: Path) -> None:
    assert "skipped" not in (await bench.client.get(STATE)).json()
    (tmp_path / "watcher.json").write_text("of a former version: {}")
    assert "skipped" not in (await bench.client.get(STATE)).json()
    (bench.images / "a.txt").write_bytes(b"text")
    (bench.images / "b").write_bytes(b"text")
    log = FakeEventLog()
    async with watching(bench.images, log, status_file=tmp_path / "watcher.json"):

        async def known() -> bool:
            found = (await bench.client.get(STATE)).json()
            return (found.get("skipped"), found.get("skipped_reasons")) == (
                2,
                {"other_suffix": 1, "not_a_picture": 1},
            )

        await eventually(known)


@pytest.mark.slow
async def test_the_command_lists_what_was_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, other = tmp_path / "images", tmp_path / "other"
    for folder in (root, other):
        folder.mkdir()
    for number in range(25):
        (root / f"{number:02}.txt").write_bytes(b"text")
    (root / "new\nline").write_bytes(b"text")
    (other / "c").write_bytes(b"text")
    status_file = tmp_path / "watcher.json"
    monkeypatch.setenv("WATCHER_STATUS_FILE", str(status_file))
    command = build(["index", "skipped"])
    nothing = CliRunner().invoke(command, ["index", "skipped"])
    assert "has not reported" in str(nothing.exception)
    log = FakeEventLog()
    sources = f"other={other.as_uri()}"
    async with watching(root, log, status_file=status_file, images_sources=sources):

        async def all_reported() -> bool:
            shown = CliRunner().invoke(command, ["index", "skipped", "--json"])
            return shown.exit_code == 0 and json.loads(shown.stdout)["total"] == 27

        await eventually(all_reported)
    found = json.loads(CliRunner().invoke(command, ["index", "skipped", "--json"]).stdout)
    by_reason = {
        each["reason"]: (each["count"], sorted(each["names"])) for each in found["reasons"]
    }
    assert by_reason == {
        "other_suffix": (25, [f"{number:02}.txt" for number in range(25)]),
        "not_a_picture": (2, ["new\nline", "other/c"]),
    }
    lines = CliRunner().invoke(command, ["index", "skipped"]).stdout.splitlines()
    assert lines[0] == "27 skipped"
    assert "  'new\\nline'" in lines
    assert "  and 5 more; --json lists up to 10000 of each source" in lines
