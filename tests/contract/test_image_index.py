"""What every `ImageIndex` promises: the fake (in-memory) one and Weaviate alike."""

import asyncio
import functools
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from adapters.embedder.spec import ModelSpec
from adapters.errors import Rejected, Unavailable
from adapters.index.fake import FakeImageIndex
from adapters.index.port import (
    DETAILS,
    MAX_RESULTS,
    Between,
    Collection,
    ImageFilter,
    ImageIndex,
    ImageRecord,
    Match,
)
from adapters.index.weaviate import WeaviateIndex
from adapters.name_forms import forms
from adapters.naming import object_id
from gateway.search.ranking import rank

WHEN = datetime(2026, 1, 5, 9, 58, 21, 123000, tzinfo=UTC)


@pytest.fixture(params=["memory", "weaviate"])
async def index(request: pytest.FixtureRequest) -> AsyncIterator[ImageIndex]:
    if request.param == "memory":
        yield FakeImageIndex()
        return
    servers = request.getfixturevalue("servers")
    real = WeaviateIndex(servers.weaviate_url, grpc_port=servers.weaviate_grpc_port)
    await real.connect()
    before = await real.active()
    yield real
    if before is not None:
        # The servers are shared: other suites search through the alias.
        await real.activate(before)
    await real.close()


@pytest.fixture
async def collection(index: ImageIndex, small_spec: ModelSpec) -> Collection:
    unused = small_spec.model_copy(update={"version": uuid.uuid4().hex[:12]})
    return await index.ensure_collection(unused)


def unit(*numbers: float) -> list[float]:
    vector = np.zeros(8)
    vector[: len(numbers)] = numbers
    return [float(number) for number in vector / np.linalg.norm(vector)]


def record(image_id: str, vector: list[float], sha256: str = "a" * 64) -> ImageRecord:
    return ImageRecord(
        image_id=image_id,
        uri=f"file:///images/{image_id}",
        sha256=sha256,
        media_type="image/jpeg",
        size_bytes=3_000_000_000,
        width=640,
        height=480,
        modified_at=WHEN,
        added_at=WHEN,
        vector=vector,
    )


async def ids(index: ImageIndex, collection: Collection) -> set[str]:
    return {image_id async for image_id, _ in index.stored(collection)}


async def test_a_collection_states_its_model(index: ImageIndex, small_spec: ModelSpec) -> None:
    spec = small_spec.model_copy(
        update={"name": "ViT-B-32__openai", "version": uuid.uuid4().hex[:12]}
    )
    first = await index.ensure_collection(spec)
    assert await index.ensure_collection(spec) == first
    assert (first.model_name, first.model_version) == (spec.name, spec.version)
    await index.activate(first)
    assert await index.active() == first


async def test_concurrent_calls_may_ensure_the_same_collection(
    index: ImageIndex, small_spec: ModelSpec
) -> None:
    spec = small_spec.model_copy(update={"version": uuid.uuid4().hex[:12]})
    found = await asyncio.gather(*(index.ensure_collection(spec) for _ in range(8)))
    assert len(set(found)) == 1


async def test_a_missing_collection_is_an_outage_and_rejects_no_image(
    index: ImageIndex, collection: Collection
) -> None:
    assert await index.upsert(collection, [record("a.jpg", unit(1))]) == {}
    await index.drop(collection)
    for attempt in (
        lambda: index.upsert(collection, [record("a.jpg", unit(1))]),
        lambda: index.upsert(collection, [record("a.jpg", unit(1)), record("b.jpg", unit(0, 1))]),
        lambda: index.delete(collection, ["a.jpg"]),
        lambda: index.known_vectors(collection, ["a" * 64]),
        lambda: index.vectors(collection, ["a.jpg"]),
        lambda: index.hashes(collection, ["a.jpg"]),
        lambda: index.ids_by_sha256(collection, ["a" * 64]),
        lambda: index.search(collection, unit(1), 5),
        lambda: index.scroll(collection, None, 5),
        lambda: index.newest(collection, 5),
        lambda: index.count(collection),
        lambda: ids(index, collection),
    ):
        with pytest.raises(Unavailable):
            await attempt()
    assert await index.find(collection.name) is None, "no write has made it again"


