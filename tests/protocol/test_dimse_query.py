"""What query/retrieve negotiates, how answers are written, how sub-operations are counted: without a network."""

from __future__ import annotations

import io
from typing import Any

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimse_fakes import CT, EXPLICIT, IMPLICIT, TITLE, VERIFICATION, actor
from negatoscope.dicom.answers import AnswerWriter
from negatoscope.dicom.charset import codec_of
from negatoscope.dicom.json_model import to_json
from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.model.actor import Right
from negatoscope.model.stored import Container, InstanceRecord, Location
from negatoscope.servers.dicom_find import find_information
from negatoscope.servers.dicom_move import batches
from negatoscope.servers.dicom_negotiation import SERVICES, accept
from negatoscope.servers.dicom_pixels import choose
from negatoscope.servers.dicom_query import SOP_CLASSES
from negatoscope.servers.dicom_query_retrieve import FIND, GET, MOVE
from negatoscope.servers.dicom_retrieve import Item, Tally, even, retrieve_information
from negatoscope.wire.dimse import Element
from negatoscope.wire.dul.items import ExtendedNegotiation, PresentationContext, RoleSelection, UserInformation
from negatoscope.wire.dul.pdu import AssociateAccept, AssociateRequest, data_pdu, data_pdus

PATIENT_FIND, STUDY_FIND = "1.2.840.10008.5.1.4.1.2.1.1", "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_MOVE, STUDY_GET = "1.2.840.10008.5.1.4.1.2.2.2", "1.2.840.10008.5.1.4.1.2.2.3"
BIG, RLE, J2K_LOSSLESS, JPEG = (
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.50",
)
ALL = (*SERVICES, FIND, MOVE, GET)


# Negotiation ---------------------------------------------------------------------------------------


def negotiate(
    proposed: list[tuple[str, tuple[str, ...]]], *rights: Right, services: Any = ALL, **user: Any
) -> AssociateAccept:
    contexts = tuple(PresentationContext(2 * n + 1, *one) for n, one in enumerate(proposed))
    asked = AssociateRequest(TITLE, "WS", contexts, UserInformation(16384, **user))
    return accept(asked, actor(*rights), DEFAULT_LIMITS, services)


def results(accepted: AssociateAccept) -> list[int]:
    return [answer.result for answer in accepted.contexts]


@pytest.mark.parametrize("uid", SOP_CLASSES)
@pytest.mark.parametrize("right", [Right.QUERY, Right.RETRIEVE, Right.STORE, Right.WORKLIST])
def test_each_class_is_accepted_from_whoever_has_its_right_alone(uid: str, right: Right) -> None:
    needed = Right.QUERY if uid.endswith(".1") else Right.RETRIEVE
    assert results(negotiate([(uid, (IMPLICIT,))], right)) == [0 if right is needed else 1]
    assert results(negotiate([(uid, (IMPLICIT,))], right, services=SERVICES)) == [3]


@pytest.mark.parametrize(
    ("syntaxes", "taken"), [((EXPLICIT, IMPLICIT), EXPLICIT), ((BIG, IMPLICIT), IMPLICIT), ((BIG, RLE), None)]
)
def test_identifiers_are_taken_in_little_endian(syntaxes: tuple[str, ...], taken: str | None) -> None:
    [answer] = negotiate([(STUDY_FIND, syntaxes)], Right.QUERY).contexts
    assert (answer.result, answer.transfer_syntax) == ((0, taken) if taken else (4, BIG))


@pytest.mark.parametrize(
    ("rights", "role", "accepted", "answered"),
    [
        ((Right.RETRIEVE,), (False, True), True, (False, True)),
        ((Right.RETRIEVE,), (True, True), True, (False, True)),
        ((Right.STORE,), (False, True), False, None),
        ((Right.STORE,), (True, True), True, (True, False)),
        ((Right.STORE, Right.RETRIEVE), (True, True), True, (True, True)),
        ((Right.STORE, Right.RETRIEVE), (False, False), False, None),
        ((Right.RETRIEVE,), None, False, None),
        ((Right.STORE,), None, True, None),
        ((Right.QUERY,), (True, True), False, None),
    ],
)
def test_who_may_retrieve_may_be_sent_objects_and_who_may_store_may_send_them(
    rights: tuple[Right, ...], role: tuple[bool, bool] | None, accepted: bool, answered: tuple[bool, bool] | None
) -> None:
    roles = (RoleSelection(CT, *role),) if role else ()
    answer = negotiate([(CT, (EXPLICIT,))], *rights, roles=roles)
    assert results(answer) == [0 if accepted else 1]
    assert answer.user.roles == ((RoleSelection(CT, *answered),) if answered else ())


