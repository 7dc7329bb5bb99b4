"""Duplicates, uploads, thumbnails and searches that wait, on in-memory fakes."""

import asyncio
import errno
import hashlib
import io
import json
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from adapters.embedder.spec import ModelSpec
from adapters.index.port import Collection, ImageRecord
from gateway.errors import InvalidField
from gateway.images import thumbnails
from gateway.images.files import ImageFiles, ServedImages
from gateway.images.uploads import safe_folder, safe_name
from gateway.search import duplicates
from gateway.search.image_lookup import ImageLookup
from gateway.settings import GatewaySettings
from imaging.decoders import Decoders
from imaging.sandbox.pool import Sandbox
from tests.support.gateway_on_fakes import Gateway, assert_problem, gateway, image_record, png, unit

DUPLICATES, UPLOAD = "/api/v1/duplicates", "/api/v1/images"


@pytest.fixture
async def bench(tmp_path: Path, small_spec: ModelSpec) -> AsyncIterator[Gateway]:
    records = [image_record("a.jpg", unit(1)), image_record("b.jpg", unit(0, 1), sha256="b" * 64)]
    settings = {"max_upload_bytes": 100_000, "thumbnails_dir": tmp_path / "thumbnails"}
    async with gateway(tmp_path, small_spec, records, **settings) as bench:
        yield bench


async def groups(bench: Gateway, **query: Any) -> tuple[list[list[str]], int]:
    """All groups, and how many requests it took."""
    found: list[list[str]] = []
    requests = 0
    while True:
        response = await bench.client.get(DUPLICATES, params=query)
        assert response.status_code == 200, response.text
        requests += 1
        for group in response.json()["groups"]:
            found.append([member["image_name"] for member in group])
        cursor = response.json()["next_cursor"]
        if cursor is None:
            return found, requests
        query["cursor"] = cursor


class TestDuplicates:
    @pytest.mark.slow
    @pytest.mark.parametrize("limit", [1, 3, 100])
    async def test_equal_content_is_grouped_once(
        self, tmp_path: Path, small_spec: ModelSpec, limit: int
    ) -> None:
        chance = random.Random(3)
        expected: dict[str, set[str]] = {}
        records: list[ImageRecord] = []
        for n in range(300):
            sha256 = f"{chance.randrange(200):064x}"
            expected.setdefault(sha256, set()).add(f"{n}.jpg")
            records.append(image_record(f"{n}.jpg", unit(1, n), sha256=sha256))
        async with gateway(tmp_path, small_spec, records) as bench:
            found, requests = await groups(bench, kind="exact", limit=limit)
        assert sorted(map(sorted, found)) == sorted(
            sorted(names) for names in expected.values() if len(names) > 1
        )
        assert requests >= len(found) / limit

    @pytest.mark.slow
    async def test_no_near_pair_is_lost(
        self, tmp_path: Path, small_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(duplicates, "NEAR_STEP", 16)
        chance = np.random.default_rng(5)
        vectors = chance.normal(size=(200, 3)) * [1, 1, 0.2]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        records = [
            image_record(f"{n}.jpg", unit(*v), sha256=f"{n:064x}") for n, v in enumerate(vectors)
        ]
        least = 0.99
        alike = vectors @ vectors.T >= least
        pairs = {frozenset((a, b)) for a in range(200) for b in range(a) if alike[a, b]}
        assert 100 < len(pairs) < 2000
        async with gateway(tmp_path, small_spec, records) as bench:
            found, requests = await groups(bench, kind="near", min_score=least, limit=7)
        assert requests > 3
        numbered = [[int(name.split(".")[0]) for name in group] for group in found]
        reported = {frozenset((a, b)) for group in numbered for a in group for b in group if a != b}
        assert pairs <= reported
        for first, *others in numbered:
            assert all(alike[first, other] for other in others)
        assert len({tuple(sorted(group)) for group in numbered}) == len(numbered)

    async def test_a_cluster_of_near_duplicates_is_one_group(
        self, tmp_path: Path, small_spec: ModelSpec
    ) -> None:
        records = [
            image_record(
                f"{n}-{copy}.jpg", unit(*np.eye(7)[n], copy / 1000), sha256=f"{n}{copy:063x}"
            )
            for n in range(5)
            for copy in range(4)
        ]
        async with gateway(tmp_path, small_spec, records) as bench:
            found, _ = await groups(bench, kind="near")
            assert sorted(sorted(group) for group in found) == [
                [f"{n}-{copy}.jpg" for copy in range(4)] for n in range(5)
            ]
            assert (await groups(bench, kind="exact"))[0] == []

    @pytest.mark.slow
    async def test_the_work_of_a_request_is_bounded(
        self, tmp_path: Path, small_spec: ModelSpec
    ) -> None:
        records = [
            image_record(f"{n}.jpg", unit(np.cos(n / 100), np.sin(n / 100)), sha256=f"{n:064x}")
            for n in range(600)
        ]
        async with gateway(tmp_path, small_spec, records) as bench:
            query: dict[str, Any] = {"kind": "near", "min_score": 1.0}
            answer = (await bench.client.get(DUPLICATES, params=query)).json()
            assert answer["examined"] == duplicates.NEAR_STEP * duplicates.NEAR_STEPS
            assert (answer["groups"], bool(answer["next_cursor"])) == ([], True)

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ({"kind": "similar"}, "kind"),
            ({"limit": 0}, "limit"),
            ({"limit": 101}, "limit"),
            ({"min_score": 0}, "min_score"),
            ({"min_score": "nan"}, "min_score"),
            ({"cursor": "x"}, "cursor"),
        ],
    )
    async def test_an_invalid_parameter_is_named(
        self, bench: Gateway, query: dict[str, Any], field: str
    ) -> None:
        assert_problem(await bench.client.get(DUPLICATES, params=query), 422, field)


