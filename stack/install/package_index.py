"""Where packages come from: what a machine's settings of pip say, as variables of uv.

This file uses the standard library alone and the syntax of Python 3.9: see `preflight`.
"""

from __future__ import annotations

import configparser
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

INDEXES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL")
"""Variables by which a user tells uv itself where packages are."""
FALSE = frozenset(["", "0", "false", "no", "off", "n", "f"])
SYSTEM_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where systems keep their certificate authorities."""


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of uv for the indexes, proxy and certificates that pip uses on this machine.

    None that the environment has already, and no index if the settings of uv name one.
    """
    pip = _pip_settings(environment)
    found = _certificates(environment, pip)
    if pip.get("proxy"):
        names = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
        if not any(environment.get(name) for name in names):
            found["HTTPS_PROXY"] = found["HTTP_PROXY"] = pip["proxy"]
    if pip.get("trusted-host"):
        found["UV_INSECURE_HOST"] = " ".join(pip["trusted-host"].split())
    if not any(environment.get(name) for name in INDEXES) and not _uv_names_index(environment):
        found.update(_indexes(pip))
    return {name: value for name, value in found.items() if name not in environment}


def _indexes(pip: Mapping[str, str]) -> dict[str, str]:
    found = {}
    if pip.get("index-url"):
        found["UV_DEFAULT_INDEX"] = pip["index-url"]
    if pip.get("extra-index-url"):
        found["UV_INDEX"] = " ".join(pip["extra-index-url"].split())
        # As pip does: a package may be on any of them. The hashes in the lock decide which it is.
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    links = [
        link for link in pip.get("find-links", "").split() if "://" in link or Path(link).is_dir()
    ]
    if links:
        found["UV_FIND_LINKS"] = ",".join(links)
    local = all("://" not in link for link in links)
    if pip.get("no-index", "").lower() not in FALSE and local:
        found["UV_OFFLINE"] = "1"  # uv has no variable for pip's no-index.
    return found


def _certificates(environment: Mapping[str, str], pip: Mapping[str, str]) -> dict[str, str]:
    """Those of `cert`; else those of the system, if it has any: uv's own know no company's."""
    if environment.get("SSL_CERT_FILE"):
        return {}
    if pip.get("cert") and Path(pip["cert"]).is_file():
        return {"SSL_CERT_FILE": pip["cert"]}
    if sys.platform == "linux" and not any(Path(each).exists() for each in SYSTEM_CERTIFICATES):
        return {}
    # The second one is the name that uv before 0.11 knows.
    return {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}


def _pip_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """What `pip install` is set to: by variables, else by its files. Names are as in the files."""
    found: dict[str, str] = {}
    named = environment.get("PIP_CONFIG_FILE", "")
    files = [f"{folder}/pip/pip.conf" for folder in reversed(_system_folders(environment))]
    files += ["/etc/pip.conf", f"{_home(environment)}/.pip/pip.conf"]
    files += [f"{_user_folder(environment)}/pip/pip.conf", named]
    for file in files if named != os.devnull else []:
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read(file)
        except (OSError, ValueError, configparser.Error):
            continue  # pip itself reports a file that it cannot read.
        for section in ("global", "install"):
            if parser.has_section(section):
                found.update(
                    (name.replace("_", "-"), value) for name, value in parser[section].items()
                )
    for name, value in environment.items():
        if name.startswith("PIP_") and value:
            found[name[len("PIP_") :].lower().replace("_", "-")] = value
    return found


def _uv_names_index(environment: Mapping[str, str]) -> bool:
    """Whether a file of uv's own settings names an index."""
    files = [f"{folder}/uv/uv.toml" for folder in _system_folders(environment)]
    files += ["/etc/uv/uv.toml", f"{_user_folder(environment)}/uv/uv.toml"]
    for file in [*files, environment.get("UV_CONFIG_FILE", "")]:
        try:
            text = Path(file).read_text(encoding="utf-8", errors="replace") if file else ""
        except OSError:
            continue
        if re.search(
            r"^\s*(\[\[)?(pip\.)?(extra-)?index\b|^\s*(no-index|find-links)\b", text, re.M
        ):
            return True
    return False


def _home(environment: Mapping[str, str]) -> str:
    return environment.get("HOME") or os.path.expanduser("~")  # noqa: PTH111  # never raises


def _user_folder(environment: Mapping[str, str]) -> str:
    return environment.get("XDG_CONFIG_HOME") or f"{_home(environment)}/.config"


def _system_folders(environment: Mapping[str, str]) -> list[str]:
    return (environment.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
