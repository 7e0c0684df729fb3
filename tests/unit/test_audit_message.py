"""PS3.15 A.5.1: the audit message schema, element by element, as a table."""

from __future__ import annotations

from base64 import b64decode
from datetime import UTC, datetime
from xml.etree.ElementTree import Element, fromstring

import pytest

from negatoscope.audit import events
from negatoscope.audit.events import Disclosure
from negatoscope.audit.message import EVENT_NAMES, to_xml
from negatoscope.model.actor import Actor, ActorKind, Purpose, Right, Role, Scope
from negatoscope.model.event import AuditEvent, EventKind
from negatoscope.model.source import Door, Source

AT = datetime(2026, 11, 22, 12, 0, 0, 123456, UTC)
ACTOR = Actor(7, ActorKind.USER, "dr", Role.RADIOLOGIST, 1, "A", "2.25.1", frozenset(Right), session="s")
SCOPE = Scope(ACTOR)
SOURCE = Source(9, 1, "A", "2.25.1", "CT1", "192.0.2.7", Door.DIMSE)
CT = "1.2.840.10008.5.1.4.1.1.2"

CODED = {"csd-code", "codeSystemName", "originalText"}
# element: (attributes required, attributes allowed besides, children in order with how often they may stand)
SCHEMA: dict[str, tuple[set[str], set[str], list[tuple[str, str]]]] = {
    "AuditMessage": (
        set(),
        set(),
        [
            ("EventIdentification", "1"),
            ("ActiveParticipant", "+"),
            ("AuditSourceIdentification", "1"),
            ("ParticipantObjectIdentification", "*"),
        ],
    ),
    "EventIdentification": (
        {"EventDateTime", "EventOutcomeIndicator"},
        {"EventActionCode"},
        [("EventID", "1"), ("EventTypeCode", "*"), ("EventOutcomeDescription", "?")],
    ),
    "EventID": (CODED, {"displayName"}, []),
    "EventTypeCode": (CODED, {"displayName"}, []),
    "RoleIDCode": (CODED, {"displayName"}, []),
    "ParticipantObjectIDTypeCode": (CODED, {"displayName"}, []),
    "ActiveParticipant": (
        {"UserID", "UserIsRequestor"},
        {"AlternativeUserID", "UserName", "NetworkAccessPointID", "NetworkAccessPointTypeCode"},
        [("RoleIDCode", "*"), ("MediaIdentifier", "?")],
    ),
    "AuditSourceIdentification": ({"AuditSourceID"}, {"AuditEnterpriseSiteID"}, [("AuditSourceTypeCode", "*")]),
    "AuditSourceTypeCode": ({"csd-code"}, set(), []),
    "ParticipantObjectIdentification": (
        {"ParticipantObjectID"},
        {"ParticipantObjectTypeCode", "ParticipantObjectTypeCodeRole"},
        [
            ("ParticipantObjectIDTypeCode", "1"),
            ("ParticipantObjectName", "?"),
            ("ParticipantObjectQuery", "?"),
            ("ParticipantObjectDetail", "*"),
            ("ParticipantObjectDescription", "*"),
        ],
    ),
    "ParticipantObjectName": (set(), set(), []),
    "ParticipantObjectQuery": (set(), set(), []),
    "ParticipantObjectDetail": ({"type", "value"}, set(), []),
    "ParticipantObjectDescription": (set(), set(), [("SOPClass", "*")]),
    "SOPClass": ({"NumberOfInstances"}, {"UID"}, []),
}


def check(element: Element) -> None:
    """Raise AssertionError where ``element`` or what it holds departs from the schema."""
    required, allowed, children = SCHEMA[element.tag]
    assert required <= set(element.attrib) <= required | allowed, element.tag
    names = [child.tag for child in element]
    order = [name for name, _ in children]
    assert names == sorted(names, key=order.index), element.tag
    for name, times in children:
        count = names.count(name)
        assert {"1": count == 1, "+": count >= 1, "?": count <= 1, "*": True}[times], name
    if element.tag == "ParticipantObjectIdentification":
        assert names.count("ParticipantObjectName") + names.count("ParticipantObjectQuery") == 1
    for child in element:
        check(child)


