"""Paths of images below the root of their source, with `/`."""


def join(directory: str, name: str) -> str:
    """Path below the root of a name in a directory; "" is the root."""
    return f"{directory}/{name}" if directory else name


def is_utf8(path: str) -> bool:
    """Whether the path's bytes are UTF-8. Python represents other bytes as lone surrogates."""
    return path.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in path)
