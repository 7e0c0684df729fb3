"""Text of every character set that DICOM has."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_charset_files

from negatoscope.dicom.charset import decode, decode_values, fold
from negatoscope.dicom.uid import transfer_syntax
from negatoscope.dicom.walk import walk
from unit.dicom.samples import read

# PS3.5 H.3.2
YAMADA = b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J"


@pytest.mark.parametrize(
    ("raw", "sets", "expected"),
    [
        (b"Buc^J\xe9r\xf4me", ["ISO_IR 100"], "Buc^Jérôme"),
        (b"Buc^J\xe9r\xf4me", ["ISO 2022 IR 100"], "Buc^Jérôme"),
        (b"W\xb6\xbc\xb5", ["ISO_IR 101"], "Wśźľ"),
        (b"\xbb\xee\xda", ["ISO_IR 144"], "Люк"),
        (b"\xc7\xe4\xe6\xd2\xc7\xd1", ["ISO_IR 127"], "النزار"),
        (b"\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2", ["ISO_IR 126"], "Διονυσιος"),
        (b"\xf9\xf8\xe5\xef", ["ISO_IR 138"], "שרון"),
        (b"\xc7avu\xfeo\xf0lu", ["ISO_IR 148"], "Çavuşoğlu"),
        (b"\xa4\xbd", ["ISO_IR 203"], "€œ"),
        (b"\xb9\xd2\xc1", ["ISO_IR 166"], "นาม"),
        (b"\xd4\xcf\xc0\xde", ["ISO_IR 13"], "ﾔﾏﾀﾞ"),
        ("王^小東".encode(), ["ISO_IR 192"], "王^小東"),
        ("王^小东".encode("gb18030"), ["GB18030"], "王^小东"),
        ("王^小东".encode("gbk"), ["GBK"], "王^小东"),
        (YAMADA, ["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        (b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
         ["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        (b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab", ["", "ISO 2022 IR 58"], "Zhang^XiaoDong=张^小东"),
        (b"\x1b$(D\x22\x2f\x1b(B", ["", "ISO 2022 IR 159"], "\u02d8"),
        (b"Dionysios \x1b-F\xc4\xe9", ["ISO 2022 IR 100", "ISO 2022 IR 126"], "Dionysios Δι"),
        (b"\xe9 \x1b-L\xbb\xee", ["ISO 2022 IR 100", "ISO 2022 IR 144"], "é Лю"),
        (b"\x1b)I\xd4\xcf \x1b(J\\", ["", "ISO 2022 IR 13"], "ﾔﾏ \\"),
        (b"\x1b$@;3\x1b(B", ["", "ISO 2022 IR 87"], "山"),
        (b"\xb0\xa1", ["ISO 2022 IR 149"], "가"),  # multi-byte first, without an escape
        (b"\x1b$)C\xb0\xa1", ["ISO 2022 IR 149"], "가"),
        (b"\xb0\xa1", ["ISO 2022 IR 58"], "啊"),
    ],
)  # fmt: skip
def test_each_character_set_is_decoded(raw: bytes, sets: list[str], expected: str) -> None:
    assert decode(raw, sets, "PN") == expected


@pytest.mark.parametrize(
    "term", ["ISO IR 192", "iso_ir 192 ", "ISO_IR 100", "ISO IR 100", "ISO-IR 100", "ISO 2022-IR 100"]
)
def test_terms_that_are_nearly_right_are_understood(term: str) -> None:
    raw = "é".encode("utf_8" if "192" in term else "latin_1")
    assert decode(raw, [term], "LO") == "é"


@pytest.mark.parametrize("sets", [[], [""], ["ISO_IR 6"], ["nonsense"]])
def test_undeclared_bytes_are_utf8_or_else_latin_1(sets: list[str]) -> None:
    assert decode("Zoé".encode(), sets, "LO") == "Zoé"
    assert decode(b"Zo\xe9", sets, "LO") == "Zoé"
    assert decode(b"Zo\xe9 \x1b(B", sets, "LO") == "Zoé "


def test_codes_are_not_subject_to_the_character_set() -> None:
    assert decode(b"\xd4", ["ISO_IR 13"], "CS") == "Ô"


@pytest.mark.parametrize(
    ("raw", "sets", "expected"),
    [
        (b"a\xff", ["ISO_IR 192"], "a\ufffd"),
        (b"\x1b$Zx", ["", "ISO 2022 IR 87"], "\ufffd$Zx"),
        (b"x\x1b", ["", "ISO 2022 IR 87"], "x\ufffd"),
        (b"\xfc", ["ISO_IR 166"], "\ufffd"),
    ],
)
def test_what_cannot_be_decoded_is_replaced(raw: bytes, sets: list[str], expected: str) -> None:
    assert decode(raw, sets, "LO") == expected


def test_sets_come_back_after_a_delimiter() -> None:
    greek = b"\x1b-F\xe1"
    sets = ["ISO 2022 IR 100", "ISO 2022 IR 126"]
    assert decode(greek + b"^\xe9", sets, "PN") == "α^é"
    assert decode(greek + b"^\xe1", sets, "LO") == "α^α"  # a caret is no delimiter there
    assert decode(greek + b"\\\xe9", sets, "LO") == "α\\é"
    assert decode(greek + b"\\\xe1\n\xe9", sets, "LT") == "α\\α\né"


def test_values_are_split_after_decoding() -> None:
    # the second byte of this letter is that of a backslash
    assert decode_values(b"\x81\\\\a", ["GB18030"], "LO") == ["\u4e57", "a"]
    assert decode_values(b"a\\b", [], "LT") == ["a\\b"]
    assert decode_values(b"a\\b", [], "UR") == ["a\\b"]


@given(
    raw=st.binary(max_size=60),
    sets=st.lists(
        st.sampled_from(
            ["", "ISO_IR 100", "ISO 2022 IR 13", "ISO 2022 IR 87", "ISO 2022 IR 149", "GB18030", "ISO_IR 192"]
        ),
        max_size=3,
    ),
    vr=st.sampled_from(["PN", "LO", "LT", "CS"]),
)
def test_decoding_never_fails_and_gives_what_can_be_written(raw: bytes, sets: list[str], vr: str) -> None:
    decode(raw.replace(b"a", b"\x1b$B").replace(b"b", b"\x1b$)C"), sets, vr).encode()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", [p for p in get_charset_files("*.dcm") if "SQ" not in p], ids=lambda p: p[-20:])
def test_pydicoms_example_files_read_as_pydicom_reads_them(path: str) -> None:
    data, syntax_uid = read(Path(path))
    theirs = dcmread(path)
    sets = theirs.get("SpecificCharacterSet") or ""
    for e in walk(data, transfer_syntax(syntax_uid)):
        if e.vr in ("PN", "LO", "SH", "LT", "ST") and not e.depth and e.length:
            ours = decode(data[e.offset : e.end], [sets] if isinstance(sets, str) else list(sets), e.vr)
            found = theirs[e.tag]
            text = "\\".join(map(str, found.value)) if found.VM > 1 else str(found.value)
            assert ours.rstrip(" =") == text.rstrip(" =")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MÜLLER", "muller"),
        ("Zoë^Éloïse", "zoe^eloise"),
        ("ΣΊΣΥΦΟΣ", "σισυφοσ"),
        ("İ", "i"),
        ("ﬁn", "fin"),
        ("ﾔﾏ", "ヤマ"),
        ("Διονύσης", "διονυσησ"),
        ("홍", "홍"),
        ("ﾀﾞ", "ダ"),
    ],
)
def test_folding_removes_case_and_accents(text: str, expected: str) -> None:
    assert fold(text) == expected


@given(st.text())
def test_folding_twice_changes_nothing_and_forms_do_not_matter(text: str) -> None:
    assert fold(unicodedata.normalize("NFD", text)) == fold(unicodedata.normalize("NFC", text))
    if all(c.lower() == unicodedata.normalize("NFKD", c.lower()) for c in unicodedata.normalize("NFKD", text)):
        assert fold(fold(text)) == fold(text)


@pytest.mark.parametrize(("term", "codec", "text"), [("58", "gb2312", "张^小东"), ("149", "euc_kr", "洪^吉洞")])
def test_the_only_multi_byte_set_is_read_without_its_escape_sequence(term: str, codec: str, text: str) -> None:
    for sets in (("", f"ISO 2022 IR {term}"), ("ISO 2022 IR 6", f"ISO 2022 IR {term}")):
        assert decode(text.encode(codec), sets, "PN") == text
        assert decode(b"plain", sets, "PN") == "plain"
