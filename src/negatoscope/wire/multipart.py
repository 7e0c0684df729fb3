"""Multipart/related bodies, RFC 2046 5.1, RFC 2387, PS3.18 8.6.1.2: a streaming reader and a writer.

The reader is sans-IO: :meth:`MultipartReader.receive` takes bytes as they come and returns events; it
opens nothing and reads no clock. What it keeps between calls is bounded: the header block of one part,
or a tail shorter than a delimiter. The data of a part is passed on as views of what was received.

A delimiter is CRLF, two hyphens and the boundary. The boundary holds no CR, so a delimiter cut by the
network can only start at the last CR received: that tail alone is held back, nothing else.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from negatoscope.errors import BadRequest, TooLarge

CRLF = b"\r\n"
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,199}[0-9A-Za-z'()+_,./:=?-]\Z")
_PARAMETER = re.compile(r';\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))\s*')
_PADDING = b" \t"


@dataclass(frozen=True, slots=True)
class PartBegan:
    """Header block of a part, names in lower case; the last of a repeated header counts."""

    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PartData:
    """Some bytes of the part that began last: valid for as long as what was passed to ``receive``."""

    data: memoryview


@dataclass(frozen=True, slots=True)
class PartEnded:
    """The part is complete."""


@dataclass(frozen=True, slots=True)
class End:
    """The closing delimiter was seen: the body is whole. What follows is ignored."""


Event = PartBegan | PartData | PartEnded | End
Data = bytes | bytearray


class _State(Enum):
    PREAMBLE = auto()
    AFTER_DELIMITER = auto()
    HEADERS = auto()
    BODY = auto()
    EPILOGUE = auto()


class MultipartReader:
    """Bytes to parts. One reader a body.

    Args:
        boundary: as in the Content-Type parameter, unquoted.
        parts: greatest number of parts.
        header_bytes: greatest length of the header block of one part, also of the preamble and of the
            white space after a delimiter.
    """

    def __init__(self, boundary: str, *, parts: int = 10_000, header_bytes: int = 16 << 10) -> None:
        if not _BOUNDARY.match(boundary):
            raise BadRequest("multipart boundary: 1 to 200 characters of RFC 2046 5.1.1")
        self._delimiter = b"\r\n--" + boundary.encode("ascii")
        self._parts_left, self._parts = parts, parts
        self._header_bytes = header_bytes
        self._held = CRLF  # a body may start with its delimiter: as if a line had ended before
        self._state = _State.PREAMBLE
        self._skipped = 0  # bytes of preamble ignored
        self._lead = 0  # bytes at the start of what is held that are not data (CRLF of the header block)

    @property
    def ended(self) -> bool:
        """The closing delimiter has been seen."""
        return self._state is _State.EPILOGUE

    @property
    def held(self) -> int:
        """Bytes kept for the next call: never more than ``header_bytes`` plus one chunk's tail."""
        return len(self._held)

    def receive(self, data: bytes | bytearray, length: int | None = None) -> list[Event]:
        """Events that ``data`` completes, or its first ``length`` bytes. What views are good for: see PartData.

        Raises:
            BadRequest: the body breaks RFC 2046.
            TooLarge: over ``parts`` or ``header_bytes``.
        """
        stop = len(data) if length is None else length
        if self._held:
            data = self._held + data[:stop]
            stop, self._held = len(data), b""
        events: list[Event] = []
        view, position = memoryview(data), 0
        while True:
            if self._state is _State.BODY:
                position, more = self._body(data, view, position, stop, events)
            elif self._state is _State.AFTER_DELIMITER:
                position, more = self._after_delimiter(data, position, stop, events)
            elif self._state is _State.HEADERS:
                position, more = self._headers(data, position, stop, events)
            elif self._state is _State.PREAMBLE:
                position, more = self._preamble(data, position, stop)
            else:
                return events
            if not more:
                self._held = bytes(data[position:stop])
                return events

    def _tail(self, data: Data, position: int, stop: int) -> int:
        """Where a delimiter may have begun that does not end before ``stop``; else ``stop``."""
        start = data.rfind(b"\r", max(position, stop - len(self._delimiter) + 1), stop)
        return start if start >= 0 and self._delimiter.startswith(bytes(data[start:stop])) else stop

    def _preamble(self, data: Data, position: int, stop: int) -> tuple[int, bool]:
        found = data.find(self._delimiter, position, stop)
        end = self._tail(data, position, stop) if found < 0 else found
        self._skipped += end - position
        if self._skipped > self._header_bytes:
            raise TooLarge(f"multipart preamble: over {self._header_bytes} bytes")
        if found < 0:
            return end, False
        self._state = _State.AFTER_DELIMITER
        return found + len(self._delimiter), True

    def _after_delimiter(self, data: Data, position: int, stop: int, events: list[Event]) -> tuple[int, bool]:
        """Either two hyphens (the end), or white space and CRLF (a part). That CRLF is left standing: a
        part without headers has nothing before its empty line."""
        if data.startswith(b"--", position, stop):
            events.append(End())
            self._state = _State.EPILOGUE
            return stop, True
        end = position
        while end < stop and data[end] in _PADDING:
            end += 1
        if end - position > self._header_bytes:
            raise TooLarge(f"multipart delimiter: over {self._header_bytes} bytes of white space")
        rest = bytes(data[end : min(end + 2, stop)])
        if rest == CRLF:
            if self._parts_left == 0:
                raise TooLarge(f"multipart body: over {self._parts} parts")
            self._parts_left -= 1
            self._state = _State.HEADERS
            return end, True
        if CRLF.startswith(rest) or (rest == b"-" and end == position):
            return position, False
        raise BadRequest("multipart delimiter: neither CRLF nor -- follows the boundary")

    def _headers(self, data: Data, position: int, stop: int, events: list[Event]) -> tuple[int, bool]:
        end = data.find(b"\r\n\r\n", position, stop)
        length = (stop if end < 0 else end) - position
        if length > self._header_bytes:
            raise TooLarge(f"multipart part: header block over {self._header_bytes} bytes")
        if end < 0:
            return position, False
        events.append(PartBegan(_parse_headers(bytes(data[position + 2 : end]))))
        # An empty part may have its delimiter's CRLF and its empty line in one: look from there.
        self._state, self._lead = _State.BODY, len(CRLF)
        return end + 2, True

    def _body(self, data: Data, view: memoryview, position: int, stop: int, events: list[Event]) -> tuple[int, bool]:
        found = data.find(self._delimiter, position, stop)
        end = self._tail(data, position, stop) if found < 0 else found
        if end > position:
            if end > position + self._lead:
                events.append(PartData(view[position + self._lead : end]))
            self._lead = 0
        if found < 0:
            return end, False
        events.append(PartEnded())
        self._state = _State.AFTER_DELIMITER
        return found + len(self._delimiter), True


