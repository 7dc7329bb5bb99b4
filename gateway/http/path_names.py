"""Names of pictures in the paths of routes: whatever a file system allows, line ends included."""

from __future__ import annotations

from typing import Final

from starlette.convertors import Convertor, register_url_convertor


class _Name(Convertor[str]):
    """As Starlette's `path`, whose dot matches no line end and whose `$` overlooks a last one."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


KIND: Final = "picture"
"""What stands behind the colon in a route's path."""
register_url_convertor(KIND, _Name())
