"""The script `image-search` and its first step, in a copy of the checkout without libraries."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from stack.install import environments
from stack.install.finding import OK, PROBLEM

ROOT = Path(__file__).parents[3]
NOBODY = 65534
SYSTEM_PYTHON = Path("/usr/bin/python3")

PUBLIC = {"PATH": "/usr/bin:/bin", "PYTHON": str(SYSTEM_PYTHON), "HOME": "/nonexistent"}
"""Variables with which another user runs a command."""
WRONG = {"SSL_CERT_FILE": "/no/such/file"}
"""Variables with which every command that needs a set-up is refused."""


@pytest.fixture
def checkout() -> Iterator[Path]:
    """What the first step consists of, where every user can read it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        copy = Path(folder).resolve() / "check out"
        (copy / "stack").mkdir(parents=True)
        shutil.copytree(
            ROOT / "stack" / "install", copy / "stack" / "install", ignore=lambda *_: "__pycache__"
        )
        shutil.copytree(ROOT / "requirements", copy / "requirements")
        for name in ("image-search", "pyproject.toml", "stack/__init__.py"):
            shutil.copy(ROOT / name, copy / name)
        for each in copy.rglob("*"):
            each.chmod(0o755)
        yield copy


def run(
    checkout: Path,
    *arguments: str,
    program: Path | None = None,
    cwd: Path | None = None,
    user: int | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    if environment["HOME"] == "":
        del environment["HOME"]
    for name in {"STATE_DIR", "CACHE_DIR"} - variables.keys():
        environment.pop(name, None)
    return subprocess.run(
        [str(program or checkout / "image-search"), *arguments],
        env=environment,
        cwd=cwd or checkout,
        user=user,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def installed(checkout: Path, stamp: str | None = None) -> None:
    """An environment as it is after a set-up, whose `cli` prints its arguments."""
    home = checkout / ".venv"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    lock = checkout / "requirements" / "app.txt"
    (home / environments.STAMP).write_text(stamp or environments.key_of(lock))
    (checkout / "cli").mkdir()
    (checkout / "cli" / "__main__.py").write_text(
        "import sys\nif __name__ == '__main__': print('ours', *sys.argv[1:])\n"
    )
    (checkout / "stack" / "stopping.py").touch()


class TestScript:
    def test_a_link_on_the_path(self, checkout: Path, tmp_path: Path) -> None:
        link = tmp_path / "image-search"
        (tmp_path / "another").symlink_to(checkout / "image-search")
        link.symlink_to("another")
        done = run(checkout, "--version", program=link, cwd=tmp_path)
        assert done.stdout.startswith("image-search "), done.stderr

    @pytest.mark.slow
    @pytest.mark.parametrize("content", ["", "#!/no/such/loader\n", "#!/bin/sh\nexit 127\n", None])
    def test_an_interpreter_that_does_not_run_is_passed_over(
        self, checkout: Path, content: str | None
    ) -> None:
        broken = checkout / ".venv" / "bin" / "python"
        broken.parent.mkdir(parents=True)
        if content is None:
            broken.symlink_to("/no/such/python")
        else:
            broken.write_text(content)
            broken.chmod(0o755)
        (checkout / ".venv" / environments.STAMP).write_text(
            environments.key_of(checkout / "requirements" / "app.txt")
        )
        assert run(checkout, "--version").returncode == 0
        # The environment does not count as complete: the machine is checked before it is made anew.
        done = run(checkout, "status", variables=WRONG)
        assert done.returncode == 1
        assert "certificates: SSL_CERT_FILE" in done.stderr

    def test_files_of_the_current_folder_do_not_run(self, checkout: Path, tmp_path: Path) -> None:
        installed(checkout)
        for name in ("cli.py", "stack.py", "typer.py"):
            (tmp_path / name).write_text("print('theirs')\n")
        done = run(checkout, "status", cwd=tmp_path)
        assert (done.stdout, done.stderr) == ("ours status\n", "")


class TestAfterAnUpdate:
    """The locks are newer than the environment, and something is wrong with the machine."""

    @pytest.mark.parametrize("command", ["down", "clean"])
    def test_what_stops_the_stack_runs(self, checkout: Path, command: str) -> None:
        installed(checkout, stamp="earlier")
        done = run(checkout, command, "--json", variables=WRONG)
        assert (done.stdout, done.stderr) == (f"ours {command} --json\n", "")

    @pytest.mark.slow
    def test_other_commands_need_their_libraries(self, checkout: Path) -> None:
        installed(checkout, stamp="earlier")
        done = run(checkout, "status", variables=WRONG)
        assert done.returncode == 1
        assert "certificates" in done.stderr

    @pytest.mark.slow
    def test_so_does_what_stops_the_stack_where_it_imports_a_new_one(self, checkout: Path) -> None:
        installed(checkout, stamp="earlier")
        (checkout / "stack" / "stopping.py").write_text("import a_new_library\n")
        done = run(checkout, "down", variables=WRONG)
        assert done.returncode == 1
        assert "certificates" in done.stderr


class TestErrors:
    """Whatever is wrong is told in lines, not by a traceback."""

    def found(self, done: subprocess.CompletedProcess[str]) -> dict[str, tuple[str, str]]:
        assert "Traceback" not in done.stderr, done.stderr
        return {each["subject"]: (each["state"], each["text"]) for each in json.loads(done.stdout)}

    @pytest.mark.slow
    def test_a_cache_below_a_file(self, checkout: Path) -> None:
        wrong = checkout / "pyproject.toml" / "cache"
        state, text = self.found(
            run(checkout, "doctor", "--json", variables={"CACHE_DIR": str(wrong)})
        )["folders"]
        assert state == PROBLEM
        assert text == f"{wrong.parent} is a file, not a folder"
        done = run(checkout, "status", variables={"CACHE_DIR": str(wrong)})
        assert done.returncode == 1
        assert text in done.stderr

    @pytest.mark.slow
    @pytest.mark.parametrize("port", ["²", "", "x", "-1", "70000", "1e3"])
    def test_ports_that_are_none(self, checkout: Path, port: str) -> None:
        text = self.found(run(checkout, "doctor", "--json", variables={"GATEWAY_PORT": port}))[
            "ports"
        ][1]
        assert ("GATEWAY_PORT" in text and "no port" in text) == (port != "")

    def test_without_a_home_folder(self, checkout: Path) -> None:
        if os.geteuid() != 0 or not SYSTEM_PYTHON.exists():
            pytest.skip("runs as another user")
        variables = {**PUBLIC, "HOME": "", "XDG_CACHE_HOME": "", "LC_ALL": "C"}
        done = run(checkout, "doctor", "--json", user=54321, variables=variables)
        self.found(done)
        assert f"{checkout}/~/.cache/image-search: there is no such home folder" in done.stdout

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "left", ["", ".venv", ".venv.lock", "cache", "cache/.uv.lock", "cache/uv"]
    )
    def test_what_another_user_has_left(self, checkout: Path, left: str) -> None:
        if os.geteuid() != 0 or not SYSTEM_PYTHON.exists():
            pytest.skip("runs as another user")
        cache = checkout / "cache"
        (cache / "uv").mkdir(parents=True)
        (cache / ".uv.lock").touch()
        (checkout / ".venv.lock").touch()
        (checkout / ".venv").mkdir()
        for each in (checkout, *checkout.rglob("*")):
            os.chown(each, NOBODY, NOBODY)
        variables = {**PUBLIC, "CACHE_DIR": str(cache), "STATE_DIR": str(checkout / "state")}
        found = self.found(run(checkout, "doctor", "--json", user=NOBODY, variables=variables))
        assert found["folders"][0] == OK, found
        os.chown(checkout / left, 0, 0)
        (checkout / left).chmod(0o755)
        done = run(checkout, "status", user=NOBODY, variables=variables)
        assert done.returncode == 1
        assert f"{checkout / left}: this user cannot write there" in done.stderr
        assert "sudo chown" in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_folder_that_cannot_be_seen(self, checkout: Path) -> None:
        if os.geteuid() != 0 or not SYSTEM_PYTHON.exists():
            pytest.skip("runs as another user")
        (checkout / "private" / "mine").mkdir(parents=True)
        (checkout / "private").chmod(0o700)
        cache = checkout / "private" / "mine" / "cache"
        done = run(
            checkout, "doctor", "--json", user=NOBODY, variables={**PUBLIC, "CACHE_DIR": str(cache)}
        )
        assert f"{checkout}/private: this user" in done.stdout
        self.found(done)

    def test_a_port_that_needs_permission_is_not_in_use(self, checkout: Path) -> None:
        lowest = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
        if os.geteuid() != 0 or not SYSTEM_PYTHON.exists() or lowest == 0:
            pytest.skip("runs as another user")
        done = run(
            checkout, "doctor", "--json", user=NOBODY, variables={**PUBLIC, "GATEWAY_PORT": "1"}
        )
        text = self.found(done)["ports"][1]
        assert "not permitted to this user: 1 (GATEWAY_PORT)" in text
        assert "in use: 1 " not in text
