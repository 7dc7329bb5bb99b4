"""Downloads from a hub: complete, resumed, recorded, and refused when they are not the same."""

import json
import os
from pathlib import Path

import pytest

from adapters.errors import Rejected, Unavailable
from models.hub import download
from stack.tcp_ports import free_ports
from tests.conftest import run_image_search
from tests.support import tiny_model
from tests.support.hub_server import COMMIT, Hub, hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    layout = tiny_model.write_layout(tmp_path / "repository")
    (layout / "README.md").write_text("not needed")
    (layout / "visual" / "model.armnn").write_bytes(b"not needed")
    return layout


def test_only_what_is_served_is_fetched_and_each_file_is_recorded(
    folder: Path, tmp_path: Path
) -> None:
    with hub(folder) as server:
        got = download("immich-app/tiny", "main", tmp_path / "cache", server.url)
        assert got.commit == COMMIT
        assert "visual/model.onnx" in got.files
        assert not {"README.md", "visual/model.armnn"} & set(got.files)
        assert (got.folder / "visual" / "model.onnx").read_bytes() == (
            folder / "visual" / "model.onnx"
        ).read_bytes()
        before = len(server.downloads)
        assert download("immich-app/tiny", "main", tmp_path / "cache", server.url) == got
        assert len(server.downloads) == before


def test_an_interrupted_download_is_resumed(folder: Path, tmp_path: Path) -> None:
    # The library writes down what has come in pieces of ten megabytes.
    weights = folder / "textual" / "model.onnx.data"
    weights.write_bytes(os.urandom(25_000_000))
    with hub(folder) as server:
        server.break_after = 21_000_000
        try:
            got = download("immich-app/tiny", "main", tmp_path / "cache", server.url)
        except Unavailable:
            got = download("immich-app/tiny", "main", tmp_path / "cache", server.url)
        assert server.ranges, "the rest was not asked for"
        assert all(requested != "bytes=0-" for requested in server.ranges)
        assert (got.folder / "textual" / weights.name).read_bytes() == weights.read_bytes()


def test_an_unreachable_hub_and_an_unknown_model_are_reported(folder: Path, tmp_path: Path) -> None:
    with hub(folder) as server, pytest.raises(Rejected):
        download("nobody/none", "main", tmp_path / "cache", server.url)
    (port,) = free_ports(1)
    with pytest.raises(Unavailable):
        download("immich-app/tiny", "main", tmp_path / "cache", f"http://127.0.0.1:{port}")


def environment(server: Hub, tmp_path: Path) -> dict[str, str]:
    return {
        "HF_ENDPOINT": server.url,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "CACHE_DIR": str(tmp_path / "cache"),
        "STATE_DIR": str(tmp_path / "state"),
    }


def test_pulling_by_name(folder: Path, tmp_path: Path) -> None:
    name = "ViT-B-32__openai"
    with hub(folder) as server:
        here = environment(server, tmp_path)
        done = run_image_search(here, "models", "pull", name)
        assert COMMIT in done.stdout
        # The stand-in is smaller than the real model, which must be reported.
        assert f"note: {name} has dimension" in " ".join(done.stderr.split())
        reported = json.loads(run_image_search(here, "models", "info", name, "--json").stdout)
        assert reported["origin"]["revision"] == COMMIT
        assert reported["served_as"]["licence"] == "MIT"
        assert "already installed" in run_image_search(here, "models", "pull", name).stdout
        assert "is unchanged" in run_image_search(here, "models", "pull", name, "--again").stdout
        listed = json.loads(run_image_search(here, "models", "list", "--json").stdout)
        # With nothing started yet, the better model that is here is the one to start with.
        assert {row["name"]: row["state"] for row in listed}[name] == "active"
