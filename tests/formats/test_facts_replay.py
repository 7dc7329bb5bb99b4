"""Images of an earlier version get their new facts, and keep their vectors."""

from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO

import pytest
from PIL import ExifTags, Image

from adapters.embedder.spec import ModelSpec
from adapters.index.facts import FACTS_VERSION
from adapters.index.port import ImageRecord
from adapters.log.port import Committed, LogRecord
from consumers.indexing.offset_fingerprints import _facts_version
from imaging.decode import decode
from tests.faults.test_indexers_after_log_loss import Library, library
from tests.support.corpus_cases import cases
from tests.unit.consumers.test_indexing import Bench, bench

__all__ = ["bench", "library"]

TAKEN = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


def photograph(colour: str = "red", size: tuple[int, int] = (20, 10)) -> bytes:
    buffer = BytesIO()
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = exif[ExifTags.Base.Model] = "Ricoh"
    exif[ExifTags.Base.DateTime] = "2024-05-06 07:08:09"
    Image.new("RGB", size, colour).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def stored(bench: Bench, name: str) -> ImageRecord:
    return bench.index.records[bench.collection.name][name]


async def indexed_before(bench: Bench, name: str, data: bytes, **stored_facts: object) -> LogRecord:
    """A picture as an earlier version left it in the index, and its record in the log."""
    bench.file(name, data)
    record = bench.added(name, data)
    await bench.run(record)
    old = {
        "camera": None,
        "taken_at": None,
        "media_type": "image/heic",
        "facts_version": 0,
    } | stored_facts
    as_before = replace(stored(bench, name), **old)  # type: ignore[arg-type]
    bench.index.records[bench.collection.name][name] = as_before
    bench.indexer._preparer._inference._recent.clear()  # it is another process now
    return record


async def test_a_replay_reads_the_facts_again_and_keeps_the_vector(bench: Bench) -> None:
    record = await indexed_before(bench, "a.heic", photograph())
    before, calls = stored(bench, "a.heic"), bench.embedder.image_calls
    await bench.run(record)
    now = stored(bench, "a.heic")
    assert (now.camera, now.taken_at, now.media_type) == ("Ricoh", TAKEN, "image/jpeg")
    assert now.facts_version == FACTS_VERSION
    assert now.vector == before.vector
    assert bench.embedder.image_calls == calls
    assert (await bench.announced())[-1].vector_reused


async def test_facts_read_once_are_not_read_again(bench: Bench) -> None:
    record = await indexed_before(bench, "a.jpg", photograph())
    await bench.run(record)
    (bench.folder / "a.jpg").unlink()
    bench.indexer._preparer._inference._recent.clear()
    decoded = bench.indexer.counters.decoded
    await bench.run(record)
    assert bench.indexer.counters.decoded == decoded
    assert stored(bench, "a.jpg").camera == "Ricoh"


async def test_an_image_whose_orientation_changed_is_embedded_again(bench: Bench) -> None:
    record = await indexed_before(bench, "a.jpg", photograph(), width=10, height=20)
    calls = bench.embedder.image_calls
    await bench.run(record)
    assert (stored(bench, "a.jpg").width, stored(bench, "a.jpg").height) == (20, 10)
    assert bench.embedder.image_calls == calls + 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jpeg baseline", "jpeg EXIF orientation 6", "png RGB", "heic"])
def test_the_pixels_of_most_images_never_changed(name: str, small_spec: ModelSpec) -> None:
    (case,) = [each for each in cases() if each.name == name]
    assert decode(case.data, small_spec).pixels_since == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "jpeg with an orientation in XMP alone",
        "jpeg xl made from a jpeg, orientation 3",
        "png animated, first frame transparent",
        "gif animated, first frame transparent (1)",
        "png 4-bit grey with a transparent grey",
    ],
)
async def test_an_image_whose_pixels_changed_is_embedded_again(
    bench: Bench, name: str, small_spec: ModelSpec
) -> None:
    (case,) = [each for each in cases() if each.name == name]
    assert decode(case.data, small_spec).pixels_since == FACTS_VERSION
    record = await indexed_before(bench, "a.jpg", case.data, vector=[1.0, *[0.0] * 7])
    calls = bench.embedder.image_calls
    await bench.run(record)
    assert bench.embedder.image_calls == calls + 1
    assert stored(bench, "a.jpg").facts_version == FACTS_VERSION


async def test_the_facts_of_copies_are_read_once(bench: Bench) -> None:
    data = photograph()
    records = [await indexed_before(bench, f"{n}.jpg", data) for n in range(3)]
    for name in ("0.jpg", "1.jpg", "2.jpg"):
        old = replace(stored(bench, name), camera=None, facts_version=0)
        bench.index.records[bench.collection.name][name] = old
    decoded = bench.indexer.counters.decoded
    await bench.run(*records)
    assert bench.indexer.counters.decoded == decoded + 1
    assert {stored(bench, f"{n}.jpg").camera for n in range(3)} == {"Ricoh"}


async def test_a_new_copy_takes_the_corrected_facts(bench: Bench) -> None:
    data = photograph()
    await indexed_before(bench, "old.jpg", data)
    bench.file("new.jpg", data)
    await bench.run(bench.added("new.jpg", data))
    assert stored(bench, "new.jpg").camera == "Ricoh"
    assert stored(bench, "old.jpg").camera is None, "its own record has not come yet"
    known = await bench.index.known_vectors(bench.collection, [stored(bench, "new.jpg").sha256])
    assert [each.camera for each in known.values()] == ["Ricoh"]


async def test_a_log_read_by_an_earlier_version_is_read_again(library: Library) -> None:
    library.group.marks[0] = library.group.marks[0].removeprefix(f"{FACTS_VERSION}:")
    await library.read_once()
    assert library.handled.keys == library.keys
    assert library.began == 0, "the index knows the pictures, and the log is the same"
    library.handled.keys.clear()
    await library.read_once()
    assert library.handled.keys == []


async def test_an_interrupted_second_reading_is_continued(library: Library) -> None:
    library.group.marks[0] = ""
    async with library.member() as app:
        await library.read(app, 4)
    read = len(library.handled.keys)
    assert 0 < read < len(library.keys)
    await library.read_once()
    assert library.handled.keys == library.keys


@pytest.mark.parametrize(
    ("metadata", "version"),
    [("", 0), ("0123456789abcdef" * 2, 0), ("2:", 2), ("13:" + "ab" * 16, 13), ("x:y", 0)],
)
def test_the_version_is_committed_with_the_offset(metadata: str, version: int) -> None:
    assert _facts_version(Committed(5, metadata)) == version
