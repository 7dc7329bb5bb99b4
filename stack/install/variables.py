"""Settings as the checks before there is an environment read them, as `EnvironmentSettings` does.

This file uses the standard library alone and the syntax of Python 3.9: see `preflight`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def setting(environment: Mapping[str, str], name: str) -> str | None:
    """A variable's value; None if it is not set or empty. The case of its name does not matter."""
    found = [value for key, value in environment.items() if value and key.upper() == name]
    return found[-1] if found else None


def folder(value: str | Path) -> Path:
    """A folder that a setting names, absolute: `~` is the home folder, and a relative path is below
    the current folder."""
    # An unknown `~user` stays as it is: the settings refuse it when a command runs.
    return Path(os.path.expanduser(value)).resolve()  # noqa: PTH111
