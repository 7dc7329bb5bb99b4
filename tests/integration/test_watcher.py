"""The watcher as a process, on a real broker."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.watcher_processes import (
    Broker,
    history,
    letters,
    on_disk,
    running_broker,
    running_watcher,
    shows,
    view,
)


@pytest.fixture(scope="module")
def module_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with running_broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.fixture
def broker(module_broker: Broker) -> Broker:
    if module_broker.process is None:
        module_broker.start()
    module_broker.empty()
    return module_broker


def fill(folder: Path, count: int, size: int = 2000) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(f"{folder.name}/{number} ".encode() * (size // 10))


def test_a_killed_watcher_publishes_only_changes_after_its_restart(
    broker: Broker, root: Path, tmp_path: Path
) -> None:
    fill(root / "a", 200)
    with running_watcher(broker.address, root, tmp_path) as watcher:
        shows(broker.address, on_disk(root))
        watcher.kill()
        before = len(history(broker.address))
        assert before == 200

        watcher.start()
        assert len(history(broker.address)) == before

        watcher.kill()
        fill(root / "b", 3)
        (root / "a" / "0.jpg").unlink()
        (root / "a" / "1.jpg").write_bytes(b"changed")
        (root / "a" / "2.jpg").rename(root / "c.jpg")
        watcher.start()
        shows(broker.address, on_disk(root))
        assert len(history(broker.address)) == before + 3 + 1 + 1 + 2
        assert watcher.stop() == 0


def test_stops_with_status_0_while_the_broker_is_down(
    broker: Broker, root: Path, tmp_path: Path
) -> None:
    with running_watcher(broker.address, root, tmp_path) as watcher:
        broker.kill()
        fill(root, 5)
        time.sleep(1)
        started = time.monotonic()
        assert watcher.stop() == 0
        assert time.monotonic() - started < 10


@pytest.mark.timeout(240)
def test_an_outage_of_the_broker_loses_nothing(broker: Broker, root: Path, tmp_path: Path) -> None:
    fill(root / "a", 50)
    fill(root / "kept", 60)  # so that the loss of "a" is no mass removal
    with running_watcher(broker.address, root, tmp_path, kafka_timeout=5) as watcher:
        shows(broker.address, on_disk(root))
        broker.kill(signal.SIGKILL)
        fill(root / "b", 300)
        shutil.rmtree(root / "a")
        time.sleep(3)
        (root / "b" / "0.jpg").unlink()
        (root / "b" / "1.jpg").write_bytes(b"changed")
        time.sleep(8)  # longer than one attempt to publish lasts
        assert watcher.status()["waiting"] > 0
        broker.start()
        shows(broker.address, on_disk(root), 60)


def test_the_ten_second_copy_gives_one_event_with_the_final_hash(
    broker: Broker, root: Path, tmp_path: Path
) -> None:
    with running_watcher(broker.address, root, tmp_path):
        with (root / "slow.jpg").open("wb") as file:
            for number in range(20):
                file.write(bytes([number]) * 50_000)
                file.flush()
                time.sleep(0.5)
            assert history(broker.address) == []
        shows(broker.address, on_disk(root), 3)
        time.sleep(1)
        assert len(history(broker.address)) == 1


def test_an_unmounted_root_removes_nothing(broker: Broker, root: Path, tmp_path: Path) -> None:
    mount(root)
    try:
        fill(root, 10)
        before = on_disk(root)
        with running_watcher(broker.address, root, tmp_path) as watcher:
            shows(broker.address, before)
            keep = tmp_path / "keep"
            shutil.copytree(root, keep, copy_function=shutil.copy2)
            unmount(root)
            watcher.wait_for(lambda status: status["state"] == "removals held back")
            assert "mounted" in watcher.status()["problem"]
            watcher.kill()
            watcher.start()
            watcher.wait_for(lambda status: status["state"] == "removals held back")
            assert view(broker.address) == before
            mount(root)
            shutil.copytree(keep, root, dirs_exist_ok=True, copy_function=shutil.copy2)
            watcher.wait_for(lambda status: status["state"] == "watching", 30)
            (root / "new.jpg").write_bytes(b"new")
            shows(broker.address, on_disk(root), 5)
            assert len(history(broker.address)) == 11
    finally:
        unmount(root)


def mount(folder: Path) -> None:
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "none", str(folder)], capture_output=True, check=False, text=True
    )
    if done.returncode:
        pytest.skip(f"a file system can be mounted by the superuser only: {done.stderr.strip()}")


def unmount(folder: Path) -> None:
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


def test_a_root_that_is_not_there_at_start_is_waited_for(
    broker: Broker, root: Path, tmp_path: Path
) -> None:
    fill(root, 3)
    before = on_disk(root)
    with running_watcher(broker.address, root, tmp_path) as watcher:
        shows(broker.address, before)
        watcher.kill()
        aside = root.rename(tmp_path / "aside")
        watcher.start(scanned=False)
        watcher.wait_for(lambda status: status.get("state") == "folder missing")
        assert view(broker.address) == before
        aside.rename(root)
        watcher.wait_for(lambda status: status["last_reconcile"] is not None)
        assert len(history(broker.address)) == 3


def test_a_burst_that_overflows_the_kernels_queue_loses_nothing(
    broker: Broker, root: Path, tmp_path: Path
) -> None:
    limit = Path("/proc/sys/fs/inotify/max_queued_events")
    usual = limit.read_text()
    try:
        limit.write_text("64")
    except OSError as error:
        pytest.skip(f"the limit can be set by the superuser only: {error}")
    try:
        with running_watcher(broker.address, root, tmp_path) as watcher:
            writers = [
                subprocess.Popen(
                    [
                        "sh",
                        "-c",
                        f"mkdir {n}; for i in $(seq 3000); do echo {n}$i >{n}/$i.jpg; done",
                    ],
                    cwd=root,
                )
                for n in range(3)
            ]
            assert [writer.wait(60) for writer in writers] == [0, 0, 0]
            shutil.rmtree(root / "2")
            shows(broker.address, on_disk(root), 60)
            assert watcher.status()["dropped_event_bursts"] > 0
            assert "the kernel dropped events" in watcher.log.read_text()
    finally:
        limit.write_text(usual)


@pytest.mark.parametrize("watches", [10, 0])
def test_the_watcher_polls_with_a_warning_above_the_watch_limit(
    broker: Broker, root: Path, tmp_path: Path, watches: int
) -> None:
    # The limit of a user namespace, so that no other process of this machine feels it.
    limited = ["unshare", "--user", "--map-root-user", "sh", "-c"]
    limited += [f'echo {watches} >/proc/sys/user/max_inotify_watches && exec "$@"', "sh"]
    if subprocess.run([*limited, "true"], check=False).returncode != 0:
        pytest.skip("no user namespaces here")
    for number in range(30):
        (root / f"d{number}").mkdir()
    with running_watcher(broker.address, root, tmp_path, within=limited) as watcher:
        watcher.wait_for(lambda status: status["poll_seconds"] > 0)
        assert "max_user_watches" in watcher.log.read_text()
        for number in range(30):
            (root / f"d{number}" / "x.jpg").write_bytes(b"x")
        shows(broker.address, on_disk(root), 40)


def test_sighup_starts_a_comparison_and_sigusr1_confirms_removals(
    broker: Broker, root: Path, tmp_path: Path
) -> None:
    fill(root, 5)
    with running_watcher(broker.address, root, tmp_path) as watcher:
        first = watcher.status()["last_reconcile"]
        watcher.send(signal.SIGHUP)
        watcher.wait_for(lambda status: status["last_reconcile"] != first, 20)
        shows(broker.address, on_disk(root))
        watcher.kill()
        for image in root.iterdir():
            image.unlink()
        watcher.start()
        watcher.wait_for(lambda status: status["held_removals"] == 5)
        assert len(view(broker.address)) == 5
        watcher.send(signal.SIGUSR1)
        shows(broker.address, {}, 20)
        watcher.wait_for(lambda status: status["held_removals"] == 0, 20)


def test_a_name_that_is_not_utf8_is_reported_once_over_restarts(
    broker: Broker, root: Path, tmp_path: Path
) -> None:
    (root / "caf\udce9.jpg").write_bytes(b"x")
    with running_watcher(broker.address, root, tmp_path) as watcher:
        watcher.kill()
        watcher.start()
        (root / "good.jpg").write_bytes(b"x")
        shows(broker.address, {"good.jpg": on_disk(root)["good.jpg"]}, 5)
        found = letters(broker.address)
    assert [(letter.image_id, letter.error_class) for letter in found] == [
        ("caf\\xe9.jpg", "InvalidName")
    ]
