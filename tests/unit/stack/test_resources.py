"""The memory, ports, folders and certificates of a machine, as they are checked."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from stack.install import memory, programs, resources
from stack.install.finding import OK, PROBLEM

MIB = 1 << 20


class TestMemory:
    """What control groups leave counts, wherever they are mounted."""

    def groups(self, tmp_path: Path, version: int, path: str, folder: str, limit: object) -> int:
        """The available memory of a machine with 8 GiB and a group with 1 GiB in use, of which a
        quarter can be given back."""
        (tmp_path / "meminfo").write_text(f"MemAvailable: {8 << 20} kB\n")
        lines = {1: f"5:cpu:/x\n4:memory:{path}\n", 2: f"0::{path}\n"}
        (tmp_path / "groups").write_text(lines[version])
        root = tmp_path / "fs" if version == 2 else tmp_path / "fs" / "memory"
        names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")}
        names[2] = ("memory.max", "memory.current", "inactive_file")
        (root / folder).mkdir(parents=True, exist_ok=True)
        limit_name, usage, reclaimable = names[version]
        (root / folder / limit_name).write_text(f"{limit}\n")
        (root / folder / usage).write_text(f"{1024 * MIB}\n")
        (root / folder / "memory.stat").write_text(f"anon 1\n{reclaimable} {256 * MIB}\n")
        found = memory.available(tmp_path / "meminfo", tmp_path / "groups", tmp_path / "fs")
        assert found is not None
        return found // MIB

    @pytest.mark.parametrize("version", [1, 2])
    @pytest.mark.parametrize(
        ("path", "folder"),
        [
            ("/", "."),
            ("/a/b", "a/b"),
            ("/a/b", "a"),  # A limit above the process's own group.
            ("/outside/of/the/container", "."),
        ],
    )
    def test_a_limit(self, tmp_path: Path, version: int, path: str, folder: str) -> None:
        assert self.groups(tmp_path, version, path, folder, 2048 * MIB) == 1280
        assert self.groups(tmp_path, version, path, folder, 512 * MIB) == 0

    @pytest.mark.parametrize(("version", "limit"), [(2, "max"), (1, 9223372036854771712)])
    def test_no_limit(self, tmp_path: Path, version: int, limit: object) -> None:
        assert self.groups(tmp_path, version, "/a", "a", limit) == 8192

    def test_a_limit_of_this_machine_s_memory(self, tmp_path: Path) -> None:
        (tmp_path / "groups").write_text("0::/\n")

        def available() -> int:
            found = memory.available(groups=tmp_path / "groups", root=tmp_path)
            assert found is not None
            return found

        assert available() > 0
        (tmp_path / "memory.max").write_text("5000\n")
        (tmp_path / "memory.current").write_text("4000\n")
        (tmp_path / "memory.stat").write_text("anon 100\ninactive_file 1500\n")
        assert available() == 2500
        (tmp_path / "memory.max").write_text("max\n")
        assert available() > 5000

    def test_too_little_is_a_problem_of_the_container(self, tmp_path: Path) -> None:
        self.groups(tmp_path, 2, "/", ".", 1536 * MIB)
        files = (tmp_path / "meminfo", tmp_path / "groups", tmp_path / "fs")
        found = resources.check_memory(*files)
        assert found.state == PROBLEM
        assert "container" in found.remedies[""]


class TestPorts:
    @pytest.mark.parametrize("value", ["²", "x", "0", "65536", "-1", "1.5"])
    def test_what_is_none(self, value: str) -> None:
        found = resources.check_ports({"GATEWAY_PORT": value})
        assert found.state == PROBLEM
        assert f"GATEWAY_PORT is {value!r}, which is no port" in found.text

    def test_one_for_two(self) -> None:
        found = resources.check_ports({"KAFKA_PORT": "23456", "TRITON_PORT": "23456"})
        assert "KAFKA_PORT and TRITON_PORT are the same, 23456" in found.text
        elsewhere = {"KAFKA_BOOTSTRAP_SERVERS": "kafka:9092", "KAFKA_PORT": "23456"}
        found = resources.check_ports({**elsewhere, "TRITON_PORT": "23456"})
        assert "same" not in found.text

    @pytest.mark.parametrize(
        ("number", "text"),
        [
            (errno.EADDRINUSE, "in use: 3000 (GATEWAY_PORT)"),
            (errno.EACCES, "not permitted to this user: 3000 (GATEWAY_PORT)"),
        ],
    )
    def test_why_not(self, monkeypatch: pytest.MonkeyPatch, number: int, text: str) -> None:
        def bind(_: socket.socket, address: tuple[str, int]) -> None:
            if address[1] == 3000:
                raise OSError(number, "")

        monkeypatch.setattr("socket.socket.bind", bind)
        found = resources.check_ports({})
        assert (found.state, found.text) == (PROBLEM, text)


class TestFolders:
    def test_what_can_be_written_to(self, tmp_path: Path) -> None:
        (found,) = resources.check_writable({tmp_path / "not" / "there": ["*"], tmp_path: ["*"]})
        assert found.state == OK

    @pytest.mark.parametrize("below", ["file", "file/x", "file/x/y"])
    def test_a_file_is_no_folder(self, tmp_path: Path, below: str) -> None:
        (tmp_path / "file").touch()
        (found,) = resources.check_writable({tmp_path / below: []})
        assert found.text == f"{tmp_path}/file is a file, not a folder"

    def test_each_is_named_with_what_to_do(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "a b").mkdir()
        (tmp_path / "a b" / ".uv.lock").touch()
        (tmp_path / "a b" / "others").touch()
        monkeypatch.setattr("os.access", lambda path, mode: mode == os.F_OK or path.is_dir())
        (found,) = resources.check_writable({tmp_path / "a b": [".*.lock", "uv"]})
        assert found.state == PROBLEM
        wanted = f"sudo chown -R \"$(id -un)\" '{tmp_path}/a b/.uv.lock'"
        assert found.remedies[""] == wanted


class TestCertificates:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "0a1b2c3d.0").write_text("-----BEGIN CERTIFICATE-----\n")
        return tmp_path

    @pytest.mark.parametrize("name", programs.CERTIFICATES)
    def test_a_folder_where_its_reader_takes_one(self, folder: Path, name: str) -> None:
        found = programs.check_certificates({name: str(folder)})
        assert (found.state == OK) == (name in programs.CERTIFICATE_FOLDERS)
        assert found.state == OK or "SSL_CERT_DIR names a folder" in found.text

    def test_a_folder_is_passed_on_as_one(self, folder: Path) -> None:
        named = {"REQUESTS_CA_BUNDLE": str(folder)}
        assert programs.certificates(named) == {**named, "SSL_CERT_DIR": str(folder)}
        both = programs.certificates({**named, "CURL_CA_BUNDLE": "/ca.pem"})
        assert both["SSL_CERT_FILE"] == both["PIP_CERT"] == "/ca.pem"
        assert both["REQUESTS_CA_BUNDLE"] == both["SSL_CERT_DIR"] == str(folder)
        kept = programs.certificates({**named, "SSL_CERT_DIR": "/mine"})
        assert kept.get("SSL_CERT_DIR", "/mine") == "/mine"


@pytest.mark.parametrize("error", [ValueError("unrecognized configuration name"), OSError(22, "")])
def test_a_c_library_without_a_version(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(_: str) -> str:
        raise error

    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("os.confstr", fail)
    found = programs.check_machine()
    assert found.state == PROBLEM
    assert "glibc" in found.text
