"""Names that a shell completes: of models and of logs.

A key in a shell must neither fail nor wait: whatever goes wrong, there are no names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Final

import typer


def models() -> Iterable[str]:
    """The models that are installed, and those of the catalogue."""
    from models.catalogue import read_catalogue
    from stack.settings import StackSettings

    installed = StackSettings().models
    found = [path.name for path in installed.iterdir()] if installed.is_dir() else []
    return {"lite", *read_catalogue(), *(name for name in found if not name.startswith("."))}


def logs() -> Iterable[str]:
    """The processes that have a log."""
    from stack.settings import StackSettings

    return (path.stem for path in StackSettings().logs.glob("*.log"))


def _completed(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        try:
            return sorted(name for name in names() if name.startswith(incomplete))
        except Exception:  # Whatever it is: the shell would show it in the middle of a line.
            return []

    return complete


LOG_NAMES: Final = _completed(logs)
MODEL_NAMES: Final = _completed(models)
ModelNameArgument = Annotated[str, typer.Argument(autocompletion=MODEL_NAMES)]
