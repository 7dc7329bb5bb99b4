"""Render the model repository that Triton serves: the checked-in one plus settings."""

import argparse
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from adapters.embedder.spec import ModelSpec
from models import triton_config

IMAGE_SUFFIX, TEXT_SUFFIX = "_image", "_text"
CONFIG = "config.pbtxt"
ENVIRONMENT = "EXECUTION_ENV_PATH"
VERSION_LENGTH = 12
IDLE_SECONDS = 10.0
"""How long no batch has come when an encoder gives the memory of past ones back to the system."""
PROVIDERS = ("cpu", "cuda")
# Parameters on which a vector's value depends, besides the files in `_valued_files`. Instances,
# threads and provider may change without a new version.
_VALUED_PARAMETERS = (
    "dimension",
    "width",
    "height",
    "resize_mode",
    "interpolation",
    "background",
    "max_tokens",
    "padding",
    "pad_token",
)
# Newer parameters, which count only if they are set, so that older models keep their version.
_VALUED_IF_STATED = ("clean", "padding_side")
CODE = Path(__file__).resolve().parents[1] / "triton_models"
CODE_OF = {IMAGE_SUFFIX: "lite_image", TEXT_SUFFIX: "lite_text"}
"""The folders with `model.py`, which all models of a kind share."""


def models(source: Path) -> list[str]:
    """The names, without `_image` and `_text`, of the models that have both encoders.

    Raises:
        ValueError: an encoder is missing, or there is no model at all.
    """
    folders = {path.parent.name for path in source.glob(f"*/{CONFIG}")}
    images = {name.removesuffix(IMAGE_SUFFIX) for name in folders if name.endswith(IMAGE_SUFFIX)}
    texts = {name.removesuffix(TEXT_SUFFIX) for name in folders if name.endswith(TEXT_SUFFIX)}
    if images != texts or not images:
        raise ValueError(f"{source} has image models {sorted(images)}, text models {sorted(texts)}")
    return sorted(images)


def version(source: Path, model: str) -> str:
    """The model's version: 12 hexadecimal digits of the SHA-256 of everything that determines the
    vector of an image or a text.
    """
    digest = hashlib.sha256()
    for suffix in (IMAGE_SUFFIX, TEXT_SUFFIX):
        folder = source / f"{model}{suffix}"
        stated = triton_config.parameters(triton_config.read(folder / CONFIG))
        for name in _VALUED_PARAMETERS:
            digest.update(f"{suffix}:{name}={stated.get(name)!r}\n".encode())
        for name in _VALUED_IF_STATED:
            if name in stated:
                digest.update(f"{suffix}:{name}={stated[name]!r}\n".encode())
        for path in _valued_files(folder / "1"):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{suffix}:{path.name}:{content}\n".encode())
    return digest.hexdigest()[:VERSION_LENGTH]


def _valued_files(folder: Path) -> list[Path]:
    """Weights and tokenizer: all files except code."""
    return sorted(path for path in folder.glob("*") if path.is_file() and path.suffix != ".py")


def read_model_spec(source: Path, model: str) -> ModelSpec:
    """The input and output specification of a model in a repository, rendered or not.

    Raises:
        OSError: a file is missing.
        ValueError: its configuration is incomplete or invalid.
    """
    config = triton_config.read(source / f"{model}{IMAGE_SUFFIX}" / CONFIG)
    stated = triton_config.parameters(config)
    return ModelSpec.from_triton_parameters(
        {**stated, "version": stated.get("version") or version(source, model)}
    )


def render(
    source: Path,
    target: Path,
    *,
    python_env: Path | None,
    image_instances: int,
    text_instances: int,
    threads: int,
    provider: str,
    idle_seconds: float = IDLE_SECONDS,
    names: Sequence[str] | None = None,
) -> None:
    """Write the repository that Triton serves into `target`.

    Weights are hard links if the file system supports them, else copies. Each file is replaced
    atomically, so rendering again while a server runs is safe. Models that exist only in `target`
    are not changed.

    Args:
        source: the checked-in repository.
        target: created if missing.
        python_env: virtual environment with the models' libraries; None if Triton's own Python
            has them.
        image_instances: instances of each image encoder (on each GPU).
        text_instances: the same for text encoders.
        threads: ONNX Runtime's threads in each instance; 0 means one per core.
        provider: `cpu` or `cuda`.
        idle_seconds: how long no batch has come when an encoder on a CPU gives the memory of past
            ones back; 0 means never.
        names: the models to render; None means all of `source`.

    Raises:
        ValueError: an argument is out of range or a configuration is invalid.
        OSError: a file cannot be read or written.
    """
    if image_instances < 1 or text_instances < 1 or threads < 0 or idle_seconds < 0:
        raise ValueError("instances must be at least 1, threads and idle seconds at least 0")
    if provider not in PROVIDERS:
        raise ValueError(f"provider is {provider!r}: use one of {PROVIDERS}")
    for model in models(source) if names is None else names:
        shared = {"version": version(source, model), "threads": str(threads), "provider": provider}
        shared["idle_seconds"] = f"{idle_seconds:g}"
        if python_env is not None:
            shared[ENVIRONMENT] = str(python_env.absolute())
        for suffix, count in ((IMAGE_SUFFIX, image_instances), (TEXT_SUFFIX, text_instances)):
            name = f"{model}{suffix}"
            config = triton_config.read(source / name / CONFIG)
            triton_config.set_instances(config, count, gpu=provider == "cuda")
            for key, value in shared.items():
                config.parameters[key].string_value = value
            _copy_versions(source / name, target / name)
            _link_code(CODE / CODE_OF[suffix], target / name)
            put(target / name / CONFIG, triton_config.write(config).encode())


def files(folder: Path) -> Iterator[Path]:
    """The files of a model's numbered versions, relative to its folder."""
    for path in sorted(folder.glob("[0-9]*/**/*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(folder)


def _link_code(source: Path, target: Path) -> None:
    """Link the newest code into a model that was added without code."""
    for path in (source / "1").glob("*.py"):
        for version in target.glob("[0-9]*"):
            if not (version / path.name).exists():
                link(path, version / path.name)


def _copy_versions(source: Path, target: Path) -> None:
    wanted = list(files(source))
    if not wanted:
        raise ValueError(f"{source} contains no model version")
    if target.exists():
        for stale in set(files(target)) - set(wanted):
            (target / stale).unlink()
    for relative in wanted:
        link(source / relative, target / relative)


def link(source: Path, target: Path) -> None:
    """Put a file in place atomically, as a hard link if possible, else as a copy."""
    if target.exists() and target.samefile(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".render-") as scratch:
        fresh = Path(scratch) / target.name
        try:
            os.link(source, fresh)
        except OSError:  # another file system, or one without hard links
            shutil.copy2(source, fresh)
        fresh.replace(target)


def put(target: Path, content: bytes) -> None:
    """Write a file atomically; its folder must exist."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".render-") as scratch:
        fresh = Path(scratch) / target.name
        fresh.write_bytes(content)
        fresh.replace(target)


def main() -> None:
    """Render the model repository SOURCE into TARGET, for a Triton container image."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--provider", choices=PROVIDERS, default="cpu")
    parser.add_argument("--image-instances", type=int, default=1)
    parser.add_argument("--text-instances", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--idle-seconds", type=float, default=IDLE_SECONDS)
    given = parser.parse_args()
    render(
        given.source,
        given.target,
        python_env=None,
        image_instances=given.image_instances,
        text_instances=given.text_instances,
        threads=given.threads,
        provider=given.provider,
        idle_seconds=given.idle_seconds,
    )


if __name__ == "__main__":
    main()
