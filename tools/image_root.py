"""Runs the steps of a Dockerfile in copies of a bare root, where there is no container engine.

    sudo python3 tools/image_root.py DOCKERFILE BASE TARGET

BASE is a folder with the system that the Dockerfile's `FROM` images stand for; TARGET, which must
not exist, becomes the root of the last stage, and TARGET.env what its `ENV` instructions set. The
build context is the folder above the Dockerfile's. Instructions that this does not know end it, so
that a Dockerfile is never tried in part. For `tools/fresh_machine.sh`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

DECLARATIONS = {"EXPOSE", "CMD"}
"""Instructions that change nothing in the root."""


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, with continued lines joined."""
    joined = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.M))
    return [(line.split()[0], line.split(None, 1)[1]) for line in joined.splitlines() if line]


class Stage:
    """One stage: a root, and what the next instruction is run with."""

    def __init__(self, base: Path, root: Path) -> None:
        subprocess.run(["cp", "-a", "--reflink=auto", str(base), str(root)], check=True)
        self.root = root
        self.folder = "/"
        self.user = "0"
        self.environment = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}

    def run(self, command: str) -> None:
        """Run a command in the root, with this machine's network and certificate authorities."""
        network = {k: v for k, v in os.environ.items() if k in ("SSL_CERT_FILE", "PIP_CERT")}
        chroot = ["chroot", f"--userspec={self.user}:{self.user}", str(self.root), "/bin/sh", "-c"]
        subprocess.run(
            [*chroot, f"cd {shlex.quote(self.folder)} && {command}"],
            env={**network, **self.environment},
            check=True,
        )

    def copy(self, source: Path, target: str) -> None:
        """Copy a file or what a folder contains, as `COPY` does."""
        to = self.root / (self.folder + "/" + target).lstrip("/")
        if target.startswith("/"):
            to = self.root / target.lstrip("/")
        if source.is_dir():
            shutil.copytree(
                source,
                to,
                symlinks=True,
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns("__pycache__"),
            )
        else:
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, to)

    def set_environment(self, words: str) -> None:
        """Set variables, which may refer to earlier ones."""
        for word in shlex.split(words):
            name, _, value = word.partition("=")
            self.environment[name] = re.sub(
                r"\$\{?(\w+)\}?", lambda match: self.environment.get(match[1], ""), value
            )


def build(dockerfile: Path, base: Path, target: Path) -> None:
    """Make the root of a Dockerfile's last stage."""
    context, stages = dockerfile.parent.parent, {}
    stage = None
    for name, rest in instructions(dockerfile.read_text()):
        print(f"{name} {rest}", flush=True)
        if name == "FROM":
            label = rest.split(" AS ")[1] if " AS " in rest else ""
            stage = Stage(base, target.with_name(f"{target.name}.{label}") if label else target)
            stages[label] = stage
            continue
        assert stage is not None
        if name == "RUN":
            stage.run(rest)
        elif name == "COPY":
            option, words = "", rest.split()
            if words[0].startswith("--from="):
                option, words = words[0].partition("=")[2], words[1:]
            source, to = words
            stage.copy(stages[option].root / source.lstrip("/") if option else context / source, to)
        elif name == "WORKDIR":
            stage.folder = rest
            (stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif name == "ENV":
            stage.set_environment(rest)
        elif name == "USER":
            stage.user = subprocess.run(
                ["chroot", str(stage.root), "id", "-u", rest],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            ).stdout.strip()
        elif name not in DECLARATIONS:
            raise SystemExit(f"{dockerfile}: {name} is not known here")
    assert stage is not None
    for label, other in stages.items():
        if label:
            shutil.rmtree(other.root)
    described = {"environment": stage.environment, "user": stage.user, "folder": stage.folder}
    target.with_name(f"{target.name}.env").write_text(json.dumps(described))


if __name__ == "__main__":
    build(*(Path(argument).resolve() for argument in sys.argv[1:]))
