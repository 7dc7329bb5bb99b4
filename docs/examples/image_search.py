"""A small client to copy into your program. It needs httpx."""

import json
from pathlib import Path
from typing import Any

import httpx


class ImageSearch:
    """One gateway. Errors are `httpx.HTTPStatusError`; their response is a problem document."""

    def __init__(self, url: str = "http://127.0.0.1:3000", key: str = "", **options: Any) -> None:
        headers = {"X-API-Key": key} if key else {}
        self.http = httpx.Client(base_url=url, headers=headers, timeout=90, **options)

    def search(self, text: str | None = None, **body: Any) -> dict[str, Any]:
        """For instance `search("tennis", limit=3, filters={"folder": "holiday"})`."""
        request = body if text is None else {"text": text, **body}
        return self._answer(self.http.post("/api/v1/search-image", json=request))

    def search_by_file(self, file: str | Path, **body: Any) -> dict[str, Any]:
        """More like this file, with the options of `search`."""
        form = {k: v if isinstance(v, str) else json.dumps(v) for k, v in body.items()}
        files = {"image": Path(file).read_bytes()}
        return self._answer(self.http.post("/api/v1/search-image", files=files, data=form))

    def pages(self, text: str | None = None, **body: Any) -> Any:
        """All matches, fetched page by page."""
        answer = self.search(text, paged=True, **body)
        yield from answer["matches"]
        while answer["next_cursor"]:
            answer = self.search(text, cursor=answer["next_cursor"], **body)
            yield from answer["matches"]

    def add(self, file: str | Path, folder: str = "uploads") -> dict[str, Any]:
        """Upload a picture; `search(..., wait_for=wait_for(answer))` waits until it is found."""
        path = Path(file)
        files = {"image": (path.name, path.read_bytes())}
        return self._answer(self.http.post("/api/v1/images", files=files, data={"folder": folder}))

    def rate(self, answer: dict[str, Any], rating: int, image_name: str | None = None) -> Any:
        """Rate an answer from 1 to 10; with `image_name`, rate that picture of it."""
        body = {"jwt": answer["jwt"], "user_feedback": rating, "image_name": image_name}
        return self._answer(self.http.post("/api/v1/create-feedback", json=body))

    def duplicates(self, kind: str = "exact") -> Any:
        """Groups of duplicate pictures, `exact` or `near`."""
        query: dict[str, str] = {"kind": kind}
        while True:
            answer = self._answer(self.http.get("/api/v1/duplicates", params=query))
            yield from answer["groups"]
            if not answer["next_cursor"]:
                return
            query["cursor"] = answer["next_cursor"]

    def _answer(self, response: httpx.Response) -> Any:
        return response.raise_for_status().json()


def wait_for(added: dict[str, Any], timeout_s: float = 30.0) -> dict[str, Any]:
    """The `wait_for` of a search that is to find the picture just added."""
    return {"image_name": added["image_name"], "sha256": added["sha256"], "timeout_s": timeout_s}