async def test_a_writer_to_a_dropped_collection_cannot_write_to_its_replacement(
    index: ImageIndex, small_spec: ModelSpec
) -> None:
    """A writer to the former collection may be behind the writers to the new one."""
    spec = small_spec.model_copy(update={"version": uuid.uuid4().hex[:12]})
    former = await index.ensure_collection(spec)
    await index.drop(former)
    new = await index.ensure_collection(spec)
    with pytest.raises(Unavailable):
        await index.upsert(former, [record("a.jpg", unit(1))])
    await index.upsert(new, [record("b.jpg", unit(1))])
    with pytest.raises(Unavailable):
        await index.delete(former, ["b.jpg"])
    assert await ids(index, new) == {"b.jpg"}


async def test_every_collection_is_listed(
    index: ImageIndex, collection: Collection, small_spec: ModelSpec
) -> None:
    other = await index.ensure_collection(
        small_spec.model_copy(update={"name": "other", "version": uuid.uuid4().hex[:12]})
    )
    found = await index.all_collections()
    assert {collection, other} <= set(found)
    assert [each.name for each in found] == sorted(each.name for each in found)


async def test_activation_moves_to_another_collection(
    index: ImageIndex, small_spec: ModelSpec
) -> None:
    old, new = [
        await index.ensure_collection(
            small_spec.model_copy(update={"version": uuid.uuid4().hex[:12]})
        )
        for _ in range(2)
    ]
    await index.activate(old)
    await index.activate(new)
    assert await index.active() == new
    await index.activate(old)
    assert await index.active() == old


async def test_a_collection_that_is_not_there_cannot_be_activated(index: ImageIndex) -> None:
    with pytest.raises(Rejected, match="Images_none_00000000"):
        await index.activate(Collection("Images_none_00000000", "none", "00000000", 8))


async def test_search_orders_by_cosine(index: ImageIndex, collection: Collection) -> None:
    refused = await index.upsert(
        collection,
        [
            record("far.jpg", unit(0, 1)),
            record("near.jpg", unit(1, 0.1)),
            record("behind.jpg", unit(-1)),
            record("same.jpg", unit(1)),
        ],
    )
    assert refused == {}
    matches = await index.search(collection, unit(1), limit=10)
    assert [match.image_id for match in matches] == [
        "same.jpg",
        "near.jpg",
        "far.jpg",
        "behind.jpg",
    ]
    expected = [1.0, float(np.dot(unit(1, 0.1), unit(1))), 0.0, -1.0]
    assert [match.score for match in matches] == pytest.approx(expected, abs=1e-5)
    assert len(await index.search(collection, unit(1), limit=2)) == 2


async def test_search_in_an_empty_collection_finds_nothing(
    index: ImageIndex, collection: Collection
) -> None:
    assert list(await index.search(collection, unit(1), limit=5)) == []


async def test_a_vector_of_another_dimension_is_refused(
    index: ImageIndex, collection: Collection
) -> None:
    with pytest.raises(Rejected, match="3 numbers"):
        await index.search(collection, [1.0, 0.0, 0.0], limit=1)
    refused = await index.upsert(
        collection, [record("good.jpg", unit(1)), record("bad.jpg", [1.0, 0.0, 0.0])]
    )
    assert list(refused) == ["bad.jpg"]
    assert "3 numbers" in refused["bad.jpg"]
    assert await ids(index, collection) == {"good.jpg"}


async def test_an_upsert_replaces_the_record(index: ImageIndex, collection: Collection) -> None:
    await index.upsert(collection, [record("a.jpg", unit(1), sha256="a" * 64)])
    await index.upsert(collection, [record("a.jpg", unit(0, 1), sha256="b" * 64)])
    assert [pair async for pair in index.stored(collection)] == [("a.jpg", "b" * 64)]
    assert await index.count(collection) == 1
    (match,) = await index.search(collection, unit(0, 1), limit=5)
    assert match.score == pytest.approx(1.0, abs=1e-5)