async def no_letters() -> tuple[str, ...]:
    return ()


class TestThumbnails:
    async def put(self, bench: Gateway, name: str, size: tuple[int, int] = (900, 300)) -> None:
        target = bench.images / name
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, "teal").save(target)
        await bench.holds(name)

    @pytest.mark.slow
    async def test_a_thumbnail_is_small_upright_and_cached(
        self, bench: Gateway, tmp_path: Path
    ) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # Lying on its side.
        Image.new("RGB", (900, 300), "teal").save(bench.images / "à b.jpg", exif=exif)
        await bench.holds("à b.jpg")
        for size, expected in ((128, (43, 128)), (512, (171, 512)), (1024, (300, 900))):
            response = await bench.client.get(f"/thumbnails/à b.jpg?size={size}")
            assert response.status_code == 200
            assert response.headers["content-type"] == "image/jpeg"
            assert response.headers["x-content-type-options"] == "nosniff"
            assert Image.open(io.BytesIO(response.content)).size == expected
        assert len(list((tmp_path / "thumbnails").rglob("*.jpg"))) == 3
        tag = response.headers["etag"]
        again = await bench.client.get(
            "/thumbnails/à b.jpg?size=1024", headers={"If-None-Match": tag}
        )
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)

    async def test_a_changed_image_has_another_thumbnail(self, bench: Gateway) -> None:
        await self.put(bench, "x.png")
        tag = (await bench.client.get("/thumbnails/x.png")).headers["etag"]
        Image.new("RGB", (50, 50), "red").save(bench.images / "x.png")
        changed = await bench.client.get("/thumbnails/x.png", headers={"If-None-Match": tag})
        assert changed.status_code == 200
        assert Image.open(io.BytesIO(changed.content)).size == (50, 50)

    async def test_concurrent_requests_make_a_thumbnail_once(
        self, bench: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await self.put(bench, "x.png")
        made = []

        thumbnail = Decoders.thumbnail

        async def counted(decoders: Decoders, source: Path | bytes, **options: int) -> bytes:
            made.append(source)
            return await thumbnail(decoders, source, **options)

        monkeypatch.setattr(Decoders, "thumbnail", counted)
        answers = await asyncio.gather(*(bench.client.get("/thumbnails/x.png") for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}
        assert len(made) == 1

    @pytest.mark.slow
    async def test_the_thumbnail_folder_is_bounded(
        self, bench: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "kept"

        async def active() -> Collection:
            return bench.collection

        served = ServedImages(ImageLookup(bench.index, active), no_letters)
        images = ImageFiles(GatewaySettings(images_dir=bench.images), served, max_bytes=10**7)
        sandbox = Sandbox(1, memory_bytes=10**7, seconds=60)
        decoders = Decoders(sandbox, max_pixels=10**7)
        small = thumbnails.Thumbnails(
            images, folder, decoders, max_bytes=20_000, max_image_bytes=10**7, readers=1
        )
        for n in range(40):
            noise = np.random.default_rng(n).integers(0, 255, (64, 64, 3), np.uint8)
            Image.fromarray(noise).save(bench.images / f"{n}.png")
            await bench.holds(f"{n}.png")
            assert (await small.file(await small.find(f"{n}.png", 128))).is_file()
        kept = sum(path.stat().st_size for path in folder.rglob("*.jpg"))
        assert 0 < kept < 30_000
        decoders.close()

    @pytest.mark.slow
    @pytest.mark.parametrize("size", ["0", "100", "100000", "-1", "x", "128.5"])
    async def test_other_sizes_are_refused(self, bench: Gateway, size: str) -> None:
        await self.put(bench, "x.png")
        assert_problem(await bench.client.get(f"/thumbnails/x.png?size={size}"), 422, "size")

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "path", ["../secret.png", "%2e%2e/secret.png", "..%2fsecret.png", "drawing.svg", "no.jpg"]
    )
    async def test_nothing_else_is_served(self, bench: Gateway, path: str) -> None:
        Image.new("RGB", (4, 4)).save(bench.images.parent / "secret.png")
        (bench.images / "drawing.svg").write_text("<svg><script>alert(1)</script></svg>")
        await bench.holds("../secret.png", "drawing.svg", "no.jpg")
        assert_problem(await bench.client.get(f"/thumbnails/{path}"), 404)

    async def test_a_damaged_image_is_reported(self, bench: Gateway) -> None:
        (bench.images / "half.png").write_bytes(png(size=(500, 500))[:40])
        await bench.holds("half.png")
        assert_problem(await bench.client.get("/thumbnails/half.png"), 422)


class TestForms:
    async def test_an_image_can_be_sent_as_a_form(self, bench: Gateway) -> None:
        form = {
            "limit": "1",
            "include": ["width", "height"],
            "filters": json.dumps({"has_gps": False}),
            "cut_off": "none",
            "paged": "true",
        }
        response = await bench.client.post(
            "/api/v1/search-image", files={"image": ("x.png", png())}, data=form
        )
        assert response.status_code == 200, response.text
        answer = response.json()
        assert answer["text"] == "(picture)"
        assert [list(match) for match in answer["matches"]] == [
            ["image_name", "score", "width", "height"]
        ]
        assert answer["next_cursor"]

    @pytest.mark.parametrize(
        ("files", "data", "field"),
        [
            ({"limit": (None, b"3")}, {}, "image"),
            ({"picture": ("x.png", b"x")}, {}, "picture"),
            ({"image": ("x.png", b"not a picture")}, {}, "image"),
            ({"image": ("x.png", b"")}, {}, "image"),
            ({"image": ("x.png", png())}, {"limit": "0"}, "limit"),
            ({"image": ("x.png", png())}, {"limit": '"3"'}, "limit"),
            ({"image": ("x.png", png())}, {"text": "a dog"}, "text"),
            ({"image": ("x.png", png())}, {"colour": "1"}, "colour"),
            ({"image": ("x.png", png())}, {"limit": ["1", "2"]}, "limit"),
        ],
    )
    async def test_an_invalid_form_field_is_named(
        self, bench: Gateway, files: Any, data: Any, field: str
    ) -> None:
        response = await bench.client.post("/api/v1/search-image", files=files, data=data)
        assert_problem(response, 422, field)

    async def test_broken_forms_are_refused(self, bench: Gateway) -> None:
        two = [("image", ("x.png", png())), ("image", ("y.png", png()))]
        assert_problem(await bench.client.post("/api/v1/search-image", files=two), 400)
        wrong = {"Content-Type": "multipart/form-data; boundary=x"}
        response = await bench.client.post("/api/v1/search-image", content=b"--y", headers=wrong)
        assert response.status_code in (400, 422)
        headers = {"Content-Type": "multipart/form-data"}
        response = await bench.client.post("/api/v1/search-image", content=b"x", headers=headers)
        assert_problem(response, 400)
        data = {"filters": "{nope"}
        files = {"image": ("x.png", png())}
        response = await bench.client.post("/api/v1/search-image", files=files, data=data)
        assert_problem(response, 422, "filters")

    async def test_other_media_types_are_refused(self, bench: Gateway) -> None:
        headers = {"Content-Type": "text/plain"}
        response = await bench.client.post("/api/v1/search-image", content=b"{}", headers=headers)
        assert_problem(response, 415)

    async def test_json_that_is_nested_too_deep_is_refused(self, bench: Gateway) -> None:
        headers = {"Content-Type": "application/json"}
        body = b"[" * 100_000
        response = await bench.client.post("/api/v1/search-image", content=body, headers=headers)
        assert_problem(response, 400)


async def send(bench: Gateway, data: bytes, name: str = "x.png", **form: str) -> httpx.Response:
    return await bench.client.post(UPLOAD, files={"image": (name, data)}, data=form)


class TestUploads:
    @pytest.mark.slow
    async def test_an_upload_is_written_to_the_folder(self, bench: Gateway) -> None:
        response = await send(bench, png())
        assert response.status_code == 201
        assert response.json() == {
            "status": "stored",
            "image_name": "uploads/x.png",
            "sha256": hashlib.sha256(png()).hexdigest(),
            "size_bytes": len(png()),
            "media_type": "image/png",
        }
        assert (bench.images / "uploads/x.png").read_bytes() == png()
        assert [path.name for path in (bench.images / "uploads").iterdir()] == ["x.png"]
        assert (bench.images / "uploads/x.png").stat().st_mode & 0o777 == 0o644

    async def test_nothing_is_overwritten_unless_requested(self, bench: Gateway) -> None:
        await send(bench, png("red"))
        again = await send(bench, png("red"))
        assert (again.status_code, again.json()["status"]) == (200, "unchanged")
        assert_problem(await send(bench, png("blue")), 409, "name")
        assert (bench.images / "uploads/x.png").read_bytes() == png("red")
        assert (await send(bench, png("blue"), overwrite="true")).status_code == 201
        assert (bench.images / "uploads/x.png").read_bytes() == png("blue")
        other = await send(bench, png("red"), name="y.png", folder="a/b")
        assert other.json()["image_name"] == "a/b/y.png"

    async def test_one_of_many_simultaneous_uploads_gets_the_name(self, bench: Gateway) -> None:
        colours = ["red", "blue", "green", "black", "white", "gold"]
        answers = await asyncio.gather(*(send(bench, png(colour)) for colour in colours))
        assert sorted(answer.status_code for answer in answers) == [201] + [409] * 5

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"I am no picture.",
            b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
            b"<html></html>",
            png(size=(600, 600))[:40],
            b"\xff\xd8\xff\xe0" + b"\0" * 100,
        ],
    )
    async def test_an_upload_that_is_not_an_image_is_refused(
        self, bench: Gateway, data: bytes
    ) -> None:
        assert_problem(await send(bench, data), 422, "image")
        assert [path for path in bench.images.rglob("*") if path.is_file()] == []

    async def test_an_upload_that_is_too_large_or_empty_is_refused(self, bench: Gateway) -> None:
        assert_problem(await send(bench, b"x" * 200_000), 413)
        assert_problem(await bench.client.post(UPLOAD), 422, "image")
        assert_problem(await bench.client.post(UPLOAD, data={"image": "text"}), 422, "image")

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "folder",
        ["..", "a/../..", ".hidden", "a/.b", "~x", "a\0b", "a\\b", "x" * 300, "C:", "a.part"],
    )
    async def test_invalid_folders_are_refused(self, bench: Gateway, folder: str) -> None:
        assert_problem(await send(bench, png(), folder=folder), 422, "folder")

    @pytest.mark.slow
    async def test_uploads_do_not_follow_links_out_of_the_folder(
        self, bench: Gateway, tmp_path: Path
    ) -> None:
        (tmp_path / "outside").mkdir()
        (bench.images / "link").symlink_to(tmp_path / "outside")
        assert_problem(await send(bench, png(), folder="link"), 422, "folder")
        assert list((tmp_path / "outside").iterdir()) == []
        (tmp_path / "victim.png").write_bytes(b"precious")
        (bench.images / "x.png").symlink_to(tmp_path / "victim.png")
        assert_problem(await send(bench, png(), folder="/"), 409)
        assert (await send(bench, png(), folder="/", overwrite="true")).status_code == 201
        assert (tmp_path / "victim.png").read_bytes() == b"precious"

    async def test_an_upload_below_a_file_is_refused(self, bench: Gateway) -> None:
        (bench.images / "file").write_text("x")
        assert_problem(await send(bench, png(), folder="file"), 422, "folder")
        assert_problem(await send(bench, png(), folder="file/below"), 422, "folder")

    @pytest.mark.parametrize(
        ("number", "status"), [(errno.ENOSPC, 507), (errno.EROFS, 403), (errno.EACCES, 403)]
    )
    async def test_an_upload_that_cannot_be_written_is_refused(
        self, bench: Gateway, monkeypatch: pytest.MonkeyPatch, number: int, status: int
    ) -> None:
        def refuse(*_: Any) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("gateway.images.uploads.os.fsync", refuse)
        assert_problem(await send(bench, png()), status)
        assert [path for path in bench.images.rglob("*") if path.is_file()] == []

    async def test_uploads_work_without_hard_links(
        self, bench: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: Any) -> None:
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr("gateway.images.uploads.os.link", refuse)
        assert (await send(bench, png("red"))).status_code == 201
        assert_problem(await send(bench, png("blue")), 409)
        assert (bench.images / "uploads/x.png").read_bytes() == png("red")

    async def test_uploads_can_be_switched_off(self, tmp_path: Path, small_spec: ModelSpec) -> None:
        async with gateway(tmp_path, small_spec, uploads=False) as bench:
            assert_problem(await send(bench, png()), 403)

    @pytest.mark.parametrize(
        ("name", "safe"),
        [
            ("cat.png", "cat.png"),
            ("cat.PNG", "cat.PNG"),
            ("cat.jpg", "cat.jpg.png"),
            ("../../etc/passwd", "passwd.png"),
            ("C:\\photos\\cat.png", "cat.png"),
            (".hidden.png", "hidden.png"),
            ("#draft.png", "draft.png"),
            ("~$lock.png", "lock.png"),
            ("a\0b\nc\u202e.png", "abc.png"),
            ("a:b?.png", "a_b_.png"),
            ("", "picture.png"),
            ("...", "picture.png"),
            ("e\u0301te\u0301 🎾.png", "été 🎾.png"),
            ("x" * 500 + ".png", "x" * 200 + ".png"),
            ("é" * 300, "é" * 100 + ".png"),
            ("a.part.png", "a.part.png"),
            ("page.html", "page.html.png"),
        ],
    )
    def test_names_are_made_safe(self, name: str, safe: str) -> None:
        assert safe_name(name, "image/png") == safe

    def test_folders_are_split(self) -> None:
        assert safe_folder("/a//b/") == ["a", "b"]
        assert safe_folder("") == []
        with pytest.raises(InvalidField, match="deeper"):
            safe_folder("/".join("a" * 21))