def _parse_headers(block: bytes) -> dict[str, str]:
    """Header lines, folded ones joined. Raises BadRequest on a line that is none."""
    headers: dict[str, str] = {}
    name = ""
    for line in block.decode("latin-1").split("\r\n") if block else []:
        if line[:1] in (" ", "\t"):
            if not name:
                raise BadRequest("multipart part: a header block cannot start with a continuation")
            headers[name] = f"{headers[name]} {line.strip()}"
            continue
        name, colon, value = line.partition(":")
        name = name.strip().lower()
        if not colon or not name:
            raise BadRequest("multipart part: a header line without a name")
        headers[name] = value.strip()
    return headers


def parse_content_type(value: str) -> tuple[str, dict[str, str]]:
    """Media type in lower case and its parameters (names in lower case, values unquoted)."""
    kind, _, rest = value.partition(";")
    parameters = {
        name.lower(): re.sub(r"\\(.)", r"\1", quoted) if quoted else plain
        for name, quoted, plain in _PARAMETER.findall(";" + rest)
    }
    return kind.strip().lower(), parameters


def new_boundary() -> str:
    """128 random bits: cannot be met in pixel data by chance, nor be guessed by who made the data."""
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class MultipartWriter:
    """The bytes around parts. ``part_head`` + data for each part, then ``closing``."""

    boundary: str

    def part_head(self, headers: Mapping[str, str], *, first: bool = False) -> bytes:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"{'' if first else CRLF.decode()}--{self.boundary}\r\n{lines}\r\n".encode("latin-1")

    @property
    def closing(self) -> bytes:
        return f"\r\n--{self.boundary}--\r\n".encode("ascii")

    def content_type(self, kind: str) -> str:
        """Value of the response's Content-Type; ``kind`` is the media type of the parts."""
        return f'multipart/related; type="{kind}"; boundary={self.boundary}'
