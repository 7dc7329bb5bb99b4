"""A name is found in any Unicode form; an exact match comes first."""

from collections.abc import AsyncIterator
from itertools import product
from pathlib import Path
from typing import Any
from unicodedata import normalize
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.embedder.spec import ModelSpec
from adapters.index.port import Collection
from adapters.log.port import Message
from adapters.name_forms import MAX_FORMS, forms
from gateway.search.image_lookup import ImageLookup
from schemas.events import DeadLetter
from schemas.topics import IMAGES_DLQ
from tests.support.gateway_on_fakes import Gateway, gateway, image_record, png, unit

NAMES = ["été.jpg", "한글 사진/가족.jpg", "が/ぎ.jpg", "Ångström/Việt Nam/ở.jpg", "ﬁ é.jpg"]


@pytest.fixture
async def bench(tmp_path: Path, small_spec: ModelSpec) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path, small_spec) as found:
        yield found


def other(name: str) -> str:
    apart = normalize("NFD", name)
    return apart if apart != name else normalize("NFC", name)


async def put(bench: Gateway, name: str, colour: str = "green", **more: Any) -> bytes:
    """A picture that is there and indexed."""
    target = bench.images / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(png(colour))
    await bench.index.upsert(bench.collection, [image_record(name, unit(1), **more)])
    return png(colour)


def test_a_name_without_composed_characters_has_one_form() -> None:
    assert forms("a/b c.jpg") == ("a/b c.jpg",)
    assert forms("京都/漢字.jpg") == ("京都/漢字.jpg",)
    assert forms("") == ("",)


@pytest.mark.parametrize("parts", range(1, 9))
def test_each_part_may_be_in_another_form(parts: int) -> None:
    names = [f"é{number}" for number in range(parts)]
    choices = [(normalize("NFC", name), normalize("NFD", name)) for name in names]
    every = {"/".join(each) for each in product(*choices)}
    for requested in every:
        found = forms(requested)
        assert found[0] == requested
        assert set(found) == every
        assert len(found) == len(every)


def test_characters_that_macos_does_not_decompose_are_found() -> None:
    # HFS+ keeps a compatibility ideograph, which each of Unicode's own forms replaces.
    stored = "\ufa19か\u3099"
    assert stored in forms("\ufa19が")
    assert "\ufa19が" in forms(stored)


@pytest.mark.parametrize("path", ["é/" * 2000, "é" * 4000, "/" * 4000 + "é", "e" + "\u0301" * 4000])
def test_the_number_of_unicode_forms_is_limited(path: str) -> None:
    found = forms(path)
    assert found[0] == path
    assert normalize("NFC", path) in found
    assert normalize("NFD", path) in found
    assert len(set(found)) == len(found) <= MAX_FORMS


def test_long_paths_with_one_change_of_form_are_found() -> None:
    path = "/".join(f"é{number}" for number in range(30))
    parts = path.split("/")
    for at in range(30):
        assert other("/".join(parts[:at])) + ("/" if at else "") + "/".join(parts[at:]) in forms(
            path
        )


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_all_forms_are_the_same_name(path: str) -> None:
    found = forms(path)
    assert found[0] == path
    assert {normalize("NFC", form) for form in found} == {normalize("NFC", path)}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
async def test_an_image_is_found_by_either_form_of_its_name(
    bench: Gateway, name: str, form: Any
) -> None:
    stored = normalize(form, name)
    data = await put(bench, stored)
    await bench.holds("another.jpg")
    requested = other(stored)
    assert requested != stored
    served = await bench.client.get(f"/images/{quote(requested)}")
    assert (served.status_code, served.content) == (200, data)
    assert (await bench.client.get(f"/thumbnails/{quote(requested)}")).status_code == 200
    # As a query it is left out, whatever it is called in the request.
    assert await bench.names(image_name=requested) == ["another.jpg"]
    assert await bench.names(terms=[{"image_name": requested}]) == ["another.jpg"]
    waited = await bench.search(text="x", wait_for={"image_name": requested, "timeout_s": 0.2})
    assert waited.status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("form", ["NFC", "NFD"])
