"""The version of this checkout, as `pyproject.toml` states it.

This file uses the standard library alone and the syntax of Python 3.9: see `preflight`.
"""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def version(project: Path = PROJECT) -> str:
    """The version, as `0.1.0`."""
    # tomllib is there from Python 3.11 on.
    found = re.search(r'^version = "([^"]+)"$', project.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else "unknown"