async def test_deletion_is_idempotent(index: ImageIndex, collection: Collection) -> None:
    await index.upsert(collection, [record("a.jpg", unit(1)), record("b.jpg", unit(0, 1))])
    await index.delete(collection, ["a.jpg", "never.jpg"])
    await index.delete(collection, ["a.jpg"])
    await index.delete(collection, [])
    assert await ids(index, collection) == {"b.jpg"}


async def test_similar_names_are_different_images(
    index: ImageIndex, collection: Collection
) -> None:
    names = [
        "a.jpg",
        "A.jpg",
        "a.jpg ",
        "d/a.jpg",
        "a\nb.jpg",
        "京都 'x' \"y\".jpg",
        "é.jpg",
        "é.jpg",
    ]
    await index.upsert(collection, [record(name, unit(1, n)) for n, name in enumerate(names)])
    assert await ids(index, collection) == set(names)
    await index.delete(collection, ["A.jpg"])
    assert await ids(index, collection) == set(names) - {"A.jpg"}


async def test_vectors_are_looked_up_by_content(index: ImageIndex, collection: Collection) -> None:
    tagged = replace(
        record("a.jpg", unit(1, 2, 3), sha256="1" * 64),
        taken_at=WHEN,
        camera="Ricoh GR",
        latitude=48.2,
        longitude=-16.3,
    )
    await index.upsert(collection, [tagged, record("b.jpg", unit(0, 1), sha256="2" * 64)])
    known = await index.known_vectors(collection, ["1" * 64, "2" * 64, "3" * 64])
    assert set(known) == {"1" * 64, "2" * 64}
    found = known["1" * 64]
    assert list(found.vector) == pytest.approx(unit(1, 2, 3), abs=2e-6)
    assert (found.width, found.height, found.taken_at) == (640, 480, WHEN)
    assert (found.camera, found.latitude, found.longitude) == ("Ricoh GR", 48.2, -16.3)
    assert known["2" * 64].taken_at is None
    assert await index.known_vectors(collection, []) == {}


async def test_vectors_are_read_back_by_name(index: ImageIndex, collection: Collection) -> None:
    await index.upsert(collection, [record("a.jpg", unit(1, 2)), record("b/c.jpg", unit(0, 1))])
    found = await index.vectors(collection, ["b/c.jpg", "never.jpg", "a.jpg"])
    assert set(found) == {"a.jpg", "b/c.jpg"}
    assert list(found["a.jpg"]) == pytest.approx(unit(1, 2), abs=2e-6)
    assert await index.vectors(collection, ["never.jpg"]) == {}


async def test_more_than_a_page_is_listed_and_deleted(
    index: ImageIndex, collection: Collection
) -> None:
    names = [f"{number:04}.jpg" for number in range(2105)]
    generator = np.random.default_rng(1)
    records = [record(name, unit(*generator.normal(size=8))) for name in names]
    for start in range(0, len(records), 500):
        assert await index.upsert(collection, records[start : start + 500]) == {}
    assert await ids(index, collection) == set(names)
    assert await index.count(collection) == len(names)
    await index.delete(collection, names[1:])
    assert await ids(index, collection) == {names[0]}


def varied() -> list[ImageRecord]:
    """Eight pictures that differ in all that can be filtered."""
    late = WHEN + timedelta(days=400)
    return [
        replace(record("root.jpg", unit(1, 0.0)), width=100, height=50, size_bytes=10),
        replace(record("a/one.jpg", unit(1, 0.1)), media_type="image/png", camera="Ricoh GR"),
        replace(record("a/b/two.jpg", unit(1, 0.2)), taken_at=WHEN, latitude=0.0, longitude=0.0),
        replace(record("ab/three.jpg", unit(1, 0.3)), taken_at=late, added_at=late),
        replace(record("a*/four.jpg", unit(1, 0.4)), camera="Ricoh GR III", size_bytes=2**40),
        replace(record("été/京都 x/five.jpg", unit(1, 0.5)), latitude=-89.9, longitude=10.0),
        replace(record("a\nb/six.jpg", unit(1, 0.6)), media_type="image/webp", width=9000),
        replace(record("A/seven.jpg", unit(1, 0.7)), height=481),
    ]


