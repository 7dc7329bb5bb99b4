"""The checks of a machine before anything is installed, and what they advise."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.settings import BadSettings
from stack.install import finding, packages, preflight, programs, pythons, resources
from stack.install.finding import OK, PROBLEM, WARNING, Finding
from stack.install.pythons import Python
from stack.settings import StackSettings

ROOT = Path(__file__).parents[3]
LIBRARY = "/usr/lib/libpython.so"


def python(version: tuple[int, int], *, library: str | None = LIBRARY, venv: bool = True) -> Python:
    return Python(f"/usr/bin/python{version[0]}.{version[1]}", version, library, venv)


def never() -> bool:
    return False


class TestPythons:
    def test_this_one_is_described(self) -> None:
        found = pythons.describe_python(sys.executable)
        assert found is not None
        assert found.version == sys.version_info[:2]
        assert found.has_venv
        assert found.library is None or Path(found.library).exists()

    @pytest.mark.parametrize("content", ["", "#!/bin/sh\nexit 1\n", "#!/bin/sh\necho nonsense\n"])
    def test_what_does_not_run_is_none(self, tmp_path: Path, content: str) -> None:
        program = tmp_path / "python3"
        program.write_text(content)
        program.chmod(0o755)
        assert pythons.describe_python(str(program)) is None

    @pytest.mark.slow
    def test_the_named_one_comes_first(self, tmp_path: Path) -> None:
        named = tmp_path / "mine"
        named.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        named.chmod(0o755)
        found = pythons.find_pythons({"PATH": os.environ["PATH"], "PYTHON": str(named)})
        assert found[0].version == sys.version_info[:2]

    def test_without_uv_one_that_can_install_it_is_chosen(self) -> None:
        both = [python((3, 13), venv=False), python((3, 11))]
        assert pythons.for_processes(both, uv=False) == both[1]
        assert pythons.for_processes(both, uv=True) == both[0]

    def test_triton_takes_no_version_that_numpy_has_no_wheel_for(self) -> None:
        assert pythons.for_triton([python((3, 13))]) is None
        assert pythons.for_triton([python((3, 12), library=None)]) is None
        assert pythons.for_triton([python((3, 13)), python((3, 11))]) == python((3, 11))

    def test_what_answers_can_be_downloaded_from(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        assert not pythons.can_download({"UV_PYTHON_INSTALL_MIRROR": f"http://127.0.0.1:{port}"})
        assert not pythons.can_download({"UV_PYTHON_INSTALL_MIRROR": "nonsense"})


class TestPrograms:
    @pytest.mark.parametrize(
        ("kernel", "machine", "libc", "state"),
        [
            ("Linux", "x86_64", "glibc 2.36", OK),
            ("Linux", "x86_64", "glibc 2.35", OK),
            ("Linux", "x86_64", "glibc 2.34", PROBLEM),
            ("Linux", "x86_64", "", PROBLEM),
            ("Linux", "aarch64", "glibc 2.36", PROBLEM),
            ("Darwin", "arm64", "", PROBLEM),
        ],
    )
    def test_the_machine(
        self, monkeypatch: pytest.MonkeyPatch, kernel: str, machine: str, libc: str, state: str
    ) -> None:
        monkeypatch.setattr("platform.system", lambda: kernel)
        monkeypatch.setattr("platform.machine", lambda: machine)
        monkeypatch.setattr("os.confstr", lambda _: libc or None)
        found = programs.check_machine()
        assert found.state == state
        assert ("docker compose up" in str(found.remedies)) == (state == PROBLEM)

    def test_no_python(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(packages, "apt_pythons", lambda _: (["3.11"], True))
        found = programs.check_python([], uv=False)
        assert found.state == PROBLEM
        assert "sudo apt install python3.11 python3.11-venv" in found.remedies["apt"]
        assert {"apt", "dnf", "pacman", "brew"} == found.remedies.keys()

    def test_a_python_without_venv(self) -> None:
        found = programs.check_python([python((3, 12), venv=False)], uv=False)
        assert found.state == PROBLEM
        assert found.remedies["apt"].endswith("sudo apt install python3.12-venv")
        assert programs.check_python([python((3, 12), venv=False)], uv=True).state == OK

    def test_a_python_without_its_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(packages, "apt_pythons", lambda _: (["3.11"], True))
        bare = [python((3, 11), library=None)]
        found = programs.check_triton_python(bare, downloads=never)
        assert found.state == PROBLEM
        assert found.remedies["apt"].endswith("sudo apt install libpython3.11")
        assert {"apt", "dnf", "pacman", "brew"} < found.remedies.keys()

    def test_uv_fetches_what_is_missing_where_it_can(self) -> None:
        for there in ([], [python((3, 13))], [python((3, 11), library=None)]):
            assert programs.check_triton_python(there, downloads=lambda: True).state == OK

    def test_a_release_without_such_a_python_is_told_why(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(packages, "apt_pythons", lambda _: ([], True))
        found = programs.check_triton_python([python((3, 13))], downloads=never)
        assert found.state == PROBLEM
        assert "3.11, 3.12" in found.text
        assert "no such package" in found.remedies["apt"]

    def test_nothing_is_downloaded_to_see_what_is_here(self) -> None:
        def asked() -> bool:
            raise AssertionError

        assert programs.check_triton_python([python((3, 12))], downloads=asked).state == OK

    def test_certificates(self, tmp_path: Path) -> None:
        bundle, other = tmp_path / "ca.pem", tmp_path / "other"
        bundle.write_text("-----BEGIN CERTIFICATE-----\n")
        other.write_text("nothing of the kind")
        assert programs.check_certificates({}).state == OK
        assert programs.check_certificates({"SSL_CERT_FILE": str(bundle)}).state == OK
        for wrong in (other, tmp_path / "missing", tmp_path):
            found = programs.check_certificates({"REQUESTS_CA_BUNDLE": str(wrong)})
            assert found.state == PROBLEM
            assert "REQUESTS_CA_BUNDLE" in found.text

    @pytest.mark.parametrize("name", programs.CERTIFICATES)
    def test_certificates_are_passed_on_to_every_tool(self, name: str) -> None:
        assert programs.certificates({name: "/a"}) == dict.fromkeys(programs.CERTIFICATES, "/a")

    def test_own_certificates_of_a_tool_stay(self) -> None:
        found = programs.certificates({"SSL_CERT_FILE": "/a", "PIP_CERT": "/b"})
        assert (found["SSL_CERT_FILE"], found["PIP_CERT"]) == ("/a", "/b")
        assert programs.certificates({}) == {}


class TestResources:
    def test_a_full_disk(self, tmp_path: Path) -> None:
        (found,) = resources.check_disk({tmp_path / "not" / "there": 1 << 60})
        assert found.state == PROBLEM
        assert "are needed" in found.text

    def test_needs_on_one_disk_add_up(self, tmp_path: Path) -> None:
        free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
        half = int(free * 0.6)
        (found,) = resources.check_disk({tmp_path / "a": half, tmp_path / "b": half})
        assert found.state == PROBLEM

    @pytest.mark.parametrize(
        ("kilobytes", "state"), [(1_000_000, PROBLEM), (8_000_000, OK), (None, WARNING)]
    )
    def test_memory(self, tmp_path: Path, kilobytes: int | None, state: str) -> None:
        meminfo = tmp_path / "meminfo"
        if kilobytes is not None:
            meminfo.write_text(f"MemTotal: 1 kB\nMemAvailable:   {kilobytes} kB\n")
        assert resources.check_memory(meminfo).state == state

    def test_ports_in_use_are_named_with_their_variables(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = str(server.getsockname()[1])
            found = resources.check_ports({"GATEWAY_PORT": port, "TRITON_PORT": "x"})
            assert found.state == PROBLEM
            assert "TRITON_PORT is 'x'" in found.text
            found = resources.check_ports({"TRITON_URL": "http://t:8000", "GATEWAY_PORT": port})
            assert f"{port} (GATEWAY_PORT)" in found.text

    def test_ports_of_servers_elsewhere_are_not_needed(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = str(server.getsockname()[1])
            wanted = {"TRITON_PORT": port, "TRITON_URL": "http://elsewhere:8000"}
            assert f"{port} (" not in resources.check_ports(wanted).text

    @pytest.mark.parametrize(
        ("kind", "state"),
        [("ext4", OK), ("btrfs", OK), ("9p", PROBLEM), ("cifs", PROBLEM), ("tmpfs", WARNING)],
    )
    def test_the_file_system(self, tmp_path: Path, kind: str, state: str) -> None:
        mounts = tmp_path / "mountinfo"
        mounts.write_text(
            "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
            f"2 1 0:5 / {str(tmp_path).replace(' ', chr(92) + '040')} rw shared:1 - {kind} x rw\n"
        )
        found = resources.check_file_system(tmp_path / "state", mounts)
        assert found.state == state
        assert kind in found.text

    def test_white_space_in_a_mount_point(self, tmp_path: Path) -> None:
        folder = tmp_path / "my disk"
        folder.mkdir()
        mounts = tmp_path / "mountinfo"
        mounts.write_text(
            f"1 0 8:1 / / rw - ext4 x rw\n2 1 0:5 / {tmp_path}/my\\040disk rw - exfat x rw\n"
        )
        assert resources.file_system(folder, mounts) == "exfat"


def test_the_ports_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in resources.PORTS:
        monkeypatch.delenv(name, raising=False)
    assert StackSettings().used_ports() == resources.PORTS


def test_the_folders_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STATE_DIR", "CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    settings = StackSettings()
    assert preflight.folders(os.environ) == (settings.state, settings.cache)


class TestFolders:
    """The checks and the commands mean the same folders by the same variables."""

    @pytest.mark.parametrize("value", [None, "", "relative", "./a/../b", "~", "~/x", "/a b/c", " "])
    @pytest.mark.parametrize("name", ["STATE_DIR", "CACHE_DIR", "state_dir"])
    @pytest.mark.parametrize("cache", [None, "", "  ", "/var/cache/me", "~/my-cache", "here"])
    def test_folders_are_those_of_the_settings(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        value: str | None,
        name: str,
        cache: str | None,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "home").mkdir()
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        for variable, text in (
            *((each, None) for each in ("STATE_DIR", "CACHE_DIR", "XDG_CACHE_HOME")),
            ("XDG_CACHE_HOME", cache),
            (name, value),
        ):
            if text is None:
                monkeypatch.delenv(variable, raising=False)
            else:
                monkeypatch.setenv(variable, text)
        settings = StackSettings()
        assert preflight.folders(os.environ) == (settings.state, settings.cache)

    def test_a_link_is_followed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "link").symlink_to(tmp_path / "disk")
        monkeypatch.setenv("STATE_DIR", str(tmp_path / "link" / "state"))
        assert preflight.folders(os.environ)[0] == StackSettings().state == tmp_path / "disk/state"

    def test_an_unknown_home_is_a_bad_setting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STATE_DIR", "~no-such-user/x")
        with pytest.raises(BadSettings, match=r"^STATE_DIR: ~no-such-user is not the home folder"):
            StackSettings()
        assert preflight.folders(os.environ)[0].name == "x"

    def test_an_empty_port_is_the_usual_one(self) -> None:
        empty = dict.fromkeys(resources.PORTS, "")
        assert resources.check_ports(empty) == resources.check_ports({})
        assert "no port" in resources.check_ports({"gateway_port": "x"}).text


class TestText:
    FOUND = (
        Finding("a", OK, "well"),
        Finding("b", PROBLEM, "bad", {"apt": "apt b", "dnf": "dnf b"}),
        Finding("c", WARNING, "so so", {"": "do this"}),
    )

    def test_only_this_machine_s_commands_are_shown(self) -> None:
        shown = "\n".join(finding.lines(self.FOUND, ["apt"], everything=False))
        assert "apt b" in shown
        assert "do this" in shown
        assert "dnf b" not in shown
        assert "well" not in shown

    def test_all_are_shown_where_none_is_known(self) -> None:
        assert finding.managers(lambda _: None) == ["apt", "dnf", "pacman", "brew"]
        only: Callable[[str], str | None] = lambda name: "x" if name == "dnf" else None  # noqa: E731
        assert finding.managers(only) == ["dnf"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "image-search"), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.slow
def test_doctor_needs_no_environment_and_says_all_at_once(tmp_path: Path) -> None:
    broken = {"SSL_CERT_FILE": str(tmp_path / "missing"), "TRITON_PORT": "0"}
    done = run("doctor", "--json", **broken)
    assert done.returncode == 1
    found = {each["subject"]: each["state"] for each in json.loads(done.stdout)}
    assert found["certificates"] == found["ports"] == PROBLEM
    assert found["machine"] == OK
    text = run("doctor", **broken).stdout
    assert "TRITON_PORT" in text
    assert "SSL_CERT_FILE" in text


def test_without_any_python_the_first_line_says_what_to_install(tmp_path: Path) -> None:
    copy = tmp_path / "image-search"
    copy.write_bytes((ROOT / "image-search").read_bytes())
    for program in ("dirname", "cat"):
        (tmp_path / program).symlink_to(str(shutil.which(program)))
    done = subprocess.run(
        ["/bin/sh", str(copy), "up"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("problem")
    for manager in ("apt", "dnf", "pacman", "brew"):
        assert f"{manager}: " in done.stderr