class TestWaiting:
    @pytest.mark.slow
    async def test_a_waiting_search_answers_once_the_image_is_indexed(self, bench: Gateway) -> None:
        wanted = {"image_name": "new.jpg", "sha256": "c" * 64}
        requested = asyncio.create_task(
            bench.search(text="x", limit=100, wait_for={**wanted, "timeout_s": 60})
        )
        await asyncio.sleep(0.2)
        await bench.index.upsert(
            bench.collection, [image_record("new.jpg", unit(1), sha256="d" * 64)]
        )
        await asyncio.sleep(0.4)
        assert not requested.done()
        await bench.index.upsert(
            bench.collection, [image_record("new.jpg", unit(1), sha256="c" * 64)]
        )
        response = await requested
        assert response.status_code == 200
        assert "new.jpg" in [match["image_name"] for match in response.json()["matches"]]

    @pytest.mark.slow
    async def test_a_waiting_search_reports_its_timeout(self, bench: Gateway) -> None:
        wanted = {"image_name": "never.jpg", "timeout_s": 0.2}
        response = await bench.search(text="x", wait_for=wanted)
        assert_problem(response, 409, "wait_for")
        assert response.json()["waiting_for"] == {"image_name": "never.jpg", "sha256": None}
        assert response.headers["retry-after"]

    async def test_without_a_hash_any_content_ends_the_wait(self, bench: Gateway) -> None:
        response = await bench.search(text="x", wait_for={"image_name": "a.jpg"})
        assert response.status_code == 200

    @pytest.mark.slow
    async def test_waiting_is_not_cut_short_by_the_deadline(
        self, tmp_path: Path, small_spec: ModelSpec
    ) -> None:
        async with gateway(tmp_path, small_spec, request_timeout=0.3) as bench:
            wanted = {"image_name": "never.jpg", "timeout_s": 0.6}
            assert_problem(await bench.search(text="x", wait_for=wanted), 409)

    @pytest.mark.parametrize(
        ("wanted", "field"),
        [
            ({}, "wait_for.image_name"),
            ({"image_name": "a.jpg", "sha256": "A" * 64}, "wait_for.sha256"),
            ({"image_name": "a.jpg", "timeout_s": 0}, "wait_for.timeout_s"),
            ({"image_name": "a.jpg", "timeout_s": 61}, "wait_for.timeout_s"),
        ],
    )
    async def test_an_invalid_wait_is_refused(
        self, bench: Gateway, wanted: dict[str, Any], field: str
    ) -> None:
        assert_problem(await bench.search(text="x", wait_for=wanted), 422, field)
