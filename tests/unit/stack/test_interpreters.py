"""Which Python is used, which one is fetched, and how each package manager installs one."""

from __future__ import annotations

import http.server
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.install import packages, programs, pythons
from stack.install.finding import OK, PROBLEM, WARNING
from stack.install.pythons import Python

LIBRARY = "/usr/lib/libpython.so"


def python(version: tuple[int, int], *, library: str | None = LIBRARY, venv: bool = True) -> Python:
    return Python(f"/usr/bin/python{version[0]}.{version[1]}", version, library, venv)


def program(path: Path, version: str, library: Path | None = None) -> Path:
    """A program that describes itself as a Python of its own path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = "null" if library is None else f'"{library}"'
    answer = f'["{path}", [{version.replace(".", ", ")}], {found}, true]'
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return path


class TestFinding:
    def test_what_uv_has_fetched_is_found_in_the_cache(self, tmp_path: Path) -> None:
        folder = tmp_path / "cache" / "python" / "cpython-3.12.11-linux-x86_64-gnu"
        fetched = program(folder / "bin" / "python3.12", "3.12", tmp_path / "lib")
        on_path = program(tmp_path / "bin" / "python3.12", "3.12", tmp_path / "lib")
        # Newer versions of uv add a link for the minor version.
        folder.with_name("cpython-3.12-linux-x86_64-gnu").symlink_to(folder)
        variables = {"PATH": str(on_path.parent)}
        found = pythons.find_pythons(variables, tmp_path / "cache")
        assert [each.path for each in found if each.fetched] == [str(fetched)]
        assert found[0].path == str(on_path)
        # Otherwise, the PATH of each start would decide about an environment of half a gigabyte.
        chosen = pythons.for_triton(found)
        assert chosen is not None
        assert chosen.path == str(fetched)
        assert not any(each.fetched for each in pythons.find_pythons(variables))

    def test_one_of_no_use_does_not_hide_the_next_on_the_path(self, tmp_path: Path) -> None:
        bare = program(tmp_path / "shims" / "python3.12", "3.12")
        whole = program(tmp_path / "usr" / "python3.12", "3.12", tmp_path / "lib")
        (tmp_path / "bin").symlink_to(tmp_path / "usr")
        folders = [bare.parent, tmp_path / "bin", whole.parent]
        found = pythons.find_pythons({"PATH": os.pathsep.join(map(str, folders))})
        assert [each.path for each in found[:2]] == [str(bare), str(whole)]
        chosen = pythons.for_triton(found)
        assert chosen is not None
        assert chosen.path == str(whole)

    def test_older_ones_can_install_uv(self, tmp_path: Path) -> None:
        old = program(tmp_path / "python3", "3.9")
        variables = {"PATH": str(tmp_path)}
        assert str(old) in [each.path for each in pythons.find_all(variables)]
        assert str(old) not in [each.path for each in pythons.find_pythons(variables)]
        program(tmp_path / "python3", "3.8")
        assert str(old) not in [each.path for each in pythons.find_all(variables)]

    def test_an_environment_on_the_path_is_its_interpreter(self, tmp_path: Path) -> None:
        home = tmp_path / "environment"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
        found = pythons.describe_python(str(home / "bin" / "python"))
        assert found is not None
        assert not found.path.startswith(str(home))

    def test_one_that_does_not_answer_is_given_up(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pythons, "DESCRIBE_SECONDS", 0.2)
        hanging = tmp_path / "python3.13"
        hanging.write_text("#!/bin/sh\nexec sleep 60\n")
        hanging.chmod(0o755)
        assert pythons.describe_python(str(hanging)) is None


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The certificate of 127.0.0.1, signed by itself, and its key."""
    folder = tmp_path_factory.mktemp("authority")
    certificate, key = folder / "ca.pem", folder / "key.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [*words, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
    )
    return certificate, key


