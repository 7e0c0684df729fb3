"""What the client would like and what we can give (PS3.18 8.7, RFC 9110 12.5.1).

A route lists its :class:`Offer` in its own order of preference; :func:`preferences` answers with every
acceptable :class:`Choice`, best first, and :func:`negotiate` with the best one. Order: weight, then how
precisely the client named it, then the route's order, then the client's.

Clients write DICOM media types in several ways; all of these are read alike:
``multipart/related; type="image/jls"; transfer-syntax=1.2.840.10008.1.2.4.80``, the same without quotes,
and with the transfer syntax inside the quoted type.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from negatoscope.errors import BadRequest, NotAcceptable

ANY = "*"  # transfer-syntax=*: whichever the object is stored in
MULTIPART = "multipart/related"
DICOM = "application/dicom"
DICOM_JSON = "application/dicom+json"
DICOM_XML = "application/dicom+xml"
JSON = "application/json"
OCTET_STREAM = "application/octet-stream"

MAX_RANGES = 64  # elements of one Accept header; browsers send 8, dicomweb-client 10

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110 token, no secret
_ESSENCE = re.compile(rf"\s*({_TOKEN}/{_TOKEN})\s*")
# An unquoted value may hold the slash of a media type: type=application/dicom is what viewers send.
_PARAMETER = re.compile(rf';\s*(?:({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*)))?\s*')
_ESCAPE = re.compile(r"\\(.)")
_WEIGHT = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")
_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One element of an Accept header. Names are lower case."""

    essence: str  # type/subtype; either may be *
    part: str | None = None  # type of the parts, multipart/related only
    transfer_syntax: str | None = None  # UID, ANY, or None where the client does not say
    charset: str | None = None
    weight: float = 1.0

    @property
    def precision(self) -> int:
        """0 for ``*/*`` up to 4 for a multipart type with its part type and transfer syntax."""
        if self.essence == "*/*":
            return 0
        if self.essence.endswith("/*"):
            return 1
        return 2 + (self.part is not None) + (self.transfer_syntax is not None)


@dataclass(frozen=True, slots=True)
class Offer:
    """A representation that a route can give.

    ``transfer_syntaxes``: the UIDs it can come in, the default first. Empty: the route judges each
    choice itself, because what is possible depends on the object.
    """

    essence: str
    part: str | None = None
    transfer_syntaxes: tuple[str, ...] = ()

    def matches(self, wanted: MediaRange) -> bool:
        if wanted.essence == "*/*":
            return True
        if wanted.essence.endswith("/*"):
            return self.essence.startswith(wanted.essence[:-1])
        if wanted.essence != self.essence or not self._part_matches(wanted.part):
            return False
        syntax = wanted.transfer_syntax
        return syntax in (None, ANY) or not self.transfer_syntaxes or syntax in self.transfer_syntaxes

    def _part_matches(self, part: str | None) -> bool:
        if part is None or part == self.part or part == "*/*":
            return True
        return part.endswith("/*") and self.part is not None and self.part.startswith(part[:-1])


@dataclass(frozen=True, slots=True)
class Choice:
    """An offer that the client takes, with the transfer syntax it asked for (None: it did not say)."""

    offer: Offer
    transfer_syntax: str | None
    weight: float

    def content_type(self, boundary: str = "") -> str:
        """The Content-Type header; ``boundary`` for a multipart one."""
        if self.offer.part is None:
            return self.offer.essence
        return f'{self.offer.essence}; type="{self.offer.part}"; boundary={boundary}'


def parse_accept(header: str) -> list[MediaRange]:
    """The elements of an Accept header (or ``accept`` query parameter), in the client's order.

    Raises:
        BadRequest: not the grammar of RFC 9110 12.5.1, or over ``MAX_RANGES`` elements.
    """
    ranges: list[MediaRange] = []
    position = 0
    while position < len(header):
        if header[position] in ", \t":  # empty list elements are allowed, RFC 9110 5.6.1.2
            position += 1
            continue
        if len(ranges) == MAX_RANGES:
            raise BadRequest(f"more than {MAX_RANGES} media types in Accept")
        found, position = _one_range(header, position)
        ranges.append(found)
    return ranges


