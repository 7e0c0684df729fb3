"""Text of a data set: PS3.3 C.12.1.1.2 (Specific Character Set) and PS3.5 6.1 (ISO 2022).

Decoding never fails: a worn character must not lose an image. What has no meaning in the declared
sets becomes U+FFFD. Bytes over 127 where nothing was declared are read as UTF-8 if they are that,
else as Latin 1, which is what European modalities that forget the attribute send.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

ESCAPE = 0x1B
REPLACEMENT = "\ufffd"
# Value representations that Specific Character Set applies to, PS3.5 6.1.2.3.
TEXT_VRS = frozenset(["LO", "LT", "PN", "SH", "ST", "UC", "UT"])
_PARAGRAPH_VRS = frozenset(["LT", "ST", "UT"])  # a backslash is a letter in these

UNICODE = "ISO_IR 192"

# Single byte sets: ISO_IR number to Python's codec of both halves (G0 is ASCII, or nearly).
_SINGLE = {
    "100": "latin_1",
    "101": "iso8859_2",
    "109": "iso8859_3",
    "110": "iso8859_4",
    "144": "iso8859_5",
    "127": "iso8859_6",
    "126": "iso8859_7",
    "138": "iso8859_8",
    "148": "iso8859_9",
    "203": "iso8859_15",
    "13": "shift_jis",  # JIS X 0201: its one-byte part is the same
    "166": "iso8859_11",
}
# Multi-byte sets without code extensions. GB 18030 contains GBK.
_WHOLE = {"ISO_IR 192": "utf_8", "GB18030": "gb18030", "GBK": "gb18030", "ISO 2022 GBK": "gb18030"}


@dataclass(frozen=True, slots=True)
class _Set:
    """One designated set of characters."""

    codec: str
    prefix: bytes = b""  # what the codec wants before a run of it
    width: int = 1  # bytes a character


_ASCII = _Set("ascii")
_ROMAJI = _Set("shift_jis")
_KATAKANA = _Set("shift_jis")
_KANJI = _Set("iso2022_jp", b"\x1b$B", 2)
_KANJI_MORE = _Set("iso2022_jp_2", b"\x1b$(D", 2)
_HANGUL = _Set("euc_kr", b"", 2)
_HANZI = _Set("gb2312", b"", 2)

# Escape sequence to (code element, set), PS3.3 tables C.12-3 and C.12-4. 0: bytes below 128, 1: above.
_ESCAPES: dict[bytes, tuple[int, _Set]] = {
    b"(B": (0, _ASCII),
    b"(J": (0, _ROMAJI),
    b")I": (1, _KATAKANA),
    b"$B": (0, _KANJI),
    b"$@": (0, _KANJI),  # the 1978 edition, sent by some
    b"$(D": (0, _KANJI_MORE),
    b"$)C": (1, _HANGUL),
    b"$)A": (1, _HANZI),
    **{
        b"-" + final: (1, _Set(_SINGLE[number]))
        for final, number in {
            b"A": "100",
            b"B": "101",
            b"C": "109",
            b"D": "110",
            b"L": "144",
            b"G": "127",
            b"F": "126",
            b"H": "138",
            b"M": "148",
            b"b": "203",
            b"T": "166",
        }.items()
    },
}
# Multi-byte sets cannot be first, but are: senders then use them without an escape sequence.
_FIRST = {"149": (_ASCII, _HANGUL), "58": (_ASCII, _HANZI), "13": (_ROMAJI, _KATAKANA)}

_TERM = re.compile(r"(?:ISO_IR|ISO[ _-]?2022[ _-]?IR|ISO)[ _-]?([0-9]+)")
_UPPER_RUN = re.compile(rb"[\x80-\xff]+")
_GRAPHIC_RUN = re.compile(rb"[\x21-\x7e]+")
# Characters that bring the first sets back, PS3.5 6.1.2.5.3.
_RESETS_PARAGRAPH = b"\t\n\f\r"
_RESETS = _RESETS_PARAGRAPH + b"\\"
_RESETS_PN = _RESETS + b"^="


@dataclass(frozen=True, slots=True)
class _Repertoire:
    """What a value of Specific Character Set means."""

    codec: str | None  # decode the whole with it; None: as said on top of this file
    extended: bool  # escape sequences may occur
    lower: _Set
    upper: _Set | None


@lru_cache(maxsize=256)
def _repertoire(character_sets: tuple[str, ...]) -> _Repertoire:
    first = character_sets[0].strip().upper() if character_sets else ""
    whole = _WHOLE.get(first) or _WHOLE.get(first.replace("ISO IR", "ISO_IR"))
    if whole:
        return _Repertoire(whole, False, _ASCII, None)
    extended = len(character_sets) > 1 or "2022" in first
    term = _TERM.fullmatch(first)
    number = term[1] if term else "6"
    if number == "6" and len(character_sets) == 2:  # some leave out the escape sequence of the only set
        second = _TERM.fullmatch(character_sets[1].strip().upper())
        number = second[1] if second and second[1] in ("149", "58") else number
    if number in _FIRST:
        lower, upper = _FIRST[number]
        return _Repertoire(upper.codec, extended, lower, upper)
    codec = _SINGLE.get(number)
    return _Repertoire(codec, extended, _ASCII, _Set(codec) if codec else None)


def codec_of(character_set: str) -> str | None:
    """Python's codec that writes text in this defined term, without code extensions; ``None``: there is none.

    Not for the sets of which Python's codec holds more letters than the standard's (ISO_IR 13).
    """
    term = character_set.strip().upper()
    found = _WHOLE.get(term)
    if found is None:
        number = _TERM.fullmatch(term)
        found = _SINGLE.get(number[1]) if number and number[1] != "13" else None
    return found


def decode(raw: bytes, character_sets: Sequence[str], vr: str) -> str:
    """The text of a value, backslashes between values and padding included.

    Args:
        raw: bytes of the value.
        character_sets: values of Specific Character Set (0008,0005) in force, may be empty.
        vr: of the value; the character sets apply to SH, LO, ST, LT, UC, UT and PN only.
    """
    if raw.isascii() and ESCAPE not in raw:
        return raw.decode("ascii")
    repertoire = _repertoire(tuple(character_sets)) if vr in TEXT_VRS else _repertoire(())
    if ESCAPE in raw and (repertoire.extended or repertoire.codec is None):
        return _decode_extended(raw, repertoire, vr)
    if repertoire.codec:
        return raw.decode(repertoire.codec, "replace")
    return _undeclared(raw)


def _undeclared(raw: bytes) -> str:
    try:
        return raw.decode("utf_8")
    except UnicodeDecodeError:
        return raw.decode("latin_1")


def _decode_extended(raw: bytes, first: _Repertoire, vr: str) -> str:
    """ISO 2022: escape sequences designate the lower (G0) or upper (G1) set until a delimiter."""
    resets = _RESETS_PN if vr == "PN" else _RESETS_PARAGRAPH if vr in _PARAGRAPH_VRS else _RESETS
    lower, upper = first.lower, first.upper
    text: list[str] = []
    position = 0
    while position < len(raw):
        byte = raw[position]
        if byte == ESCAPE:
            length = 4 if raw[position + 1 : position + 3] in (b"$(", b"$)") else 3
            designated = _ESCAPES.get(raw[position + 1 : position + length])
            if designated is None:
                text.append(REPLACEMENT)
                position += 1
                continue
            element, chosen = designated
            lower, upper = (chosen, upper) if element == 0 else (lower, chosen)
            position += length
            continue
        if byte >= 0x80:
            run = _read(_UPPER_RUN, raw, position)
            text.append(run.decode(upper.codec, "replace") if upper else _undeclared(run))
        elif lower.width > 1 and 0x21 <= byte <= 0x7E:
            # A delimiter cannot be told from half a letter here, so the standard wants ASCII
            # designated again before each (PS3.5 6.1.2.5.3).
            run = _read(_GRAPHIC_RUN, raw, position)
            text.append((lower.prefix + run).decode(lower.codec, "replace"))
        else:
            if byte in resets:
                lower, upper = first.lower, first.upper
            run = raw[position : position + 1]
            text.append(run.decode("ascii"))
        position += len(run)
    return "".join(text)


def _read(pattern: re.Pattern[bytes], raw: bytes, position: int) -> bytes:
    found = pattern.match(raw, position)
    return found[0] if found else b""


def decode_values(raw: bytes, character_sets: Sequence[str], vr: str) -> list[str]:
    """The values of an element, padding not yet stripped. ST, LT, UT and UR have one, always.

    Splitting comes after decoding: in GBK and in the two-byte Japanese sets a backslash byte may be
    half a letter.
    """
    text = decode(raw, character_sets, vr)
    return [text] if vr in _PARAGRAPH_VRS or vr == "UR" else text.split("\\")


def fold(text: str) -> str:
    """Case and accents removed: what is compared when people search. The same as SQL ``fold``.

    Letter by letter, as PostgreSQL does it, so every sigma is made the one within words. What is left is composed
    again: a Hangul syllable or a voiced kana is one character to a wild card.
    """
    if text.isascii():
        return text.lower()
    bare = "".join(c.lower() for c in unicodedata.normalize("NFKD", text) if not "\u0300" <= c <= "\u036f")
    return unicodedata.normalize("NFC", bare).replace("ς", "σ")
