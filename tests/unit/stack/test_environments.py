"""Python environments: when they are complete, and what is made again."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from stack.install import binaries, environments, pythons, toolchains
from stack.install.preparation import Cache
from stack.settings import ROOT

UV = f"""#!/bin/sh
folder=${{0%/*}}
echo "$*" >> "$folder/calls"
case $1 in
  --version) cat "$folder/version" ;;
  venv) for last; do :; done; {sys.executable} -m venv --without-pip "$last" ;;
  pip)
    [ ! -e "$folder/fails" ] || {{ echo "no such package" >&2; exit 2; }}
    [ ! -e "$folder/lasts" ] || {{ echo $$ > "$folder/pid"; sleep 600; }} ;;
esac
"""


class Uv:
    """A program that is called as uv is."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.program = folder / "uv"
        self.program.write_text(UV)
        self.program.chmod(0o755)
        self.says("uv 0.13.9 (x86_64-unknown-linux-gnu)")

    def says(self, version: str) -> None:
        (self.folder / "version").write_text(version + "\n")

    def calls(self) -> list[str]:
        """The first words of its calls since the last time."""
        file = self.folder / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return [line.split()[0] for line in lines]


@pytest.fixture
def uv(tmp_path: Path) -> Uv:
    return Uv(tmp_path / "tools")


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    file = tmp_path / "lock.txt"
    file.write_text("a==1\n")
    return file


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "checkout" / ".venv"


def make(home: Path, lock: Path, uv: Uv, python: str = sys.executable) -> None:
    variables = {"PATH": "/usr/bin:/bin"}
    environments.make(home, lock, python, str(uv.program), variables)


def test_an_environment_is_made_once(home: Path, lock: Path, uv: Uv) -> None:
    assert not environments.is_complete(home, lock)
    make(home, lock, uv)
    assert environments.is_complete(home, lock)
    assert uv.calls() == ["venv", "pip"]
    make(home, lock, uv)
    assert uv.calls() == []


@pytest.mark.slow
def test_a_new_lock_brings_it_up_to_date_in_place(home: Path, lock: Path, uv: Uv) -> None:
    make(home, lock, uv)
    (home / "kept").touch()
    lock.write_text("a==2\n")
    assert not environments.is_complete(home, lock)
    make(home, lock, uv)
    assert environments.is_complete(home, lock)
    assert (home / "kept").exists()


@pytest.mark.slow
def test_after_a_failure_it_is_neither_complete_nor_lost(home: Path, lock: Path, uv: Uv) -> None:
    make(home, lock, uv)
    (home / "kept").touch()
    old = lock.read_text()
    lock.write_text("a==2\n")
    (uv.folder / "fails").touch()
    with pytest.raises(
        environments.EnvironmentFailed, match=r"(?s)setting up \.venv.*no such pack"
    ):
        make(home, lock, uv)
    lock.write_text(old)
    assert not environments.is_complete(home, lock)
    (uv.folder / "fails").unlink()
    make(home, lock, uv)
    assert environments.is_complete(home, lock)
    assert (home / "kept").exists()


@pytest.mark.slow
@pytest.mark.parametrize("how", [shutil.move, shutil.copytree])
def test_a_moved_or_copied_checkout_is_set_up_again(
    home: Path, lock: Path, uv: Uv, tmp_path: Path, how: object
) -> None:
    make(home, lock, uv)
    (home / "stale").touch()
    there = tmp_path / "elsewhere"
    if how is shutil.move:
        shutil.move(home.parent, there)
    else:
        shutil.copytree(home.parent, there, symlinks=True)
    assert not environments.is_complete(there / ".venv", lock)
    make(there / ".venv", lock, uv)
    assert environments.is_complete(there / ".venv", lock)
    assert not (there / ".venv" / "stale").exists()


def test_a_linked_environment_is_where_the_link_leads(
    home: Path, lock: Path, uv: Uv, tmp_path: Path
) -> None:
    make(home, lock, uv)
    link = tmp_path / "link"
    link.symlink_to(home)
    assert environments.is_complete(link, lock)


@pytest.mark.slow
def test_one_for_another_python_is_emptied(home: Path, lock: Path, uv: Uv) -> None:
    make(home, lock, uv)
    stamp = home / environments.STAMP
    stamp.write_text(stamp.read_text().replace("python 3.", "python 2."))
    (home / "lib" / "python2.11").mkdir()
    assert not environments.is_complete(home, lock)
    make(home, lock, uv)
    assert environments.is_complete(home, lock)
    assert not (home / "lib" / "python2.11").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("minor", "kept"), [(0, True), (1, False)])
def test_a_version_may_be_asked_for(home: Path, lock: Path, uv: Uv, minor: int, kept: bool) -> None:
    make(home, lock, uv)
    (home / "mark").touch()
    lock.write_text("a==2\n")
    make(home, lock, uv, f"3.{sys.version_info.minor + minor}")
    assert (home / "mark").exists() == kept


@pytest.mark.slow
def test_an_interpreter_that_does_not_run_is_replaced(home: Path, lock: Path, uv: Uv) -> None:
    make(home, lock, uv)
    python = home / "bin" / "python"
    python.unlink()
    python.write_text("#!/no/such/loader\n")
    python.chmod(0o755)
    assert not environments.is_complete(home, lock)
    make(home, lock, uv)
    assert environments.is_complete(home, lock)


@pytest.mark.slow
def test_its_own_interpreter_can_make_it_again(home: Path, lock: Path, uv: Uv) -> None:
    make(home, lock, uv)
    (home / environments.STAMP).unlink()
    make(home, lock, uv, str(home / "bin" / "python"))
    assert environments.is_complete(home, lock)


def test_a_stamp_of_before_is_still_one(home: Path, lock: Path, uv: Uv) -> None:
    make(home, lock, uv)
    (home / environments.STAMP).write_text(environments.key_of(lock) + "\n")
    assert environments.is_complete(home, lock)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_uv_ends_with_the_command_that_started_it(
    home: Path, lock: Path, uv: Uv, number: signal.Signals
) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom stack.install import environments\n"
        "home, lock, uv = sys.argv[1:]\n"
        "environments.make(Path(home), Path(lock), sys.executable, uv, {'PATH': '/usr/bin:/bin'})\n"
    )
    (uv.folder / "lasts").touch()
    words = [sys.executable, "-c", program, str(home), str(lock), str(uv.program)]
    parent = subprocess.Popen(words, cwd=ROOT)
    pid = uv.folder / "pid"
    while not pid.exists() or not pid.read_text().strip():
        time.sleep(0.02)
    child = psutil.Process(int(pid.read_text()))
    family = [child, *child.children()]
    parent.send_signal(number)
    parent.wait()
    psutil.wait_procs(family, timeout=30)
    assert not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in family)
    (uv.folder / "lasts").unlink()
    make(home, lock, uv)
    assert environments.is_complete(home, lock)


@pytest.mark.parametrize(
    ("version", "taken"),
    [
        ("uv 0.13.9 (x86_64-unknown-linux-gnu)", True),
        ("uv 0.8.0", True),
        ("uv 1.0.0", True),
        ("uv 0.4.30", False),
        ("something else", False),
        ("", False),
    ],
)
def test_a_uv_on_the_path_must_be_new_enough(uv: Uv, version: str, taken: bool) -> None:
    uv.says(version)
    wanted = str(uv.program) if taken else None
    assert environments.own_uv(f"{uv.folder}:/usr/bin:/bin") == wanted


def test_there_need_not_be_one(tmp_path: Path) -> None:
    assert environments.own_uv(str(tmp_path)) is None


class TestTritonsPython:
    def test_one_fetched_before_is_found_without_uv(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = tmp_path / "python" / "cpython-3.12.9-linux-x86_64-gnu" / "bin" / "python3.12"
        found.parent.mkdir(parents=True)
        found.touch()
        described = pythons.Python(str(found), (3, 12), "/lib/libpython3.12.so.1.0", True)
        monkeypatch.setattr(pythons, "_describe", lambda paths: [described] * (str(found) in paths))
        monkeypatch.setattr(toolchains, "uv", lambda _: pytest.fail("uv is not needed"))
        assert toolchains.triton_python(Cache(tmp_path, lambda _: None)) == described._replace(
            fetched=True
        )


BACKENDS = """
import sys, time
from pathlib import Path
from stack.install import binaries, pythons, toolchains
from stack.install.preparation import Cache

root, begin = Path(sys.argv[1]), float(sys.argv[2])
toolchains.triton_python = lambda _: pythons.Python("p", (3, 12), "/lib/libpython3.12.so", True)
toolchains.environment = lambda *_: root / "venv-triton-1"
time.sleep(max(0, begin - time.time()))
print(binaries.triton(Cache(root, print)).backends)
"""


@pytest.mark.slow
def test_several_processes_make_tritons_backends_at_once(tmp_path: Path) -> None:
    venv = tmp_path / "venv-triton-1"
    bundle = venv / "lib" / "python3.12" / "site-packages" / "pytriton" / "tritonserver"
    (bundle / "backends" / "python").mkdir(parents=True)
    for number in range(300):
        (bundle / "backends" / f"{number}.so").write_bytes(b"x" * 10_000)
    stub = bundle / "python_backend_stubs" / "3.12" / binaries.STUB
    stub.parent.mkdir(parents=True)
    stub.write_text("stub")
    begin = str(time.time() + 2)
    words = [sys.executable, "-c", BACKENDS, str(tmp_path), begin]
    started = [
        subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    errors = [each.communicate(timeout=60)[1] for each in started]
    assert errors == ["", "", ""]
    assert [each.returncode for each in started] == [0, 0, 0]
    assert (venv / "tritonserver-backends" / "python" / binaries.STUB).read_text() == "stub"
    assert len(list((venv / "tritonserver-backends").glob("*.so"))) == 300
    assert list(venv.glob("*.part")) == []
