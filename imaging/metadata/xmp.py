"""Reads the simple properties of an XMP packet (ISO 16684-1)."""

from __future__ import annotations

import logging
from typing import Final
from xml.parsers import expat

from imaging.metadata.texts import TEXT_CHARACTERS

logger = logging.getLogger(__name__)

MAX_BYTES: Final = 1_000_000
"""Bytes that are read; after these come edit histories and images in Base64."""
_RDF: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_PREFIXES: Final = {
    "http://ns.adobe.com/exif/1.0/": "exif",
    "http://ns.adobe.com/photoshop/1.0/": "photoshop",
    "http://ns.adobe.com/tiff/1.0/": "tiff",
    "http://ns.adobe.com/xap/1.0/": "xmp",
}
_SEPARATOR: Final = " "
_DESCRIPTION_PATH: Final = [f"{_RDF}{_SEPARATOR}RDF", f"{_RDF}{_SEPARATOR}Description"]


def properties(packet: object) -> dict[str, str]:
    """Name (such as `exif:GPSLatitude`) -> text, up to the first damage; empty without XMP."""
    if isinstance(packet, str):
        packet = packet.encode("utf-8", "replace")
    if not isinstance(packet, bytes):
        return {}
    parser = _Parser()
    try:
        parser.expat.Parse(packet.lstrip(b"\0 \t\r\n")[:MAX_BYTES], True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        logger.info("damaged XMP: %s", error)
    return parser.found


class _Parser:
    """Collects simple properties: the attributes of `rdf:Description` and its child elements."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self._path: list[str] = []
        self._text = ""
        self.expat = expat.ParserCreate(namespace_separator=_SEPARATOR)
        self.expat.buffer_text = True
        self.expat.StartDoctypeDeclHandler = self._refuse
        self.expat.StartElementHandler = self._start
        self.expat.EndElementHandler = self._end
        self.expat.CharacterDataHandler = self._characters

    def _refuse(self, *_: object) -> None:
        # XMP has none, and it could declare entities that expand without limit.
        raise ValueError("a document type is declared")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._path.append(name)
        self._text = ""
        if self._path[-2:] == _DESCRIPTION_PATH and len(self._path) <= 3:
            for attribute, value in attributes.items():
                self._keep(attribute, value)

    def _characters(self, text: str) -> None:
        if len(self._text) < TEXT_CHARACTERS:
            self._text += text[:TEXT_CHARACTERS]

    def _end(self, name: str) -> None:
        self._path.pop()
        if self._path[-2:] == _DESCRIPTION_PATH and len(self._path) <= 3:
            self._keep(name, self._text)
        self._text = ""

    def _keep(self, name: str, value: str) -> None:
        namespace, _, local = name.rpartition(_SEPARATOR)
        prefix, text = _PREFIXES.get(namespace), value.strip()[:TEXT_CHARACTERS]
        if prefix and text:
            self.found.setdefault(f"{prefix}:{local}", text)
