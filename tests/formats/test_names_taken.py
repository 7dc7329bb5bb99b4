"""An upload whose name is taken is offered a free one; Unicode forms of a name are one."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unicodedata import normalize

import httpx
import pytest

from adapters.embedder.spec import ModelSpec
from gateway.images.free_names import free_name
from gateway.images.uploads import MAX_NAME_BYTES, safe_name
from tests.support.gateway_on_fakes import Gateway, assert_problem, gateway, png

APART = normalize("NFD", "é")


@pytest.fixture
async def bench(tmp_path: Path, small_spec: ModelSpec) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path, small_spec) as found:
        yield found


async def send(bench: Gateway, data: bytes, name: str = "x.png", **form: str) -> httpx.Response:
    files = {"image": ("any.png", data)}
    return await bench.client.post("/api/v1/images", files=files, data={"name": name, **form})


@pytest.mark.slow
async def test_the_offered_name_can_be_used(bench: Gateway) -> None:
    await send(bench, png("red"))
    for number, colour in enumerate(("blue", "green", "gold"), 2):
        refused = await send(bench, png(colour))
        assert_problem(refused, 409, "name")
        offered = refused.json()["free_name"]
        assert offered == f"x ({number}).png"
        stored = await send(bench, png(colour), name=offered)
        assert (stored.status_code, stored.json()["image_name"]) == (201, f"uploads/{offered}")


@pytest.mark.parametrize(
    ("there", "offered"),
    [
        (["a.png"], "a (2).png"),
        (["a.png", "A (2).PNG", "a (3).png"], "a (4).png"),
        (["a (2).png"], "a (3).png"),
        (["a (9).png", "a (10).png"], "a (11).png"),
        (["a (0).png"], "a (0) (2).png"),
        (["a(2).png"], "a(2) (2).png"),
        (["a.b.png"], "a.b (2).png"),
        ([f"{APART}.png"], "é (2).png"),
        ([f"{APART}.png", f"{APART} (2).png"], "é (3).png"),
        (["x" * 200 + ".png"], "x" * 196 + " (2).png"),
        (["é" * 100 + ".png"], "é" * 98 + " (2).png"),
        ([f"{'x' * 196} ({n}).png" for n in range(9, 1, -1)], f"{'x' * 195} (10).png"),
    ],
)
def test_a_free_name_is_found(tmp_path: Path, there: list[str], offered: str) -> None:
    for name in there:
        (tmp_path / name).touch()
    found = free_name(tmp_path / there[0], MAX_NAME_BYTES)
    assert found == offered
    assert not (tmp_path / found).exists()
    assert safe_name(found, "image/png") == found


def test_a_name_is_offered_in_an_unreadable_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> Any:
        raise PermissionError

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert free_name(tmp_path / "a.png", MAX_NAME_BYTES) == "a (2).png"


async def test_a_name_used_by_a_folder_is_taken(bench: Gateway) -> None:
    (bench.images / "x.png").mkdir()
    for overwrite in ("false", "true"):
        refused = await send(bench, png(), folder="/", overwrite=overwrite)
        assert_problem(refused, 409, "name")
        assert refused.json()["free_name"] == "x (2).png"


async def test_a_name_is_taken_in_either_form(bench: Gateway) -> None:
    there = bench.images / f"{APART}.png"
    there.write_bytes(png("red"))
    same = await send(bench, png("red"), name="é.png", folder="/")
    assert (same.status_code, same.json()["image_name"]) == (200, there.name)
    refused = await send(bench, png("blue"), name="é.png", folder="/")
    assert_problem(refused, 409, "name")
    assert refused.json()["free_name"] == "é (2).png"
    assert (await send(bench, png("blue"), "é.png", folder="/", overwrite="true")).is_success
    assert list(bench.images.iterdir()) == [there]
    assert there.read_bytes() == png("blue")


@pytest.mark.slow
@pytest.mark.parametrize("requested", ["é", APART])
async def test_an_existing_folder_in_another_form_is_used(bench: Gateway, requested: str) -> None:
    (bench.images / APART).mkdir()
    stored = await send(bench, png(), folder=f"{requested}/{requested}")
    # What is new gets the form that most systems use.
    assert stored.json()["image_name"] == f"{APART}/é/x.png"
    assert [path.name for path in bench.images.iterdir()] == [APART]


@pytest.mark.slow
@pytest.mark.parametrize("requested", ["é", APART])
async def test_the_given_form_is_used_when_both_exist(bench: Gateway, requested: str) -> None:
    for folder in ("é", APART):
        (bench.images / folder).mkdir()
        for name in ("é.png", f"{APART}.png"):
            (bench.images / folder / name).write_bytes(png("red"))
    stored = await send(bench, png("blue"), f"{requested}.png", folder=requested, overwrite="true")
    assert stored.json()["image_name"] == f"{requested}/{requested}.png"


@pytest.mark.parametrize(
    "folder",
    ["@eaDir", "a/#recycle/b", "a/Lost+Found", "$RECYCLE.BIN", "a.download/b", "A.TMP"],
)
async def test_uploads_into_ignored_folders_are_refused(bench: Gateway, folder: str) -> None:
    assert_problem(await send(bench, png(), folder=folder), 422, "folder")
    assert list(bench.images.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["#1", "$money", "draft~", "Icon"])
async def test_uploads_into_folders_with_similar_names_are_stored(
    bench: Gateway, folder: str
) -> None:
    stored = await send(bench, png(), folder=folder)
    assert stored.json()["image_name"] == f"{folder}/x.png"


async def test_uploads_into_system_folders_are_stored_when_these_are_indexed(
    tmp_path: Path, small_spec: ModelSpec
) -> None:
    async with gateway(tmp_path, small_spec, ignore_defaults=False) as bench:
        assert (await send(bench, png(), folder="a/@eaDir")).status_code == 201
