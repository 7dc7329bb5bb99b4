"""Sources besides the main folder: named URLs of folders or buckets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from adapters.addresses import check_protocols

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Source:
    """A folder or bucket; the ids of its images start with `name/`.

    `url` is `file:///folder` or any other that fsspec knows, such as `s3://bucket/folder`.
    """

    name: str
    url: str

    @property
    def prefix(self) -> str:
        """Prefix of the ids of its images."""
        return f"{self.name}/"

    @property
    def is_local(self) -> bool:
        """Whether it is a local folder, which is watched and not listed."""
        return self.url.startswith("file://")

    @property
    def folder(self) -> Path:
        """The folder of a local source."""
        return Path(unquote(urlsplit(self.url).path))

    @property
    def uri_prefix(self) -> str:
        """Prefix of the URIs of its images; the quoted path follows."""
        if self.is_local:
            return f"{self.folder.resolve().as_uri().rstrip('/')}/"
        return f"{self.url.rstrip('/')}/"

    def uri(self, path: str) -> str:
        """The URI of the image at this POSIX path in the source."""
        return self.uri_prefix + quote(path)


def parse_sources(text: str) -> tuple[Source, ...]:
    """Sources written as `name=url`, separated by white space.

    Raises:
        ValueError: one cannot be parsed, or a name is used twice.
    """
    found: dict[str, Source] = {}
    for word in text.split():
        name, equals, url = word.partition("=")
        if not equals or not _NAME.fullmatch(name) or not urlsplit(url).scheme:
            raise ValueError(f"{word!r} is not of the form name=url, as in nas=file:///mnt/nas")
        check_protocols(url)
        if name in found:
            raise ValueError(f"the name {name!r} is used for two sources")
        found[name] = Source(name, url)
    return tuple(found.values())