WHERE = {
    "everything": ImageFilter(),
    "folder": ImageFilter(folder="a/"),
    "folder below": ImageFilter(folder="a/b/"),
    "folder with a wild card": ImageFilter(folder="a*/"),
    "folder with a line end": ImageFilter(folder="a\nb/"),
    "folder beyond ASCII": ImageFilter(folder="été/"),
    "folder that is none": ImageFilter(folder="nowhere/"),
    "media type": ImageFilter(media_type=("image/png",)),
    "media types": ImageFilter(media_type=("image/png", "image/webp", "image/never")),
    "size from": ImageFilter(size_bytes=Between(3_000_000_001, None)),
    "size to": ImageFilter(size_bytes=Between(None, 10)),
    "width": ImageFilter(width=Between(100, 640)),
    "height exactly": ImageFilter(height=Between(481, 481)),
    "numbers beyond all": ImageFilter(width=Between(-(10**30), 10**30)),
    "nothing between": ImageFilter(width=Between(700, 600)),
    "taken from": ImageFilter(taken_at=Between(WHEN, None)),
    "taken to": ImageFilter(taken_at=Between(None, WHEN)),
    "taken just after": ImageFilter(taken_at=Between(WHEN + timedelta(milliseconds=1), None)),
    "added": ImageFilter(added_at=Between(WHEN + timedelta(days=1), WHEN + timedelta(days=500))),
    "all of time": ImageFilter(
        taken_at=Between(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
    ),
    "camera": ImageFilter(camera="Ricoh GR"),
    "camera that is none": ImageFilter(camera="ricoh"),
    "with a place": ImageFilter(has_gps=True),
    "without a place": ImageFilter(has_gps=False),
    "several": ImageFilter(folder="a/", has_gps=True, width=Between(1, 1000)),
}


@pytest.fixture
async def filled(index: ImageIndex, collection: Collection) -> Collection:
    assert await index.upsert(collection, varied()) == {}
    return collection


async def test_filters_select_the_matching_images(index: ImageIndex, filled: Collection) -> None:
    fake = FakeImageIndex()
    same = await fake.ensure_collection(
        ModelSpec(
            name=filled.model_name,
            version=filled.model_version,
            dimension=8,
            width=1,
            height=1,
            resize_mode="stretch",
            licence="x",
        )
    )
    await fake.upsert(same, varied())
    counts = {}
    for name, where in WHERE.items():
        found = await index.search(filled, unit(1), 100, where=where)
        expected = await fake.search(same, unit(1), 100, where=where)
        assert [m.image_id for m in found] == [m.image_id for m in expected], name
        counts[name] = len(found)
    assert counts == {
        "everything": 8,
        "folder": 2,
        "folder below": 1,
        "folder with a wild card": 1,
        "folder with a line end": 1,
        "folder beyond ASCII": 1,
        "folder that is none": 0,
        "media type": 1,
        "media types": 2,
        "size from": 1,
        "size to": 1,
        "width": 7,
        "height exactly": 1,
        "numbers beyond all": 8,
        "nothing between": 0,
        "taken from": 2,
        "taken to": 1,
        "taken just after": 1,
        "added": 1,
        "all of time": 2,
        "camera": 1,
        "camera that is none": 0,
        "with a place": 2,
        "without a place": 6,
        "several": 1,
    }


async def test_dates_outside_the_range_are_absent_and_not_wrapped(
    index: ImageIndex, collection: Collection
) -> None:
    """Weaviate's 64 bits of nanoseconds would make 1754 and 1816 of the years 1 and 9999."""
    moments = [
        datetime.min.replace(tzinfo=UTC),
        datetime(1677, 1, 1, tzinfo=UTC),
        datetime(1826, 1, 1, tzinfo=UTC),
        datetime(2262, 4, 10, tzinfo=UTC),
        datetime(2263, 1, 1, tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
    ]
    records = [
        replace(record(f"{moment.year}.jpg", unit(1, n)), taken_at=moment, modified_at=moment)
        for n, moment in enumerate(moments)
    ]
    assert await index.upsert(collection, records) == {}
    found = await index.search(collection, unit(1), 10, details=["taken_at", "modified_at"])
    held = {match.image_id: match.details["taken_at"] for match in found}
    assert held == {
        f"{moment.year}.jpg": moment if moment in moments[2:4] else None for moment in moments
    }
    assert held == {match.image_id: match.details["modified_at"] for match in found}
    for low, high, expected in (
        (moments[0], moments[-1], {"1826.jpg", "2262.jpg"}),
        (None, moments[1], set()),
        (moments[4], None, set()),
        (moments[1], moments[2], {"1826.jpg"}),
        (moments[3], moments[4], {"2262.jpg"}),
    ):
        where = ImageFilter(taken_at=Between(low, high))
        matches = await index.search(collection, unit(1), 10, where=where)
        assert {match.image_id for match in matches} == expected, (low, high)


async def test_a_filter_narrows_the_search_and_not_its_result(
    index: ImageIndex, collection: Collection
) -> None:
    """The best hundred are all outside the folder, and it is found nevertheless."""
    near = [record(f"near/{n}.jpg", unit(1, n / 1000)) for n in range(300)]
    far = [record(f"far/{n}.jpg", unit(-1, n / 1000)) for n in range(5)]
    await index.upsert(collection, near + far)
    found = await index.search(collection, unit(1), 10, where=ImageFilter(folder="far/"))
    assert {match.image_id for match in found} == {f"far/{n}.jpg" for n in range(5)}


@pytest.mark.parametrize("requested", ["é/ü*/", "e\u0301/u\u0308*/", "é/u\u0308*/", "e\u0301/ü*/"])
async def test_a_folder_filter_matches_every_unicode_form_of_its_name(
    index: ImageIndex, collection: Collection, requested: str
) -> None:
    inside = [
        f"{outer}/{inner}*/{deeper}a.jpg"
        for outer in ("é", "e\u0301")
        for inner in ("ü", "u\u0308")
        for deeper in ("", "å/")
    ]
    outside = ["e/u*/a.jpg", "é/üx/a.jpg", "é/u*/a.jpg", "é/ü*a.jpg", "e\u0300/ü*/a.jpg"]
    records = [record(name, unit(1, n / 100)) for n, name in enumerate(inside + outside)]
    assert await index.upsert(collection, records) == {}
    found = await index.search(collection, unit(1), 100, where=ImageFilter(folder=requested))
    assert {match.image_id for match in found} == set(inside)
    narrower = ImageFilter(folder=requested, width=Between(641, None))
    assert list(await index.search(collection, unit(1), 100, where=narrower)) == []


async def test_unicode_forms_of_a_name_are_looked_up_together_and_distinguished(
    index: ImageIndex, collection: Collection
) -> None:
    names = [*forms("é/ü/å.jpg"), "never.jpg"]
    stored = names[1:5]
    await index.upsert(
        collection, [record(name, unit(1, n), f"{n:064x}") for n, name in enumerate(stored)]
    )
    assert await index.hashes(collection, names) == {
        name: f"{n:064x}" for n, name in enumerate(stored)
    }
    found = await index.vectors(collection, names)
    assert set(found) == set(stored)
    for n, name in enumerate(stored):
        assert list(found[name]) == pytest.approx(unit(1, n), abs=2e-6)


async def test_details_are_returned_as_stored(index: ImageIndex, filled: Collection) -> None:
    found = {m.image_id: m for m in await index.search(filled, unit(1), 100, details=DETAILS)}
    for each in varied():
        assert found[each.image_id].details == {name: getattr(each, name) for name in DETAILS}
    (top,) = await index.search(filled, unit(1), 1)
    assert (top.details, list(top.vector)) == ({}, [])
    (top,) = await index.search(filled, unit(1), 1, with_vectors=True, details=["width"])
    assert list(top.vector) == pytest.approx(unit(1), abs=2e-6)  # its length is never quite one
    assert top.details == {"width": 100}


async def test_equal_scores_are_ordered_by_name(index: ImageIndex, collection: Collection) -> None:
    names = [f"{letter}.jpg" for letter in "hcaebdgf"]
    await index.upsert(collection, [record(name, unit(1)) for name in names])
    found = await index.search(collection, unit(1), 100)
    assert [match.image_id for match in found] == sorted(names)


async def test_a_limit_over_the_bound_is_refused(index: ImageIndex, collection: Collection) -> None:
    with pytest.raises(Rejected, match="limit"):
        await index.search(collection, unit(1), MAX_RESULTS + 1)
    assert list(await index.search(collection, unit(1), MAX_RESULTS)) == []


async def test_scrolling_returns_each_record_once(
    index: ImageIndex, collection: Collection
) -> None:
    names = [f"{n}.jpg" for n in range(25)]
    await index.upsert(
        collection, [record(name, unit(1, n), f"{n:064x}") for n, name in enumerate(names)]
    )
    met: list[str] = []
    after = None
    while page := await index.scroll(collection, after, 10):
        assert len(page) <= 10
        met += [each.image_id for each in page]
        after = met[-1]
        number = int(after.split(".")[0])
        assert page[-1].sha256 == f"{number:064x}"
        assert list(page[-1].vector) == pytest.approx(unit(1, number), abs=2e-6)
    assert met == sorted(names, key=object_id)
    # Scrolling also continues after a record that is deleted.
    await index.delete(collection, [met[9]])
    assert [each.image_id for each in await index.scroll(collection, met[9], 5)] == met[10:15]


async def test_a_scroll_starts_anywhere_and_leaves_vectors_out(
    index: ImageIndex, collection: Collection
) -> None:
    await index.upsert(collection, [record(f"{n}.jpg", unit(1.0, n)) for n in range(20)])
    every = await index.scroll(collection, None, 100)
    start = sum(object_id(each.image_id) <= object_id("never stored") for each in every)
    page = await index.scroll(collection, "never stored", 5, with_vectors=False)
    assert [each.image_id for each in page] == [each.image_id for each in every[start : start + 5]]
    assert all(len(each.vector) == 0 for each in page)


def added(image_id: str, minute: int | None) -> ImageRecord:
    moment = None if minute is None else WHEN + timedelta(minutes=minute)
    return replace(record(image_id, unit(1.0)), added_at=moment)


async def pages(index: ImageIndex, collection: Collection, limit: int) -> list[str]:
    """All images that `newest` lists, read in pages."""
    listed: list[str] = []
    before = None
    while page := await index.newest(collection, limit, before=before):
        assert len(page) <= limit
        listed += [each.image_id for each in page]
        before = (page[-1].added_at, page[-1].image_id)
    return listed


@pytest.mark.parametrize("limit", [1, 3, 4, 100])
async def test_the_newest_come_first_and_pages_lose_none(
    index: ImageIndex, collection: Collection, limit: int
) -> None:
    # Four of one instant, as of a bucket's listing, written in no order, and one without a time.
    records = [added(f"{n}.jpg", n) for n in (3, 1, 4, 0, 2)]
    records += [added(f"same/{letter}.jpg", 2) for letter in "cab"]
    await index.upsert(collection, [*records, added("never.jpg", None)])
    assert await pages(index, collection, limit) == [
        "4.jpg",
        "3.jpg",
        "2.jpg",
        "same/a.jpg",
        "same/b.jpg",
        "same/c.jpg",
        "1.jpg",
        "0.jpg",
    ]


async def test_a_picture_written_again_moves_to_its_new_time(
    index: ImageIndex, collection: Collection
) -> None:
    await index.upsert(collection, [added(f"{n}.jpg", n) for n in range(3)])
    await index.upsert(collection, [added("0.jpg", 7)])
    await index.delete(collection, ["1.jpg"])
    assert [each.image_id for each in await index.newest(collection, 10)] == ["0.jpg", "2.jpg"]
    # The image that a page follows need not exist any more.
    before = (WHEN + timedelta(minutes=1), "1.jpg")
    await index.upsert(collection, [added("older.jpg", -5), added("10.jpg", 1)])
    rest = await index.newest(collection, 10, before=before)
    assert [each.image_id for each in rest] == ["10.jpg", "older.jpg"]


@pytest.mark.parametrize("name", WHERE)
async def test_the_newest_pass_the_filter_and_have_details(
    index: ImageIndex, filled: Collection, name: str
) -> None:
    where, details = WHERE[name], ["width", "camera", "taken_at"]
    found = await index.newest(filled, 100, where=where, details=details)
    wanted = await index.search(filled, unit(1.0), 100, where=where, details=details)
    assert {each.image_id: each.details for each in found} == {
        each.image_id: each.details for each in wanted
    }
    times = [each.added_at for each in found]
    assert times == sorted(times, reverse=True)


async def test_too_many_at_once_are_refused(index: ImageIndex, filled: Collection) -> None:
    with pytest.raises(Rejected):
        await index.newest(filled, MAX_RESULTS + 1)


async def test_images_are_found_by_their_content(index: ImageIndex, collection: Collection) -> None:
    await index.upsert(
        collection,
        [
            record("x.jpg", unit(1), "1" * 64),
            record("y.jpg", unit(1), "1" * 64),
            record("z.jpg", unit(0, 1), "2" * 64),
        ],
    )
    found = await index.ids_by_sha256(collection, ["1" * 64, "2" * 64, "3" * 64])
    pair = sorted(["x.jpg", "y.jpg"], key=object_id)
    assert {sha: list(ids) for sha, ids in found.items()} == {"1" * 64: pair, "2" * 64: ["z.jpg"]}
    assert await index.ids_by_sha256(collection, []) == {}
    held = await index.hashes(collection, ["x.jpg", "z.jpg", "never.jpg"])
    assert held == {"x.jpg": "1" * 64, "z.jpg": "2" * 64}
    assert await index.hashes(collection, []) == {}


async def test_pages_repeat_and_skip_nothing(index: ImageIndex, collection: Collection) -> None:
    """As the gateway pages: a filter narrows, and together the pages are all there is, once."""
    names = [f"{'a' if number % 3 else 'b'}/{number:04}.jpg" for number in range(2500)]
    generator = np.random.default_rng(2)
    records = [record(name, unit(*generator.normal(size=8))) for name in names]
    for start in range(0, len(records), 500):
        assert await index.upsert(collection, records[start : start + 500]) == {}

    async def clean(order: Sequence[Match]) -> list[str]:
        return [match.image_id for match in order]

    for where, wanted in (
        (ImageFilter(), set(names)),
        (ImageFilter(folder="b/"), {name for name in names if name.startswith("b/")}),
    ):
        search = functools.partial(index.search, collection, unit(1, 1), where=where)
        met: list[str] = []
        while page := (await rank(search, clean, needed=len(met) + 130))[len(met) :][:130]:
            met += page
        assert len(met) == len(set(met))
        assert set(met) == wanted


async def test_searches_are_complete_while_images_are_rewritten(
    index: ImageIndex, collection: Collection
) -> None:
    generator = np.random.default_rng(3)
    records = [record(f"{n}.jpg", unit(*generator.normal(size=8))) for n in range(1000)]
    for start in range(0, len(records), 500):
        assert await index.upsert(collection, records[start : start + 500]) == {}
    for start in [*range(0, len(records), 50)] * 2:
        refused, *answers = await asyncio.gather(
            index.upsert(collection, records[start : start + 50]),
            *(index.search(collection, records[start + n].vector, 10) for n in range(0, 50, 2)),
        )
        assert refused == {}
        assert {len(answer) for answer in answers} == {10}


async def test_the_index_is_ready(index: ImageIndex) -> None:
    assert await index.is_ready()
