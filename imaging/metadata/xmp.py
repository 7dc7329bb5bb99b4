"""What an XMP packet (ISO 16684-1) says of the picture itself, by the names of its properties."""

from __future__ import annotations

import logging
from typing import Final
from xml.parsers import expat

from imaging.metadata.texts import TEXT_CHARACTERS

logger = logging.getLogger(__name__)

LONGEST: Final = 1_000_000
"""Bytes that are looked at; what follows is history and pictures in Base64."""
_RDF: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_PREFIXES: Final = {
    "http://ns.adobe.com/exif/1.0/": "exif",
    "http://ns.adobe.com/photoshop/1.0/": "photoshop",
    "http://ns.adobe.com/tiff/1.0/": "tiff",
    "http://ns.adobe.com/xap/1.0/": "xmp",
}
_SEPARATOR: Final = " "
_ABOUT_THE_PICTURE: Final = [f"{_RDF}{_SEPARATOR}RDF", f"{_RDF}{_SEPARATOR}Description"]


def properties(packet: object) -> dict[str, str]:
    """Name (as `exif:GPSLatitude`) -> text, of what precedes any damage; empty for no XMP."""
    if isinstance(packet, str):
        packet = packet.encode("utf-8", "replace")
    if not isinstance(packet, bytes):
        return {}
    reading = _Reading()
    try:
        reading.parser.Parse(packet.lstrip(b"\0 \t\r\n")[:LONGEST], True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        logger.info("XMP cut short: %s", error)
    return reading.found


class _Reading:
    """Keeps the simple properties: attributes of `rdf:Description`, and elements in it."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self._path: list[str] = []
        self._text = ""
        self.parser = expat.ParserCreate(namespace_separator=_SEPARATOR)
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters

    def _refuse(self, *_: object) -> None:
        # XMP has none, and entities that unfold without end are declared there.
        raise ValueError("a document type is declared")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._path.append(name)
        self._text = ""
        if self._path[-2:] == _ABOUT_THE_PICTURE and len(self._path) <= 3:
            for attribute, value in attributes.items():
                self._keep(attribute, value)

    def _characters(self, text: str) -> None:
        if len(self._text) < TEXT_CHARACTERS:
            self._text += text[:TEXT_CHARACTERS]

    def _end(self, name: str) -> None:
        self._path.pop()
        if self._path[-2:] == _ABOUT_THE_PICTURE and len(self._path) <= 3:
            self._keep(name, self._text)
        self._text = ""

    def _keep(self, name: str, value: str) -> None:
        namespace, _, local = name.rpartition(_SEPARATOR)
        prefix, text = _PREFIXES.get(namespace), value.strip()[:TEXT_CHARACTERS]
        if prefix and text:
            self.found.setdefault(f"{prefix}:{local}", text)