def preferences(accept: str | None, offers: Sequence[Offer]) -> list[Choice]:
    """Every acceptable choice, best first. An absent or empty header takes all offers.

    For each offer the most precise range decides (RFC 9110 12.5.1), so ``*/*, image/png;q=0`` takes
    anything but PNG. Several ranges equally precise (one a transfer syntax) are each a choice.
    """
    ranges = parse_accept(accept or "") or [MediaRange("*/*")]
    ranked: list[tuple[float, int, int, int, Choice]] = []
    for preference, offer in enumerate(offers):
        matching = [(order, wanted) for order, wanted in enumerate(ranges) if offer.matches(wanted)]
        kind = max((min(wanted.precision, 2 + (offer.part is not None)) for _, wanted in matching), default=0)
        for order, wanted in matching:
            if min(wanted.precision, 2 + (offer.part is not None)) < kind or wanted.weight <= 0:
                continue
            choice = Choice(offer, wanted.transfer_syntax, wanted.weight)
            ranked.append((-wanted.weight, -kind, preference, order, choice))
    ranked.sort(key=lambda entry: entry[:4])
    return [choice for *_, choice in ranked]


def negotiate(accept: str | None, offers: Sequence[Offer]) -> Choice:
    """The best choice. Raises ``NotAcceptable`` when none of the offers is taken."""
    choices = preferences(accept, offers)
    if not choices:
        raise NotAcceptable("this resource comes as " + ", ".join(dict.fromkeys(map(describe, offers))))
    return choices[0]


def describe(offer: Offer) -> str:
    """The offer as one would write it in Accept."""
    return offer.essence if offer.part is None else f'{offer.essence}; type="{offer.part}"'


def accept_of(header: str | None, query_parameter: str | None) -> str | None:
    """What to negotiate on: the ``accept`` query parameter stands in for the header (PS3.18 8.3.3.1)."""
    return query_parameter if query_parameter and query_parameter.strip() else header


def check_charset(query_parameter: str | None) -> None:
    """Text is always UTF-8; a ``charset`` parameter that leaves it out cannot be served (PS3.18 8.3.3.2).

    The Accept-Charset header is ignored, as RFC 9110 12.5.2 lets servers do.

    Raises:
        NotAcceptable: neither ``utf-8`` nor ``*`` is among the names.
    """
    if not query_parameter or not query_parameter.strip():
        return
    names = (piece.split(";")[0].strip().strip('"').lower() for piece in query_parameter.split(","))
    if not {"utf-8", "utf8", "*", "iso_ir 192"} & set(names):
        raise NotAcceptable("text is served in UTF-8 only")


def _one_range(header: str, position: int) -> tuple[MediaRange, int]:
    found = _ESSENCE.match(header, position)
    if not found:
        raise BadRequest(f"Accept is not a list of media types at character {position + 1}")
    essence = found[1].lower()
    if essence.startswith("*/") and essence != "*/*":
        raise BadRequest("Accept: only */* and type/* are wild cards")
    parameters: dict[str, str] = {}
    position = found.end()
    while parameter := _PARAMETER.match(header, position):
        position = parameter.end()
        if parameter[1]:
            value = parameter[3] if parameter[2] is None else _ESCAPE.sub(r"\1", parameter[2])
            parameters.setdefault(parameter[1].lower(), value.strip())
    if position < len(header) and header[position] != ",":
        raise BadRequest(f"Accept is not a list of media types at character {position + 1}")
    return _range_of(essence, parameters), position + 1


def _range_of(essence: str, parameters: dict[str, str]) -> MediaRange:
    part, _, inner = parameters.get("type", "").partition(";")
    name, _, inner_syntax = inner.partition("=")
    syntax = parameters.get("transfer-syntax") or (
        inner_syntax.strip() if name.strip().lower() == "transfer-syntax" else ""
    )
    if syntax and syntax != ANY and not _UID.fullmatch(syntax):
        raise BadRequest("Accept: transfer-syntax is a UID or *")
    weight = parameters.get("q", "1")
    if not _WEIGHT.fullmatch(weight):
        raise BadRequest("Accept: a weight is a number from 0 to 1 with at most three decimals")
    return MediaRange(
        essence=essence,
        part=(part.strip().lower() or None) if essence == MULTIPART else None,
        transfer_syntax=syntax or None,
        charset=parameters.get("charset", "").lower() or None,
        weight=float(weight),
    )
