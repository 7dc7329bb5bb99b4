"""What is checked before a command, and the set-up of its environment."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from stack.install import binaries, elapsed, environments, preflight, start
from stack.install.finding import OK, PROBLEM, WARNING, Finding
from stack.install.pythons import Python


class TestPurpose:
    """Each command is refused only for what it needs itself."""

    @pytest.mark.parametrize(
        ("arguments", "purpose"),
        [
            (["up"], preflight.START),
            (["up", "--detach"], preflight.START),
            (["prepare"], preflight.PREPARE),
            (["up", "--help"], preflight.SETUP),
            (["status"], preflight.SETUP),
            (["--help"], preflight.SETUP),
            (["--develop"], preflight.SETUP),
            (["search", "up"], preflight.SETUP),
            ([], preflight.SETUP),
        ],
    )
    def test_of_commands(self, arguments: list[str], purpose: int) -> None:
        assert preflight.purpose_of(arguments) == purpose

    def subjects(self, tmp_path: Path, purpose: int) -> set[str]:
        variables = {"CACHE_DIR": str(tmp_path), "STATE_DIR": str(tmp_path / "state")}
        machine = preflight.Machine({**os.environ, **variables})
        return {each.subject for each in machine.check(purpose, complete=False)}

    @pytest.mark.slow
    def test_each_purpose_checks_what_it_needs(self, tmp_path: Path) -> None:
        setup = {"Python", "certificates", "folders", "disk"}
        prepare = {*setup, "machine", "Python for Triton", "memory"}
        assert self.subjects(tmp_path, preflight.SETUP) == setup
        assert self.subjects(tmp_path, preflight.PREPARE) == prepare
        start_needs = {*prepare, "make", "ports", "file system"}
        assert self.subjects(tmp_path, preflight.START) == start_needs

    @pytest.mark.slow
    def test_what_a_running_stack_has_taken_is_not_missing(self, tmp_path: Path) -> None:
        (tmp_path / "state" / "run").mkdir(parents=True)
        (tmp_path / "state" / "run" / "stack.json").touch()
        assert not {"ports", "memory"} & self.subjects(tmp_path, preflight.START)


class TestSetUp:
    @pytest.fixture
    def made(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[object, ...]]:
        """The arguments of `environments.make`, and of the program at the end."""
        calls: list[tuple[object, ...]] = []
        monkeypatch.setattr(start, "HOME", tmp_path / ".venv")
        monkeypatch.setattr(environments, "make", lambda *given, **_: calls.append(given))
        monkeypatch.setattr(environments, "uv", lambda _, python, __: f"uv of {python}")
        monkeypatch.setattr("os.execve", lambda *given: calls.append(given))
        monkeypatch.setenv("CACHE_DIR", str(tmp_path / "cache"))
        return calls

    def test_uv_brings_a_python_where_none_fits(
        self, monkeypatch: pytest.MonkeyPatch, made: list[tuple[object, ...]], tmp_path: Path
    ) -> None:
        old = Python("/usr/bin/python3.10", (3, 10), None, True)
        monkeypatch.setattr(preflight.Machine, "all_pythons", [old])
        monkeypatch.setattr(preflight.Machine, "reaches_downloads", True)
        monkeypatch.setattr("shutil.which", lambda *_, **__: None)
        start.main(["status"])
        home, _, python, program, variables = made[0]
        assert (home, python, program) == (
            tmp_path / ".venv",
            "3.12",
            "uv of /usr/bin/python3.10",
        )
        assert isinstance(variables, dict)
        assert variables["UV_CACHE_DIR"].startswith(str(tmp_path / "cache"))

    @pytest.mark.slow
    @pytest.mark.parametrize(("state", "count"), [(PROBLEM, 0), (WARNING, 2), (OK, 2)])
    def test_a_problem_alone_stops_it(
        self,
        monkeypatch: pytest.MonkeyPatch,
        made: list[tuple[object, ...]],
        capsys: pytest.CaptureFixture[str],
        state: str,
        count: int,
    ) -> None:
        monkeypatch.setattr(preflight.Machine, "check", lambda *_, **__: [Finding("x", state, "y")])
        start.main(["status"])
        assert len(made) == count
        assert ("x: y" in capsys.readouterr().err) == (state != OK)

    @pytest.mark.parametrize(
        ("command", "prepared", "checked"),
        [
            ("up", False, True),
            ("up", True, False),
            ("prepare", False, True),
            ("status", False, False),
        ],
    )
    def test_servers_are_checked_for_until_they_are_prepared(
        self,
        monkeypatch: pytest.MonkeyPatch,
        made: list[tuple[object, ...]],
        command: str,
        prepared: bool,
        checked: bool,
    ) -> None:
        monkeypatch.setattr(environments, "is_complete", lambda *_: True)
        monkeypatch.setattr(preflight.Machine, "is_prepared", prepared)
        asked: list[bool] = []

        def check(*_: object, complete: bool) -> list[Finding]:
            asked.append(complete)
            return []

        monkeypatch.setattr(preflight.Machine, "check", check)
        start.main([command])
        assert asked == [True] * checked
        assert len(made) == 1

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("error", "status", "text"),
        [
            (PermissionError(13, "Permission denied", "/x/.lock"), 1, "error: [Errno 13] Perm"),
            (RuntimeError("no home"), 1, "error: no home"),
            (environments.EnvironmentFailed("uv … failed"), 1, "error: uv … failed"),
            (KeyboardInterrupt(), 130, "interrupted"),
        ],
    )
    def test_a_failing_set_up_is_one_line(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
        error: BaseException,
        status: int,
        text: str,
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(start, "HOME", tmp_path / ".venv")
        monkeypatch.setattr(preflight.Machine, "check", lambda *_, **__: [])
        monkeypatch.setattr(environments, "make", fail)
        monkeypatch.setattr(environments, "uv", lambda *_: "uv")
        assert start.run(["status"]) == status
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith(text)


class TestElapsed:
    @pytest.mark.parametrize(
        ("terminal", "term", "count"), [(True, "xterm", 3), (True, "dumb", 1), (False, "xterm", 1)]
    )
    def test_how_long_is_shown_where_lines_can_be_replaced(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        terminal: bool,
        term: str,
        count: int,
    ) -> None:
        monkeypatch.setenv("TERM", term)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
        with elapsed.elapsed("doing it", terminal_seconds=0.01):
            time.sleep(0.2)
        told = capsys.readouterr().err
        assert told.count("doing it") >= count
        assert ("\x1b" in told) == (count > 1)
        assert told.endswith("doing it, 0 s\x1b[K\n" if count > 1 else "doing it\n")

    def test_a_log_is_told_too_that_it_goes_on(self, capsys: pytest.CaptureFixture[str]) -> None:
        with elapsed.elapsed("doing it", log_seconds=0.01):
            time.sleep(0.1)
        lines = capsys.readouterr().err.splitlines()
        assert lines[:2] == ["doing it", "doing it, 0 s"]


def test_the_weaviate_of_the_checks_is_the_one_that_is_compiled() -> None:
    assert f"weaviate-{binaries.WEAVIATE_VERSION}" == preflight.WEAVIATE


class TestDisk:
    def needs(self, tmp_path: Path, **variables: str) -> int:
        """Bytes that the cache must have room for."""
        named = {"CACHE_DIR": str(tmp_path), "STATE_DIR": str(tmp_path), "PATH": "/nonexistent"}
        asked: list[dict[Path, int]] = []
        with pytest.MonkeyPatch.context() as patch:

            def check_disk(needs: dict[Path, int]) -> list[Finding]:
                asked.append(dict(needs))
                return []

            patch.setattr(preflight, "check_disk", check_disk)
            preflight.Machine({**named, **variables}).check(preflight.PREPARE, complete=True)
        return asked[0][tmp_path]

    def test_only_this_version_of_weaviate_counts(self, tmp_path: Path) -> None:
        (tmp_path / "weaviate-1.0.0").mkdir()
        assert self.needs(tmp_path) == preflight.BUILD_BYTES
        for elsewhere in ("WEAVIATE_URL", "WEAVIATE_BINARY"):
            assert self.needs(tmp_path, **{elsewhere: "x"}) < preflight.BUILD_BYTES
        (tmp_path / preflight.WEAVIATE).mkdir()
        assert self.needs(tmp_path) < preflight.BUILD_BYTES
