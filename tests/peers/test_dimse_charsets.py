"""Names in every script: stored by C-STORE, found by C-FIND and QIDO-RS however they are asked for, answered right.

Asked in the character set that the name came in and in UTF-8, with DCMTK's findscu (which sends the bytes that it
is given) and with pynetdicom. All names are invented.
"""

from __future__ import annotations

import json
import logging
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from pydicom.charset import python_encoding
from pydicom.dataset import Dataset
from pynetdicom import AE

from dimse_archive import run
from negatoscope.servers.dicom_client import Proposal, associate
from system import System, system

logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
FINDSCU = Path("/usr/bin/findscu")
CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
STUDY_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
UTF_8 = "ISO_IR 192"


def each_component(encode: Callable[[str], bytes]) -> Callable[[str], bytes]:
    """Code extensions end at ``^``, ``=`` and wild cards, and are begun again behind them (PS3.5 6.1.2.5.3)."""

    def encoded(text: str) -> bytes:
        out, word = b"", ""
        for letter in text + "\0":
            if letter in "^=*? \0":
                out += encode(word) if word else b""
                out, word = out + letter.encode(), ""
            else:
                word += letter
        return out[:-1]

    return encoded


def introduced(escape: bytes, codec: str) -> Callable[[str], bytes]:
    """A multi-byte set in G1, designated wherever a word holds a letter of it."""
    return each_component(lambda word: word.encode() if word.isascii() else escape + word.encode(codec))


@dataclass(frozen=True)
class Script:
    """``declared``: Specific Character Set. ``keys``: what else finds the name, besides itself."""

    label: str
    declared: str
    encode: Callable[[str], bytes]
    name: str
    keys: tuple[str, ...]

    @property
    def study(self) -> str:
        return f"2.25.8800{SCRIPTS.index(self) + 1}"

    @property
    def own(self) -> tuple[str, Callable[[str], bytes]]:
        return self.declared, self.encode


def one_byte(label: str, term: str, codec: str, name: str, *keys: str) -> Script:
    return Script(label, term, lambda text: text.encode(codec), name, keys)


# The keys without accents and with the other case, where the script has them; then exact groups and wild cards.
SCRIPTS = [
    one_byte("Latin 1", "ISO_IR 100", "latin_1", "LÉVÊQUE^Zoë", "leveque^zoe", "LEVE*", "l?veque*", "LÉVÊ*"),
    one_byte("Latin 9", "ISO_IR 203", "iso8859_15", "ŠAŸOLŽ^Chloé", "sayolz^chloe", "SAYO*", "šaŸolž^*", "?ayolz^*"),
    one_byte("Unicode", UTF_8, "utf_8", "NGUYỄN^Thị Ánh", "nguyen^thi anh", "NGUY?N*", "nguyễn^*"),
    Script("Japanese", "\\ISO 2022 IR 87", each_component(lambda word: word.encode("iso2022_jp")),
           "Yamada^Tarou=山田^太郎=やまだ^たろう",
           ("YAMADA^TAROU", "yama*", "山田^太郎", "山*", "やまだ^*", "?田^太郎")),
    Script("Korean", "\\ISO 2022 IR 149", introduced(b"\x1b$)C", "euc_kr"),
           "Hong^Gildong=洪^吉洞=홍^길동", ("HONG^gildong", "hon*", "洪^吉洞", "洪*", "홍^길동", "?^길동")),
    Script("Chinese, ISO 2022", "\\ISO 2022 IR 58", introduced(b"\x1b$)A", "gb2312"),
           "Zhang^XiaoDong=张^小东", ("ZHANG^xiaodong", "zha*", "张^小东", "张*", "?^小东")),
    one_byte("GB 18030", "GB18030", "gb18030", "Wang^XiaoMing=王^小明", "WANG^xiaoming", "王^小明", "王*", "?^小明"),
    one_byte("GBK", "GBK", "gbk", "Li^XiaoLong=李^小龙", "LI^xiaolong", "李^小龙", "李*", "?^小龙"),
    one_byte("Cyrillic", "ISO_IR 144", "iso8859_5", "ЙОЛКИНА^Зоя", "иолкина^зоя", "ИОЛ*", "йолкина^*", "?олкина^Зоя"),
    one_byte("Greek", "ISO_IR 126", "iso8859_7", "Διονύσης^Άννα", "ΔΙΟΝΥΣΗΣ^ΑΝΝΑ", "διονυ*", "διονύ*", "?ιονύσης*"),
    one_byte("Arabic", "ISO_IR 127", "iso8859_6", "قباني^لنزار", "قبا*", "?باني^لنزار"),
    one_byte("Hebrew", "ISO_IR 138", "iso8859_8", "שרון^דבורה", "שר*", "?רון^דבורה"),
    one_byte("Thai", "ISO_IR 166", "iso8859_11", "สมชาย^ใจดี", "สม*", "?มชาย^ใจดี"),
]  # fmt: skip
LABELS = [script.label for script in SCRIPTS]


def element(tag: int, vr: str, value: bytes) -> bytes:
    """Explicit little endian, of a representation with a short length."""
    value += (b"\0" if vr == "UI" else b" ") * (len(value) & 1)
    return (
        (tag >> 16).to_bytes(2, "little")
        + (tag & 0xFFFF).to_bytes(2, "little")
        + vr.encode()
        + len(value).to_bytes(2, "little")
        + value
    )


