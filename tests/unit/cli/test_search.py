"""What the terminal's search sends and shows."""

import base64
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from PIL import Image

from cli.search import post_search, query_body, show
from cli.terminal_images import ROWS, image_protocol, lines
from stack.errors import StackError
from stack.install.standard_output import printable
from stack.questions import credentials


def test_a_query_becomes_an_api_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b.jpg").write_bytes(b"bytes")
    encoded = base64.b64encode(b"bytes").decode()
    assert query_body("tennis", None, None) == {"text": "tennis"}
    assert query_body("2:tennis", None, None) == {"text": "tennis"}
    assert query_body(None, "x.jpg", None) == {"image_name": "x.jpg"}
    assert query_body(None, None, tmp_path / "a b.jpg") == {"image": encoded}
    assert query_body("./a b.jpg", None, None) == {"image": encoded}
    assert query_body("./indexed/c.jpg", None, None) == {"image_name": "indexed/c.jpg"}
    assert query_body("2:dog + ./a b.jpg - fruit", None, None) == {
        "terms": [
            {"text": "dog", "weight": 2.0},
            {"image": encoded, "weight": 1.0},
            {"text": "fruit", "weight": -1.0},
        ]
    }
    assert query_body("- fruit", None, None) == {"terms": [{"text": "fruit", "weight": -1.0}]}
    # The gateway reports what is wrong with a blank text.
    assert query_body(" ", None, None) == {"text": " "}


@pytest.mark.parametrize("query", ["dog +", '"dog', "/nowhere/a.jpg", "~/nowhere.jpg"])
def test_an_invalid_query_is_reported(query: str) -> None:
    with pytest.raises(StackError):
        query_body(query, None, None)


def test_a_key_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("API_KEY", raising=False)
    monkeypatch.delenv("API_KEYS", raising=False)
    assert credentials() == {}
    monkeypatch.setenv("API_KEYS", "one, two")
    assert credentials() == {"X-API-Key": "one"}
    monkeypatch.setenv("API_KEY", "mine")
    assert credentials() == {"X-API-Key": "mine"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm-kitty", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-ghostty", "TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, "blocks"),
        ({"TERM": "xterm", "KITTY_WINDOW_ID": "1", "TMUX": "x", "COLORTERM": "24bit"}, "blocks"),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "dumb", "COLORTERM": "truecolor"}, None),
        ({}, None),
    ],
)
def test_how_a_terminal_shows_images(environment: dict[str, str], expected: str | None) -> None:
    assert image_protocol(environment, is_terminal=True) == expected
    assert image_protocol(environment, is_terminal=False) is None


def test_images_are_printed_in_every_terminal_protocol() -> None:
    noise = Image.effect_noise((200, 100), 80).convert("RGB")
    buffer = io.BytesIO()
    noise.save(buffer, "JPEG")
    blocks = list(lines(buffer.getvalue(), "blocks"))
    assert 1 <= len(blocks) <= ROWS
    assert all(line.count("▀") == 16 and line.endswith("\x1b[0m") for line in blocks)
    (iterm,) = lines(buffer.getvalue(), "iterm")
    assert iterm.startswith("\x1b]1337;File=inline=1;")
    (kitty,) = lines(buffer.getvalue(), "kitty")
    chunks = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", kitty)
    assert [head.rpartition("m=")[2] for head, _ in chunks] == ["1"] * (len(chunks) - 1) + ["0"]
    png = base64.b64decode("".join(data for _, data in chunks))
    assert Image.open(io.BytesIO(png)).size == (200, 100)
    for size in ((1, 1), (1, 500), (500, 1), (3, 3)):
        small = io.BytesIO()
        Image.new("RGB", size).save(small, "JPEG")
        assert list(lines(small.getvalue(), "blocks"))


def test_names_cannot_control_the_terminal() -> None:
    assert printable("été 京都.jpg") == "été 京都.jpg"
    assert printable("a\x1b[2J\nb\u202e.jpg") == "a\\x1b[2J\\nb\\u202e.jpg"


@contextmanager
def server(status: int, body: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """The address of a server that always answers so, and the bodies that it got."""
    got: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.do_GET()

        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}", got
        listening.shutdown()
        thread.join()


MATCH = {"image_name": "a\x1b.jpg", "score": 0.5, "width": 4, "height": 3}
ANSWER = {"matches": [MATCH], "model_name": "lite", "cut_off_score": None}


def test_a_search_is_posted_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with server(200, json.dumps(ANSWER).encode()) as (url, got):
        show(url, post_search(url, {"text": "caf\u00e9"}), None)
        # A thumbnail that is no picture is left out.
        show(url, ANSWER, True)
    assert json.loads(got[0]) == {"text": "caf\u00e9"}
    text = capsys.readouterr().out
    assert text.startswith("score  picture    size\n0.500  a\\x1b.jpg  4 x 3\nmodel: lite\n")
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (400, b'{"title": "Bad", "detail": "no text"}', "^Bad: no text$"),
        (400, b'{"title": null, "detail": [1]}', "None"),
        (503, b"{}", "status 503"),
        (200, b"<html>", "is not the gateway"),
        (200, b"[]", "is not the gateway"),
        (200, b"{}", "is not the gateway"),
        (200, b'{"matches": null, "model_name": "x"}', "is not the gateway"),
        (200, b'{"matches": [{}], "model_name": "x"}', "is not the gateway"),
        (200, b'{"matches": [[1]], "model_name": "x"}', "is not the gateway"),
        (500, b"\xff", "is not the gateway"),
    ],
)
def test_another_answer_is_one_line(status: int, body: bytes, message: str) -> None:
    with server(status, body) as (url, _), pytest.raises(StackError, match=message):
        post_search(url, {"text": "x"})


def test_no_gateway_is_one_line() -> None:
    with pytest.raises(StackError, match=r"the gateway at http://127\.0\.0\.1:9 cannot be reached"):
        post_search("http://127.0.0.1:9", {"text": "x"})
