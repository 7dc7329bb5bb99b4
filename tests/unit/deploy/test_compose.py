"""docker-compose.yml: valid, complete, and in step with the local stack."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stack.install import binaries

ROOT = Path(__file__).parents[3]
COMPOSE = ROOT / "docker-compose.yml"
COMPOSE_GPU = ROOT / "deploy" / "docker-compose.gpu.yml"
SERVERS = {"kafka", "weaviate", "triton"}
OURS = {"provision", "watcher", "indexer", "analytics", "gateway"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    parsed: dict[str, Any] = YAML(typ="safe").load(COMPOSE.read_text())
    return parsed


@pytest.mark.slow
@pytest.mark.parametrize("file", [COMPOSE, COMPOSE_GPU], ids=lambda path: path.name)
def test_the_files_follow_the_compose_specification(file: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "check_jsonschema",
            "--builtin-schema",
            "vendor.compose-spec",
            str(file),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_specification_is_really_checked(tmp_path: Path) -> None:
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(COMPOSE.read_text().replace("    image: apache", "    imago: apache"))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "check_jsonschema",
            "--builtin-schema",
            "vendor.compose-spec",
            broken,
        ],
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0


def test_every_service_is_there(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == SERVERS | OURS


def test_every_service_that_stays_has_a_health_check(compose: dict[str, Any]) -> None:
    without = {
        name for name, service in compose["services"].items() if "healthcheck" not in service
    }
    assert without == {"provision"}


def test_services_start_when_their_dependencies_are_healthy(compose: dict[str, Any]) -> None:
    needs = compose["services"]["provision"]["depends_on"]
    assert needs == {name: {"condition": "service_healthy"} for name in SERVERS}
    for name in OURS - {"provision"}:
        assert compose["services"][name]["depends_on"] == {
            "provision": {"condition": "service_completed_successfully"}
        }


def test_our_roots_are_read_only(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert [name for name in OURS if not services[name]["read_only"]] == []
    assert [name for name in OURS if services[name]["tmpfs"] != ["/tmp"]] == []  # noqa: S108


def test_the_try_in_a_bare_root_starts_every_program(compose: dict[str, Any]) -> None:
    script = (ROOT / "tools" / "fresh_machine.sh").read_text()
    commands = [" ".join(compose["services"][name]["command"]) for name in OURS]
    assert [command for command in commands if command not in script] == []


def test_the_servers_are_the_versions_the_tests_ran_with(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services["kafka"]["image"].endswith(f":{binaries.KAFKA_VERSION}")
    assert services["weaviate"]["image"].endswith(f":{binaries.WEAVIATE_VERSION}")
    dockerfile = (ROOT / "deploy" / "triton.Dockerfile").read_text()
    assert re.search(r"^FROM nvcr\.io/nvidia/tritonserver:\d\d\.\d\d-py3$", dockerfile, re.M)


def test_a_gpu_is_reserved_by_the_second_file_alone(compose: dict[str, Any]) -> None:
    triton = compose["services"]["triton"]
    assert "deploy" not in triton
    assert triton["build"]["args"]["PROVIDER"] == "cpu"
    added = YAML(typ="safe").load(COMPOSE_GPU.read_text())["services"]
    assert set(added) == {"triton"}
    (device,) = added["triton"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert device["capabilities"] == ["gpu"]
    assert added["triton"]["build"]["args"]["PROVIDER"] == "cuda"
    assert added["triton"]["image"] != triton["image"], "each is built with its provider"


def test_data_is_in_named_volumes(compose: dict[str, Any]) -> None:
    assert set(compose["volumes"]) == {"kafka-data", "weaviate-data", "lake-data", "watcher-data"}
    for name in ("kafka", "weaviate", "analytics"):
        (mount,) = compose["services"][name]["volumes"]
        assert mount.split(":")[0] in compose["volumes"]


def test_there_is_no_secret_and_no_default_for_one(compose: dict[str, Any]) -> None:
    secret = compose["services"]["gateway"]["environment"]["JWT_SECRET"]
    assert secret.startswith("${JWT_SECRET:?")
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search("SECRET|PASSWORD|TOKEN|KEY$", name):
                assert str(value).startswith("${"), name


def test_only_the_gateway_is_published_and_only_on_this_machine(compose: dict[str, Any]) -> None:
    published = {name: s["ports"] for name, s in compose["services"].items() if "ports" in s}
    assert list(published) == ["gateway"]
    assert published["gateway"][0].startswith("${GATEWAY_BIND:-127.0.0.1}:")


def test_every_copied_path_exists_and_is_not_in_dockerignore() -> None:
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    for dockerfile in (ROOT / "deploy").glob("*.Dockerfile"):
        for source in re.findall(r"^COPY (?!--from)(\S+) ", dockerfile.read_text(), re.M):
            assert (ROOT / source).exists(), source
            assert f"!{source}" in allowed, source


def test_nothing_is_installed_into_the_image_without_its_hash() -> None:
    text = (ROOT / "deploy" / "app.Dockerfile").read_text().replace("\\\n", " ")
    commands = [
        command
        for line in text.splitlines()
        for command in line.split("&&")
        if re.search(r"pip (install|wheel)", command)
    ]
    assert len(commands) == 3
    unchecked = [each for each in commands if not re.search("--require-hashes|--no-index", each)]
    assert unchecked == []
    # An isolated build would fetch its requirements without hashes.
    assert all("--no-build-isolation" in each for each in commands if "pip wheel" in each)


def test_what_packages_are_built_with_is_what_the_application_has_of_it() -> None:
    def pinned(name: str) -> dict[str, str]:
        lines = (ROOT / "requirements" / name).read_text()
        return dict(re.findall(r"^([\w.-]+)==([^ ;]+)", lines, re.M))

    application, build = pinned("app.txt"), pinned("build.txt")
    assert {"cffi", "pkgconfig", "setuptools"} < build.keys()
    shared = build.keys() & application.keys()
    assert {name: build[name] for name in shared} == {name: application[name] for name in shared}