def test_without_c_get_nobody_is_sent_objects() -> None:
    answer = negotiate([(CT, (EXPLICIT,))], *Right, services=SERVICES, roles=(RoleSelection(CT, True, True),))
    assert answer.user.roles == (RoleSelection(CT, True, False),)


def test_a_requestor_cannot_be_provider_of_our_services() -> None:
    roles = (RoleSelection(STUDY_FIND, False, True), RoleSelection(VERIFICATION, False, True))
    assert results(negotiate([(STUDY_FIND, (IMPLICIT,)), (VERIFICATION, (IMPLICIT,))], *Right, roles=roles)) == [1, 1]


@pytest.mark.parametrize(
    ("proposed", "granted"),
    [
        (b"", b""),
        (b"\1", b"\1"),
        (b"\0", b"\0"),
        (b"\1\1\1", b"\1\0\1"),
        (b"\1\1\1\1\1", b"\1\0\1\0\0"),
        (b"\1\1\1\1\1\1\1", b"\1\0\1\0\0\1\1"),
        (b"\1\1\1\1\1\1\1\1\1", b"\1\0\1\0\0\1\1"),
        (b"\0\0\0\0\0\1\0", b"\0\0\0\0\0\1\0"),
    ],
)
def test_a_query_gets_of_its_options_what_we_have(proposed: bytes, granted: bytes) -> None:
    assert find_information(proposed) == granted
    answer = negotiate(
        [(STUDY_FIND, (IMPLICIT,))],
        Right.QUERY,
        extended=(ExtendedNegotiation(STUDY_FIND, proposed), ExtendedNegotiation(PATIENT_FIND, proposed)),
    )
    assert answer.user.extended == (ExtendedNegotiation(STUDY_FIND, granted),)


@pytest.mark.parametrize(("proposed", "granted"), [(b"\1", b"\1"), (b"\1\1", b"\1\0"), (b"\0\1", b"\0\0"), (b"", b"")])
def test_a_retrieve_gets_relations_and_no_conversion(proposed: bytes, granted: bytes) -> None:
    assert retrieve_information(proposed) == granted


# Answers -------------------------------------------------------------------------------------------

ANSWER: dict[str, dict[str, Any]] = {
    "00080020": {"vr": "DA", "Value": ["20260102"]},
    "00080052": {"vr": "CS", "Value": ["STUDY"]},
    "00080061": {"vr": "CS", "Value": ["CT", "MR", "PR"]},
    "00080090": {"vr": "PN"},
    "00081030": {"vr": "LO", "Value": ["Thorax"]},
    "00081032": {"vr": "SQ", "Value": [{"00080100": {"vr": "SH", "Value": ["T-1"]}}, {}]},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "A^B", "Phonetic": "a^b"}]},
    "00101020": {"vr": "DS", "Value": [1.75]},
    "0020000D": {"vr": "UI", "Value": ["1.2.345"]},
    "00200013": {"vr": "IS", "Value": [7]},
    "00280009": {"vr": "AT", "Value": ["00181063"]},
    "00280010": {"vr": "US", "Value": [512]},
    "00280106": {"vr": "US", "Value": []},
    "00720076": {"vr": "FL", "Value": [0.5, 2.0]},
}


def read(data: bytes, explicit: bool) -> pydicom.Dataset:
    return pydicom.filereader.read_dataset(io.BytesIO(data), not explicit, True)