def data_set(script: Script) -> bytes:
    """An object whose name has exactly the bytes that a modality of that script sends."""
    values = {
        0x00080005: ("CS", script.declared.encode()),
        0x00080016: ("UI", CT.encode()),
        0x00080018: ("UI", f"{script.study}.1.1".encode()),
        0x00080020: ("DA", b"20260102"),
        0x00080060: ("CS", b"CT"),
        0x00100010: ("PN", script.encode(script.name)),
        0x00100020: ("LO", f"S{SCRIPTS.index(script)}".encode()),
        0x0020000D: ("UI", script.study.encode()),
        0x0020000E: ("UI", f"{script.study}.1".encode()),
    }
    return b"".join(element(tag, vr, value) for tag, (vr, value) in sorted(values.items()))


@dataclass(frozen=True)
class Stored:
    system: System
    token: str


@pytest.fixture(scope="module")
def stored() -> Iterator[Stored]:
    with system() as built:
        built.start()
        proposal = Proposal("NEGATOSCOPE", "MODALITY", [(CT, (EXPLICIT,))])
        with associate(built.dicom, proposal) as sender:
            for script in SCRIPTS:
                assert sender.store(CT, f"{script.study}.1.1", EXPLICIT, data_set(script)).status == 0
        yield Stored(built, built.token("reader"))


def groups(name: object) -> str:
    return str(name).rstrip("=")


def keys_of(script: Script) -> tuple[str, ...]:
    return (script.name.split("=")[0], *script.keys)


def check(found: Sequence[Dataset], script: Script, declared: str, key: str) -> None:
    """That study and no other, its name whole, in the caller's character set or in UTF-8."""
    assert [str(one.StudyInstanceUID) for one in found] == [script.study], (key, declared)
    [study] = found
    answered = study.get("SpecificCharacterSet", "")
    answered = answered if isinstance(answered, str) else "\\".join(answered)
    assert answered in (declared, UTF_8), (key, declared)
    assert name_of(study, answered) == script.name, (key, declared, answered)


def name_of(study: Dataset, answered: str) -> str:
    """As pydicom reads it; Latin 9 it does not know."""
    if answered in python_encoding:
        return groups(study.PatientName)
    raw = study.get_item("PatientName").value
    return groups((raw if isinstance(raw, bytes) else raw.original_string).decode("iso8859_15").rstrip())


@pytest.mark.skipif(not FINDSCU.exists(), reason="DCMTK is not installed (apt install dcmtk)")
@pytest.mark.parametrize("script", SCRIPTS, ids=LABELS)
def test_findscu_finds_names_in_their_own_character_set_and_in_unicode(
    stored: Stored, script: Script, tmp_path: Path
) -> None:
    for declared, encode in (script.own, (UTF_8, str.encode)):
        for key in keys_of(script):
            for old in tmp_path.glob("rsp*.dcm"):
                old.unlink()
            # What is not UTF-8 reaches the program as it is: surrogates stand for its bytes.
            wanted = (b"PatientName=" + encode(key)).decode("utf-8", "surrogateescape")
            run([FINDSCU, "-S", "-X", "-od", tmp_path, "-aet", "MODALITY", "-aec", "NEGATOSCOPE",
                 "-k", "QueryRetrieveLevel=STUDY", "-k", f"SpecificCharacterSet={declared}", "-k", "StudyInstanceUID",
                 "-k", wanted, "127.0.0.1", str(stored.system.dicom_port)])  # fmt: skip
            found = [pydicom.dcmread(file, force=True) for file in sorted(tmp_path.glob("rsp*.dcm"))]
            check(found, script, declared, key)


@pytest.mark.parametrize("script", SCRIPTS, ids=LABELS)
def test_pynetdicom_finds_names_in_their_own_character_set_and_in_unicode(stored: Stored, script: Script) -> None:
    terms = [term for term in dict.fromkeys((script.declared, UTF_8)) if term.split("\\")[0] in ("", *python_encoding)]
    entity = AE("MODALITY")
    entity.add_requested_context(STUDY_FIND, EXPLICIT)
    association = entity.associate(*stored.system.dicom, ae_title="NEGATOSCOPE")
    assert association.is_established
    try:
        for declared in terms:
            for key in keys_of(script):
                wanted = Dataset()
                wanted.SpecificCharacterSet = declared.split("\\") if "\\" in declared else declared
                wanted.QueryRetrieveLevel, wanted.StudyInstanceUID, wanted.PatientName = "STUDY", "", key
                answers = list(association.send_c_find(wanted, STUDY_FIND))
                assert answers[-1][0].Status == 0
                check([dataset for _, dataset in answers if dataset is not None], script, declared, key)
    finally:
        association.release()


@pytest.mark.parametrize("script", SCRIPTS, ids=LABELS)
def test_the_web_finds_names_and_answers_in_unicode(stored: Stored, script: Script) -> None:
    for key in keys_of(script):
        query = urllib.parse.urlencode({"PatientName": key})
        request = urllib.request.Request(
            f"{stored.system.url}/dicom-web/studies?{query}",
            headers={"Authorization": f"Bearer {stored.token}", "Accept": "application/dicom+json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            found = json.load(answer) if answer.status == 200 else []
        assert [one["0020000D"]["Value"][0] for one in found] == [script.study], key
        name = found[0]["00100010"]["Value"][0]
        parts = [name.get(group, "") for group in ("Alphabetic", "Ideographic", "Phonetic")]
        assert groups("=".join(parts)) == script.name, key
