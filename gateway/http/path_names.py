"""Image names in the paths of routes: all that a file system allows, line breaks included."""

from __future__ import annotations

from typing import Final

from starlette.convertors import Convertor, register_url_convertor


class _Name(Convertor[str]):
    """Like Starlette's `path`, whose dot matches no line break and whose `$` skips a last one."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


CONVERTOR: Final = "image_name"
"""The convertor's name, which follows the colon in a route's path."""
register_url_convertor(CONVERTOR, _Name())