async def test_a_mixed_path_is_found(bench: Gateway, form: Any) -> None:
    stored = f"{normalize('NFD', 'é')}/{normalize('NFC', 'ü')}/{normalize('NFD', 'å')}.jpg"
    data = await put(bench, stored)
    requested = normalize(form, stored)
    assert (await bench.client.get(f"/images/{quote(requested)}")).content == data
    assert await bench.names(image_name=requested) == []
    assert await bench.names(text="x", filters={"folder": normalize(form, "é/ü")}) == [stored]


@pytest.mark.slow
async def test_an_exact_name_takes_precedence_over_another_form(bench: Gateway) -> None:
    composed, apart = "é.jpg", normalize("NFD", "é.jpg")
    data = {composed: await put(bench, composed, "red"), apart: await put(bench, apart, "blue")}
    for name in (composed, apart):
        assert (await bench.client.get(f"/images/{quote(name)}")).content == data[name]
        assert await bench.names(image_name=name) == [other(name)]
    thumbnails = {(await bench.client.get(f"/thumbnails/{quote(n)}")).content for n in data}
    assert len(thumbnails) == 2


@pytest.mark.slow
async def test_an_exact_name_with_a_dead_letter_takes_precedence(bench: Gateway) -> None:
    apart = normalize("NFD", "é.jpg")
    await put(bench, apart, "blue")
    (bench.images / "é.jpg").write_bytes(png("red"))
    await refused(bench, "é.jpg")
    assert (await bench.client.get(f"/images/{quote('é.jpg')}")).content == png("red")


async def refused(bench: Gateway, name: str) -> None:
    letter = DeadLetter(
        image_id=name,
        error_class="Rejected",
        reason="too odd",
        attempts=1,
        source_topic="images",
        source_partition=0,
        source_offset=0,
    )
    await bench.log.publish(IMAGES_DLQ, [Message(name, letter)])


@pytest.mark.slow
async def test_an_image_with_a_dead_letter_is_shown_by_either_form(bench: Gateway) -> None:
    apart = normalize("NFD", "é.jpg")
    (bench.images / apart).write_bytes(png())
    await refused(bench, apart)
    assert (await bench.client.get(f"/images/{quote('é.jpg')}")).status_code == 200


@pytest.mark.slow
async def test_a_wait_for_content_checks_both_forms(bench: Gateway) -> None:
    await put(bench, "é.jpg", sha256="a" * 64)
    await put(bench, normalize("NFD", "é.jpg"), sha256="b" * 64)
    for sha256, status in (("a" * 64, 200), ("b" * 64, 200), ("c" * 64, 409)):
        wanted = {"image_name": "é.jpg", "sha256": sha256, "timeout_s": 0.2}
        assert (await bench.search(text="x", wait_for=wanted)).status_code == status


@pytest.mark.parametrize("form", ["NFC", "NFD"])
async def test_a_folder_filter_matches_both_forms(bench: Gateway, form: Any) -> None:
    apart = normalize("NFD", "été")
    await bench.holds(
        "été/a.jpg", f"{apart}/b.jpg", f"{apart}/below/c.jpg", "ete/d.jpg", "étéx/e.jpg"
    )
    found = await bench.names(text="x", limit=10, filters={"folder": normalize(form, "été")})
    assert sorted(found) == sorted(["été/a.jpg", f"{apart}/b.jpg", f"{apart}/below/c.jpg"])


async def test_an_existing_name_is_looked_up_by_one_id(
    bench: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "/".join(["é"] * 5)
    await bench.holds(name)
    requested: list[str] = []
    hashes, vectors = bench.index.hashes, bench.index.vectors

    async def count_hashes(collection: Collection, ids: Any) -> Any:
        requested.extend(ids)
        return await hashes(collection, ids)

    async def count_vectors(collection: Collection, ids: Any) -> Any:
        requested.extend(ids)
        return await vectors(collection, ids)

    monkeypatch.setattr(bench.index, "hashes", count_hashes)
    monkeypatch.setattr(bench.index, "vectors", count_vectors)

    async def active() -> Collection:
        return bench.collection

    image_lookup = ImageLookup(bench.index, active)
    await image_lookup.until_indexed(name, None, timeout=5)
    await bench.search(image_name=name)
    assert requested == [name, name]
    requested.clear()
    await bench.search(image_name=other(name))
    assert len(requested) == 2**5
