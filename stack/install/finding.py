"""What a check of the machine has found.

This file uses the standard library alone and the syntax of Python 3.9: see `preflight`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

OK, WARNING, PROBLEM = "ok", "warning", "problem"


class Finding(NamedTuple):
    """One check: its subject, what was found, and a command for each package manager.

    `remedies` maps the name of a package manager to a command; the empty name is for advice that
    does not depend on one.
    """

    subject: str
    state: str
    text: str
    remedies: Mapping[str, str] = MappingProxyType({})


def managers(which: Callable[[str], str | None] = shutil.which) -> list[str]:
    """The package managers of this machine; all that we know commands for if none is there."""
    known = {"apt": "apt-get", "dnf": "dnf", "pacman": "pacman", "brew": "brew"}
    return [name for name, program in known.items() if which(program)] or list(known)


def lines(findings: Sequence[Finding], here: Sequence[str], *, everything: bool) -> list[str]:
    """The findings as text: all of them, or those that are not ok.

    Args:
        here: the package managers whose commands are shown.
    """
    told = []
    for finding in findings:
        if finding.state == OK and not everything:
            continue
        told.append(f"{finding.state:<8} {finding.subject}: {finding.text}")
        shown = [name for name in here if name in finding.remedies]
        told += [f"           {name}: {finding.remedies[name]}" for name in shown]
        if "" in finding.remedies:
            told.append(f"           {finding.remedies['']}")
    return told


def as_json(finding: Finding) -> dict[str, object]:
    """A finding as an object of JSON."""
    return {**finding._asdict(), "remedies": dict(finding.remedies)}