@pytest.mark.parametrize("explicit", [True, False])
def test_pydicom_and_our_own_reader_read_answers_as_they_were_meant(explicit: bool) -> None:
    data = AnswerWriter(explicit).encode(ANSWER)
    found = read(data, explicit)
    assert "SpecificCharacterSet" not in found
    assert (found.StudyDate, list(found.ModalitiesInStudy), found.ReferringPhysicianName) == (
        "20260102", ["CT", "MR", "PR"], "",
    )  # fmt: skip
    assert found.ProcedureCodeSequence[0].CodeValue == "T-1"
    assert len(found.ProcedureCodeSequence[1]) == 0
    assert (found.PatientName, found.PatientSize, found.StudyInstanceUID) == ("A^B==a^b", 1.75, "1.2.345")
    assert (found.InstanceNumber, found.Rows, found.FrameIncrementPointer) == (7, 512, 0x00181063)
    empty = {key: {"vr": element["vr"]} if element.get("Value") == [] else element for key, element in ANSWER.items()}
    assert to_json(data, EXPLICIT if explicit else IMPLICIT, None) == empty


TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\\^="), max_size=20)


@pytest.mark.parametrize("explicit", [True, False])
@given(name=TEXT, description=TEXT, declared=st.sampled_from(["", "ISO_IR 100", "ISO_IR 144", "GB18030", "ISO_IR 192"]))
def test_any_text_survives_in_the_character_set_that_the_answer_names(
    explicit: bool, name: str, description: str, declared: str
) -> None:
    name, description = name.strip(), description.strip()
    answer: dict[str, dict[str, Any]] = {
        "00081030": {"vr": "LO", "Value": [description]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": name}]},
    }
    data = AnswerWriter(explicit, (declared,)).encode(answer)
    found = read(data, explicit)
    assert str(found.get("SpecificCharacterSet", "")) in {declared, "ISO_IR 192"}
    found.decode()
    assert str(found.PatientName).rstrip("^ ") == name.rstrip("^ ")
    assert found.StudyDescription == description


@pytest.mark.parametrize(
    ("declared", "text", "named"),
    [
        ((), "Muller", None),
        ((), "Müller", "ISO_IR 192"),
        (("",), "Müller", "ISO_IR 192"),
        (("ISO_IR 100",), "Muller", "ISO_IR 100"),
        (("ISO_IR 100",), "Müller", "ISO_IR 100"),
        (("ISO_IR 100",), "Мюллер", "ISO_IR 192"),
        (("ISO 2022 IR 100", "ISO 2022 IR 126"), "Müller", "ISO 2022 IR 100"),
        (("ISO 2022 IR 100", "ISO 2022 IR 126"), "Διον", "ISO_IR 192"),
        (("", "ISO 2022 IR 87"), "山田", "ISO_IR 192"),
        (("ISO_IR 13",), "ﾔﾏﾀﾞ", "ISO_IR 192"),
        (("ISO_IR 999",), "Müller", "ISO_IR 192"),
        (("GB18030",), "Müller", "GB18030"),
    ],
)
def test_the_character_set_is_the_caller_s_when_it_holds_the_answer(
    declared: tuple[str, ...], text: str, named: str | None
) -> None:
    data = AnswerWriter(True, declared).encode({"00081030": {"vr": "LO", "Value": [text]}})
    found = read(data, True)
    assert found.get("SpecificCharacterSet") == named
    found.decode()
    assert found.StudyDescription == text


def test_a_code_with_foreign_letters_stays_within_the_repertoire_of_codes() -> None:
    data = AnswerWriter(True).encode({"00080061": {"vr": "CS", "Value": ["C\u00c9"]}})
    assert data == b"\x08\x00\x61\x00CS\x02\x00C?"


@pytest.mark.parametrize("size", [253, 254, 255, 256, 257, 65_533, 65_534, 65_535, 65_536])
@pytest.mark.parametrize("explicit", [True, False])
def test_values_of_any_length_are_written(size: int, explicit: bool) -> None:
    data = AnswerWriter(explicit).encode({"00080058": {"vr": "UI", "Value": ["1" * size]}})
    assert (data[4:6] == b"UN") is (explicit and size > 65_534)
    found = read(data, explicit)["FailedSOPInstanceUIDList"].value
    assert (found.rstrip(b"\0").decode() if isinstance(found, bytes) else found) == "1" * size


def test_inline_binary_values_are_written() -> None:
    assert AnswerWriter(True).encode({"00420011": {"vr": "OB", "InlineBinary": "AQID"}})[-4:] == b"\1\2\3\0"


@pytest.mark.parametrize(
    ("term", "codec"),
    [("ISO_IR 100", "latin_1"), (" iso_ir 192 ", "utf_8"), ("ISO 2022 IR 144", "iso8859_5"), ("ISO_IR 13", None),
     ("ISO 2022 IR 87", None), ("", None), ("ISO_IR 6", None), ("GBK", "gb18030")],
)  # fmt: skip
def test_sets_that_need_no_code_extension_have_a_codec(term: str, codec: str | None) -> None:
    assert codec_of(term) == codec


@pytest.mark.parametrize("command", [True, False])
@pytest.mark.parametrize("size", [0, 1, 100, 16_376])
def test_a_whole_message_in_one_pdu_is_framed_as_in_pieces(size: int, command: bool) -> None:
    payload = bytes(size)
    pieces = data_pdus(7, payload, command, 16_382)
    assert data_pdu(7, payload, command) == b"".join(part for pair in pieces for part in pair)


# Sub-operations ------------------------------------------------------------------------------------


def item(sop_class: str = CT, syntax: str = EXPLICIT, uid: str = "1.2.3") -> Item:
    location = Location(Container.SEGMENT, 1, 0, 1, b"\0\0\0\0")
    return Item("1.2", InstanceRecord(uid, sop_class, syntax, 1, 1, 1, None, b"", location))


def test_answers_of_a_receiver_are_counted_by_their_kind() -> None:
    tally = Tally(7)
    for status in (0x0000, 0xB000, 0xB007, 0x0107, 0xA700, 0x0122):
        tally.note(item(), status)
    assert (tally.completed, tally.warned, len(tally.failures), tally.remaining) == (1, 3, 2, 1)
    assert tally.values(unfinished=True)[Element.REMAINING_SUBOPERATIONS] == 1
    assert Element.REMAINING_SUBOPERATIONS not in tally.values(unfinished=False)


@pytest.mark.parametrize("total", [65_534, 65_535, 65_536])
def test_counts_that_have_no_room_in_two_bytes_stop_at_the_largest(total: int) -> None:
    assert Tally(total).values(unfinished=True)[Element.REMAINING_SUBOPERATIONS] == min(total, 65_535)


@pytest.mark.parametrize(
    ("stored", "accepted", "chosen"),
    [
        (EXPLICIT, [IMPLICIT, EXPLICIT], EXPLICIT),
        (RLE, [IMPLICIT, RLE, EXPLICIT], RLE),
        (RLE, [IMPLICIT, EXPLICIT, J2K_LOSSLESS], EXPLICIT),
        (EXPLICIT, [IMPLICIT], IMPLICIT),
        (EXPLICIT, [J2K_LOSSLESS], J2K_LOSSLESS),
        (EXPLICIT, [JPEG], None),
        (JPEG, [EXPLICIT], EXPLICIT),
        ("1.2.826.0.1.3680043.99.2", [EXPLICIT, IMPLICIT], None),
        ("1.2.826.0.1.3680043.99.2", ["1.2.826.0.1.3680043.99.2"], "1.2.826.0.1.3680043.99.2"),
        (EXPLICIT, [], None),
    ],
)
def test_an_object_leaves_as_stored_else_uncompressed_and_never_with_loss(
    stored: str, accepted: list[str], chosen: str | None
) -> None:
    assert choose(stored, accepted) == chosen


def test_fragments_of_what_is_transcoded_are_even() -> None:
    assert list(even(iter([b"ab", b"cde"]))) == [b"ab", b"cde\0"]
    assert list(even(iter([b"ab"]))) == [b"ab"]


def test_a_class_is_proposed_as_stored_and_in_both_that_everybody_takes() -> None:
    [(batch, contexts)] = batches([item(), item(syntax=RLE), item(uid="1.2.4")], 128)
    assert len(batch) == 3
    assert contexts == [(CT, (EXPLICIT,)), (CT, (IMPLICIT,)), (CT, (RLE,))]


@pytest.mark.parametrize(("classes", "associations"), [(63, 1), (64, 1), (65, 2), (128, 2), (129, 3)])
def test_more_classes_than_an_association_has_contexts_take_another(classes: int, associations: int) -> None:
    items = [item(f"1.2.3.{number}") for number in range(classes)]
    found = list(batches(items, 128))
    assert [one for batch, _ in found for one in batch] == items
    assert len(found) == associations
    assert all(len(contexts) <= 128 for _, contexts in found)
