"""uv uses the indexes, proxy and certificates that pip is set to."""

from __future__ import annotations

from pathlib import Path

import pytest

from stack.install import environments, package_index

MIRROR, EXTRA = "https://mirror.example/simple", "https://extra.example/simple"


@pytest.fixture(autouse=True)
def no_system_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    system = tmp_path / "system.crt"
    system.touch()
    monkeypatch.setattr(package_index, "SYSTEM_CERTIFICATES", (str(system),))


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path / "xdg")}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def indexes(environment: dict[str, str]) -> dict[str, str]:
    found = package_index.variables(environment)
    return {name: value for name, value in found.items() if "INDEX" in name}


def test_without_settings_only_the_systems_certificates_are_named(home: dict[str, str]) -> None:
    wanted = {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}
    assert package_index.variables({**home, "PIP_CONFIG_FILE": "/dev/null"}) == wanted


def test_variables_of_pip(home: dict[str, str]) -> None:
    pip = {"PIP_INDEX_URL": MIRROR, "PIP_EXTRA_INDEX_URL": f"{EXTRA} https://c.example"}
    assert indexes({**home, **pip}) == {
        "UV_DEFAULT_INDEX": MIRROR,
        "UV_INDEX": f"{EXTRA} https://c.example",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


@pytest.mark.parametrize("name", [".config/pip/pip.conf", ".pip/pip.conf", "xdg/pip/pip.conf"])
def test_files_of_pip(home: dict[str, str], tmp_path: Path, name: str) -> None:
    text = f"[global]\nindex_url = {MIRROR}\nproxy = http://p:3128\n[install]\n"
    text += (
        f"extra-index-url =\n    {EXTRA}\n    https://c.example/%41\ntrusted-host = a.example b\n"
    )
    write(tmp_path / name, text)
    found = package_index.variables(home)
    assert found["UV_DEFAULT_INDEX"] == MIRROR
    assert found["UV_INDEX"] == f"{EXTRA} https://c.example/%41"
    assert found["UV_INSECURE_HOST"] == "a.example b"
    assert found["HTTPS_PROXY"] == found["HTTP_PROXY"] == "http://p:3128"
    assert indexes({**home, "PIP_INDEX_URL": EXTRA})["UV_DEFAULT_INDEX"] == EXTRA
    assert indexes({**home, "PIP_CONFIG_FILE": "/dev/null"}) == {}


def test_a_file_that_pip_cannot_read_is_passed_over(home: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / ".config/pip/pip.conf", "no section\n")
    assert indexes(home) == {}


@pytest.mark.parametrize("name", package_index.INDEXES)
def test_what_uv_is_told_itself_wins(home: dict[str, str], name: str) -> None:
    assert indexes({**home, "PIP_INDEX_URL": MIRROR, name: EXTRA}) == {}


@pytest.mark.parametrize("text", ["[[index]]\nurl='x'", "index-url = 'x'", "[pip]\nno-index=true"])
def test_so_does_a_file_of_uv(home: dict[str, str], tmp_path: Path, text: str) -> None:
    pip = {"PIP_INDEX_URL": MIRROR}
    write(tmp_path / ".config/uv/uv.toml", "link-mode = 'copy'\n")
    assert indexes({**home, **pip})
    write(tmp_path / ".config/uv/uv.toml", text)
    assert indexes({**home, **pip}) == {}


def test_folders_of_wheels(home: dict[str, str], tmp_path: Path) -> None:
    links = {"PIP_FIND_LINKS": f"{tmp_path} https://w.example /no-such-folder"}
    found = package_index.variables({**home, **links, "PIP_NO_INDEX": "1"})
    assert found["UV_FIND_LINKS"] == f"{tmp_path},https://w.example"
    assert "UV_OFFLINE" not in found
    found = package_index.variables({**home, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)})
    assert found["UV_OFFLINE"] == "1"


class TestCertificates:
    def names(self, environment: dict[str, str]) -> set[str]:
        return set(package_index.variables({**environment, "PIP_CONFIG_FILE": "/dev/null"}))

    def test_a_named_file_is_enough(self, home: dict[str, str]) -> None:
        assert self.names({**home, "SSL_CERT_FILE": "/x.pem"}) == set()

    def test_that_of_pip_is_used(self, home: dict[str, str], tmp_path: Path) -> None:
        write(tmp_path / "ca.pem", "x")
        write(tmp_path / ".pip/pip.conf", f"[global]\ncert = {tmp_path}/ca.pem\n")
        assert package_index.variables(home) == {"SSL_CERT_FILE": f"{tmp_path}/ca.pem"}

    def test_a_system_without_any_leaves_those_of_uv(
        self, home: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(package_index, "SYSTEM_CERTIFICATES", ("/no/such/file",))
        assert self.names(home) == set()

    def test_the_users_choice_wins(self, home: dict[str, str]) -> None:
        assert "UV_SYSTEM_CERTS" not in self.names({**home, "UV_SYSTEM_CERTS": "0"})


def test_nothing_is_put_into_the_users_folders(home: dict[str, str], tmp_path: Path) -> None:
    given = {**home, "PIP_TARGET": "/t", "VIRTUAL_ENV": "/v", "PATH": "/bin"}
    found = environments.tool_environment(given, tmp_path / "cache")
    assert found["UV_PYTHON_INSTALL_DIR"] == str(tmp_path / "cache" / "python")
    assert found["UV_PYTHON_INSTALL_BIN"] == "0"
    assert found["UV_CACHE_DIR"] == str(tmp_path / "cache" / "uv")
    assert found["PATH"] == "/bin"
    assert not {"PIP_TARGET", "VIRTUAL_ENV", "UV_NO_CONFIG"} & set(found)