@pytest.fixture
def https(authority: tuple[Path, Path]) -> Iterator[str]:
    """The address of a server that answers 404 to everything."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class TestDownloads:
    @pytest.fixture(autouse=True)
    def _no_proxy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(pythons, "PROBE_SECONDS", 5.0)

    def test_a_refusal_is_an_answer(self, https: str, authority: tuple[Path, Path]) -> None:
        variables = {"UV_PYTHON_INSTALL_MIRROR": https, "SSL_CERT_FILE": str(authority[0])}
        assert pythons.can_download(variables) is True

    def test_any_variable_of_certificates_is_respected(
        self, https: str, authority: tuple[Path, Path]
    ) -> None:
        named = {"REQUESTS_CA_BUNDLE": str(authority[0]), "UV_PYTHON_INSTALL_MIRROR": https}
        assert pythons.can_download({**named, **programs.certificates(named)}) is True

    def test_certificates_that_only_uv_may_know_decide_nothing(self, https: str) -> None:
        assert pythons.can_download({"UV_PYTHON_INSTALL_MIRROR": https}) is None

    def test_a_slow_answer_decides_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pythons, "PROBE_SECONDS", 0.2)
        with socket.create_server(("127.0.0.1", 0)) as server:
            mirror = f"http://127.0.0.1:{server.getsockname()[1]}"
            assert pythons.can_download({"UV_PYTHON_INSTALL_MIRROR": mirror}) is None

    @pytest.mark.parametrize("name", ["UV_OFFLINE=1", "UV_PYTHON_DOWNLOADS=never"])
    def test_uv_may_be_told_not_to(self, name: str) -> None:
        assert pythons.can_download(dict([name.split("=")])) is False

    def test_a_folder_may_be_the_mirror(self, tmp_path: Path) -> None:
        mirror = {"UV_PYTHON_INSTALL_MIRROR": tmp_path.as_uri()}
        assert pythons.can_download(mirror) is True
        mirror = {"UV_PYTHON_INSTALL_MIRROR": (tmp_path / "missing").as_uri()}
        assert pythons.can_download(mirror) is False


class TestAdvice:
    @pytest.fixture(autouse=True)
    def _has_apt(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(packages.apt_pythons, "__defaults__", (lambda name: name,))

    def release(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setattr(packages, "release", lambda: name)

    @pytest.mark.parametrize(
        ("name", "package"), [("bookworm", "3.11"), ("jammy", "3.11"), ("noble", "3.12")]
    )
    def test_each_release_has_its_own_python(
        self, monkeypatch: pytest.MonkeyPatch, name: str, package: str
    ) -> None:
        self.release(monkeypatch, name)
        for found in (
            programs.check_python([], uv=True),
            programs.check_triton_python([], downloads=lambda: False),
        ):
            wanted = f"sudo apt install python{package} python{package}-venv libpython{package}"
            assert found.state == PROBLEM
            assert found.remedies["apt"].endswith(wanted)

    def test_a_release_may_have_none_for_triton(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.release(monkeypatch, "trixie")
        found = programs.check_triton_python([python((3, 13))], downloads=lambda: False)
        assert "no such package" in found.remedies["apt"]
        assert "UV_PYTHON_INSTALL_MIRROR" in found.remedies[""]

    def test_no_advice_needs_the_downloads_that_cannot_be_reached(self) -> None:
        for there in ([], [python((3, 12), library=None)]):
            found = programs.check_triton_python(there, downloads=lambda: False)
            assert "uv python install" not in str(found.remedies)

    def test_the_library_is_that_of_a_python_that_has_a_package(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.release(monkeypatch, "bookworm")
        both = [python((3, 12), library=None), python((3, 11), library=None)]
        found = programs.check_triton_python(both, downloads=lambda: False)
        assert found.remedies["apt"].endswith("apt install libpython3.11")
        found = programs.check_triton_python(both[:1], downloads=lambda: False)
        assert "python3.11 python3.11-venv libpython3.11" in found.remedies["apt"]

    def test_other_releases_are_looked_up(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.release(monkeypatch, "next")
        apt_cache = tmp_path / "apt-cache"
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setattr(packages, "APT_SECONDS", 10.0)
        for output, expected in (
            ("libpython3.12\\nlibpython3.12-dev", (["3.12"], True)),
            ("libpython3.14", ([], True)),
            ("", ([], False)),  # No lists have been fetched yet.
        ):
            apt_cache.write_text(f"#!/bin/sh\nprintf '{output}'\n")
            apt_cache.chmod(0o755)
            assert packages.apt_pythons(["3.12", "3.11"]) == expected
        assert "apt update" in packages.install_python(["3.12"])["apt"]

    @pytest.mark.slow
    def test_a_slow_look_up_is_given_up(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.release(monkeypatch, "next")
        (tmp_path / "apt-cache").write_text("#!/bin/sh\nexec sleep 60\n")
        (tmp_path / "apt-cache").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        assert packages.apt_pythons(["3.12"]) == ([], False)

    def test_lists_are_fetched_where_there_are_none(self, tmp_path: Path) -> None:
        assert packages.apt("make", tmp_path) == "sudo apt update && sudo apt install make"
        (tmp_path / "x_main_binary-amd64_Packages.lz4").touch()
        assert packages.apt("make", tmp_path) == "sudo apt install make"

    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ('ID=debian\nVERSION_CODENAME=bookworm\nVERSION_ID="12"\n', "bookworm"),
            ("ID=linuxmint\nVERSION_CODENAME=wilma\nUBUNTU_CODENAME=noble\n", "noble"),
            ("ID=arch\n", ""),
            (None, ""),
        ],
    )
    def test_the_release(self, tmp_path: Path, text: str | None, name: str) -> None:
        if text is not None:
            (tmp_path / "os-release").write_text(text)
        assert packages.release(tmp_path / "os-release") == name


class TestOurOwn:
    @pytest.mark.parametrize(("reached", "state"), [(True, OK), (None, WARNING), (False, PROBLEM)])
    def test_uv_fetches_one_where_it_can(self, reached: bool | None, state: str) -> None:
        assert programs.check_python([], uv=True, downloads=lambda: reached).state == state
        assert programs.check_triton_python([], downloads=lambda: reached).state == state

    def test_nothing_is_asked_where_one_is_here_or_uv_is_not(self) -> None:
        def asked() -> bool:
            raise AssertionError

        assert programs.check_python([python((3, 13))], uv=True, downloads=asked).state == OK
        assert programs.check_python([], uv=False, downloads=asked).state == PROBLEM

    def test_an_older_python_needs_venv_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(packages, "apt_pythons", lambda _: ([], True))
        old = [python((3, 14), venv=False)]
        found = programs.check_python([], uv=False, others=old)
        assert found.state == PROBLEM
        assert "apt install python3.14-venv" in found.remedies["apt"]
