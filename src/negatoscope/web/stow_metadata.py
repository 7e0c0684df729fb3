"""STOW-RS of metadata and bulk data, PS3.18 10.5.1.1.2: DICOM JSON or Native DICOM Model XML, values apart.

Metadata are bounded (1 MiB a part). Values come before or after them, in any order, and wait in one unnamed
file; an object is put together element by element, its large values straight from that file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import IO, Any

import orjson

from negatoscope.dicom.limits import Limits
from negatoscope.dicom.tags import LONG_VRS, VRS
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN, TRANSFER_SYNTAXES, is_valid_uid
from negatoscope.dicom.writer import encode
from negatoscope.errors import BadRequest, InvalidObject, TooLarge
from negatoscope.web.media_types import DICOM_JSON, OCTET_STREAM
from negatoscope.web.native_xml import from_xml
from negatoscope.wire.multipart import PartBegan, parse_content_type

_IN_MEMORY = 1 << 20
_PIECE = 1 << 20
_LONGEST_VALUE = 0xFFFFFFFE
_ITEM = Struct("<HHL")
# Media type of compressed pixel data that comes without a transfer syntax (PS3.18 table 8.7.3-5).
_DEFAULT_SYNTAX = {
    "image/jpeg": "1.2.840.10008.1.2.4.70",
    "image/jls": "1.2.840.10008.1.2.4.80",
    "image/jp2": "1.2.840.10008.1.2.4.90",
    "image/jphc": "1.2.840.10008.1.2.4.201",
    "image/jxl": "1.2.840.10008.1.2.4.110",
    "image/dicom-rle": "1.2.840.10008.1.2.5",
    "video/mpeg": "1.2.840.10008.1.2.4.100",
    "video/mp4": "1.2.840.10008.1.2.4.102",
}


@dataclass(frozen=True, slots=True)
class _Value:
    """A bulk value in the waiting file."""

    offset: int
    length: int
    transfer_syntax_uid: str | None  # of compressed frames; None: plain bytes


class MetadataParts:
    """The parts of one request."""

    def __init__(self, kind: str, limits: Limits) -> None:
        self._kind, self._limits = kind, limits
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed by close()
        self._length = 0
        self._values: dict[str, list[_Value]] = {}
        self._datasets: list[Any] = []
        self._text: bytearray | None = None  # of the metadata part that is open
        self._open: tuple[str, int, str | None] | None = None  # location, offset, syntax of the value that is

    def begin(self, event: PartBegan) -> None:
        """Raises BadRequest: a value without a location."""
        media, parameters = parse_content_type(event.headers.get("content-type", self._kind))
        if media == self._kind:
            self._text = bytearray()
            return
        location = event.headers.get("content-location", "")
        if not location:
            raise BadRequest("a bulk data part needs a Content-Location")
        syntax = parameters.get("transfer-syntax") or _DEFAULT_SYNTAX.get(media)
        if media != OCTET_STREAM and syntax is None:
            raise BadRequest("a bulk data part of a kind that is not known")
        known = TRANSFER_SYNTAXES.get(syntax or "")
        self._open = (location, self._length, syntax if known is not None and known.encapsulated else None)

    def write(self, data: memoryview) -> None:
        """Raises TooLarge: over the limit of metadata, or of all values together."""
        if self._text is not None:
            self._text += data
            if len(self._text) > self._limits.json_body:
                raise TooLarge(f"metadata may have {self._limits.json_body} bytes")
        elif self._open is not None:
            self._length += len(data)
            if self._length > self._limits.data_set:
                raise TooLarge(f"bulk data may have {self._limits.data_set} bytes")
            self._file.write(data)

    def end(self) -> None:
        """Raises BadRequest: metadata that cannot be read."""
        if self._text is not None:
            self._datasets += self._read(bytes(self._text))
            self._text = None
        elif self._open is not None:
            location, offset, syntax = self._open
            self._values.setdefault(_path(location), []).append(_Value(offset, self._length - offset, syntax))
            self._open = None

    def _read(self, text: bytes) -> list[Any]:
        if self._kind != DICOM_JSON:
            return [from_xml(text, self._limits)]
        try:
            found = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise BadRequest("the metadata are not JSON") from error
        return found if isinstance(found, list) else [found]

    def objects(self) -> Iterator[_Object]:
        """The objects, in the order of their metadata."""
        for dataset in self._datasets:
            yield _Object(dataset, self)

    def value(self, uri: str) -> list[_Value]:
        """The parts at a BulkDataURI. Raises InvalidObject: there is none in this request."""
        found = self._values.get(_path(uri))
        if found is None:
            raise InvalidObject("a bulk data reference leads to no part of the request")
        return found

    def read(self, value: _Value) -> Iterator[bytes]:
        """Its bytes, a MiB at a time."""
        for at in range(0, value.length, _PIECE):
            self._file.seek(value.offset + at)
            yield self._file.read(min(_PIECE, value.length - at))

    def close(self) -> None:
        self._file.close()

    @property
    def limits(self) -> Limits:
        return self._limits


class _Object:
    """A data set to be written from its JSON and its values."""

    def __init__(self, dataset: Any, parts: MetadataParts) -> None:
        self._dataset = dataset if isinstance(dataset, dict) else None
        self._parts = parts
        self.sop_class_uid, self.sop_instance_uid = self._uid("00080016"), self._uid("00080018")
        self.transfer_syntax_uid = self._syntax()

    def _uid(self, key: str) -> str:
        try:
            value = (self._dataset or {})[key]["Value"][0]
        except (KeyError, IndexError, TypeError):
            return ""
        return value if isinstance(value, str) and is_valid_uid(value) else ""

    def _syntax(self) -> str:
        pixels = (self._dataset or {}).get("7FE00010")
        uri = pixels.get("BulkDataURI") if isinstance(pixels, dict) else None
        if isinstance(uri, str):
            try:
                return self._parts.value(uri)[0].transfer_syntax_uid or EXPLICIT_LITTLE_ENDIAN
            except InvalidObject:
                return EXPLICIT_LITTLE_ENDIAN  # said again, to its sender, when the value is read
        return EXPLICIT_LITTLE_ENDIAN

    def chunks(self) -> Iterator[bytes]:
        """The data set in explicit little endian, elements ascending. Raises InvalidObject and its kinds."""
        if self._dataset is None:
            raise InvalidObject("a data set must be an object")
        dataset: dict[str, Any] = {**self._dataset}
        dataset.setdefault("00080005", {"vr": "CS", "Value": ["ISO_IR 192"]})  # JSON text is UTF-8
        plain: dict[str, Any] = {}
        for key in sorted(dataset, key=str.upper):
            element = dataset[key]
            if isinstance(element, dict) and isinstance(element.get("BulkDataURI"), str):
                yield encode(plain, self._small, self._parts.limits)
                plain = {}
                yield from self._large(key, element)
            else:
                plain[key] = element
        yield encode(plain, self._small, self._parts.limits)

    def _small(self, uri: str) -> bytes:
        """A value within a sequence: bounded as one that is not bulk."""
        (value, *more) = self._parts.value(uri)
        if more or value.transfer_syntax_uid:
            raise InvalidObject("compressed frames lie at the top of a data set")
        if value.length > self._parts.limits.value:
            raise InvalidObject(f"a value within a sequence may have {self._parts.limits.value} bytes")
        return b"".join(self._parts.read(value))

    def _large(self, key: str, element: dict[str, Any]) -> Iterator[bytes]:
        """Header and bytes of a value at the top of the data set, never held whole."""
        vr, values = element.get("vr"), self._parts.value(element["BulkDataURI"])
        if not (isinstance(vr, str) and vr in VRS and vr in LONG_VRS and vr != "SQ"):
            raise InvalidObject("a bulk value of a VR that cannot be bulk")
        try:
            tag = int(key, 16)
        except ValueError as error:
            raise InvalidObject("a key is not a tag") from error
        head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") + vr.encode() + b"\0\0"
        if any(value.transfer_syntax_uid for value in values):
            yield head + b"\xff\xff\xff\xff" + _ITEM.pack(0xFFFE, 0xE000, 0)  # an empty offset table
            for value in values:
                yield _ITEM.pack(0xFFFE, 0xE000, value.length + value.length % 2)
                yield from self._parts.read(value)
                yield b"\0" * (value.length % 2)
            yield _ITEM.pack(0xFFFE, 0xE0DD, 0)
            return
        length = sum(value.length for value in values)
        if length > _LONGEST_VALUE:
            raise InvalidObject("a value over 4 GiB")
        yield head + (length + length % 2).to_bytes(4, "little")
        for value in values:
            yield from self._parts.read(value)
        yield b"\0" * (length % 2)


def _path(uri: str) -> str:
    """What of an address counts: senders write it absolute in one place and relative in the other."""
    return uri.split("://", 1)[-1].strip()