BUILT: dict[str, AuditEvent] = {
    "view": events.disclosed(SCOPE, Disclosure.VIEW, "2.25.5", "dicomweb", "192.0.2.1"),
    "transfer": events.disclosed(SCOPE, Disclosure.TRANSFER, "2.25.5", "dimse", "pacs.example"),
    "export": events.disclosed(SCOPE, Disclosure.EXPORT, "2.25.5", "cli", ""),
    "begin": events.transfer_begun(SCOPE, "2.25.5", "WS1", 12, "dimse", "192.0.2.1"),
    "stored": events.instances_stored(SOURCE, "2.25.5", 12, sop_classes=[CT, CT], patient="2.25.1|123"),
    "stored, two classes": events.instances_stored(SOURCE, "2.25.5", 12, sop_classes=[CT, CT + ".1"]),
    "imported": events.instances_imported(SOURCE, "2.25.5", 3, "cd"),
    "quarantined": events.instance_quarantined(SOURCE, "2.25.5", "2.25.6", "conflicting-bytes"),
    "queried": events.queried(SCOPE, "STUDY", ["00100020", "00080020"], 4, "dimse", "192.0.2.1"),
    "quarantine list": events.quarantine_read(ACTOR, 4, "cli", ""),
    "quarantine export": events.quarantine_exported(ACTOR, 3, "2.25.5", "2.25.6", "page", "::1"),
    "integrity": events.integrity_alert("altered", "pack", 4, 128, "2.25.5", "2.25.6"),
    "start": events.application_activity("start", {"version": "0.1.0"}),
    "refused, unknown": events.refused("EVIL", "unknown-title", "dimse", "192.0.2.66"),
    "refused, known": events.refused("dr", "no-right", "dicomweb", "192.0.2.1", actor=ACTOR, study_uid="2.25.5"),
}


@pytest.mark.parametrize("name", BUILT)
def test_every_event_is_a_message_of_the_schema(name: str) -> None:
    check(fromstring(to_xml(BUILT[name], AT, "NEGATOSCOPE")))


def test_the_check_itself_refuses_what_the_schema_does() -> None:
    root = fromstring(to_xml(BUILT["view"], AT, "NEGATOSCOPE"))
    root.insert(0, root[2])
    with pytest.raises(AssertionError):
        check(root)


def test_every_kind_of_event_has_its_name_of_cid_400() -> None:
    assert set(EVENT_NAMES) == set(EventKind)


def test_time_outcome_and_action_stand_where_the_schema_wants_them() -> None:
    identification = fromstring(to_xml(BUILT["quarantined"], AT, "NEGATOSCOPE"))[0]
    assert identification.get("EventDateTime") == "2026-11-22T12:00:00.123+00:00"
    assert identification.get("EventOutcomeIndicator") == "4"
    assert identification.get("EventActionCode") == "C"
    assert identification[0].get("csd-code") == "110113"


def test_who_stores_is_the_source_and_who_reads_the_destination() -> None:
    def role(name: str) -> str | None:
        code = fromstring(to_xml(BUILT[name], AT, "N")).find("ActiveParticipant/RoleIDCode")
        return None if code is None else code.get("csd-code")

    assert role("stored") == role("imported") == "110153"
    assert role("transfer") == role("begin") == "110152"
    assert role("view") is None


@pytest.mark.parametrize(
    ("name", "kind"), [("view", "2"), ("transfer", "1"), ("quarantine export", "2"), ("export", None)]
)
def test_the_network_address_says_whether_it_is_an_ip_or_a_name(name: str, kind: str | None) -> None:
    participant = fromstring(to_xml(BUILT[name], AT, "N")).find("ActiveParticipant")
    assert participant is not None
    assert participant.get("NetworkAccessPointTypeCode") == kind


def test_study_and_patient_are_objects_and_the_patient_has_no_name() -> None:
    study, patient = fromstring(to_xml(BUILT["stored"], AT, "N")).findall("ParticipantObjectIdentification")
    assert study.get("ParticipantObjectID") == "2.25.5"
    counted = study.find("ParticipantObjectDescription/SOPClass")
    assert counted is not None
    assert counted.attrib == {"UID": CT, "NumberOfInstances": "12"}
    assert patient.get("ParticipantObjectID") == "2.25.1|123"
    assert not patient.findtext("ParticipantObjectName")


def test_a_class_is_not_named_when_there_are_several() -> None:
    counted = fromstring(to_xml(BUILT["stored, two classes"], AT, "N")).find(".//SOPClass")
    assert counted is not None
    assert counted.attrib == {"NumberOfInstances": "12"}


def test_a_query_carries_tags_and_no_values() -> None:
    query = fromstring(to_xml(BUILT["queried"], AT, "N")).find(".//ParticipantObjectQuery")
    assert query is not None
    assert b64decode(query.text or "") == b"00080020 00100020"


def test_details_are_base64_so_that_no_text_of_a_peer_becomes_markup() -> None:
    xml = to_xml(events.refused("<x/>\0\ud800", "a<b", "dimse", "<y>"), AT, "N")
    check(fromstring(xml))
    values = {d.get("type"): b64decode(d.get("value") or "") for d in fromstring(xml).iter("ParticipantObjectDetail")}
    assert values["reason"] == b"a<b"
    assert values["door"] == b"dimse"


def test_the_purpose_of_a_disclosure_is_kept() -> None:
    event = events.disclosed(Scope(ACTOR, Purpose.CENTRE_15), Disclosure.VIEW, "2.25.5", "page", "")
    assert event.purpose == "centre_15"


@pytest.mark.parametrize("name", BUILT)
def test_every_event_names_its_actor_and_its_door(name: str) -> None:
    assert BUILT[name].actor_name
    assert BUILT[name].door
