"""Audit events as PS3.15 A.5.1 messages (the successor of RFC 3881): XML as an audit repository takes it."""

from __future__ import annotations

import re
from base64 import b64encode
from datetime import UTC, datetime
from ipaddress import ip_address
from xml.etree.ElementTree import Element, SubElement, tostring

from negatoscope.model.event import AuditEvent, EventAction, EventKind

# CID 400 Audit Event ID (PS3.16)
EVENT_NAMES = {
    EventKind.APPLICATION_ACTIVITY: "Application Activity",
    EventKind.AUDIT_LOG_USED: "Audit Log Used",
    EventKind.BEGIN_TRANSFERRING: "Begin Transferring DICOM Instances",
    EventKind.DATA_EXPORT: "Export",
    EventKind.DATA_IMPORT: "Import",
    EventKind.INSTANCES_ACCESSED: "DICOM Instances Accessed",
    EventKind.INSTANCES_TRANSFERRED: "DICOM Instances Transferred",
    EventKind.STUDY_DELETED: "DICOM Study Deleted",
    EventKind.ORDER_RECORD: "Order Record",
    EventKind.PROCEDURE_RECORD: "Procedure Record",
    EventKind.QUERY: "Query",
    EventKind.SECURITY_ALERT: "Security Alert",
    EventKind.USER_AUTHENTICATION: "User Authentication",
}
# CID 401 Audit Event Type Code (PS3.16), by the word that our events carry in detail["what"]
EVENT_TYPES = {
    "start": ("110120", "Application Start"),
    "stop": ("110121", "Application Stop"),
    "login": ("110122", "Login"),
    "logout": ("110123", "Logout"),
    "refused": ("110126", "Node Authentication"),
    "account-administration": ("110137", "User security Attributes Changed"),
    "ae-administration": ("110128", "Network Configuration"),
    "integrity": ("110135", "Object Security Attributes Changed"),
}
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, production 2


def to_xml(event: AuditEvent, at: datetime, source_id: str) -> bytes:
    """``event``, which happened ``at`` (aware), as an AuditMessage in UTF-8.

    Args:
        source_id: What names this installation to the repository (its AE title).
    """
    message = Element("AuditMessage")
    _event_identification(message, event, at)
    _active_participant(message, event)
    source = SubElement(message, "AuditSourceIdentification", AuditSourceID=_xml(source_id))
    if event.establishment_code:
        source.set("AuditEnterpriseSiteID", _xml(event.establishment_code))
    SubElement(source, "AuditSourceTypeCode", {"csd-code": "4"})  # application server process
    if event.study_uid:
        _study(message, event)
    if event.patient:
        _patient(message, event)
    if event.kind is EventKind.QUERY:
        _query(message, event)
    elif not event.study_uid and event.detail:
        _other(message, event)
    xml: bytes = tostring(message, encoding="utf-8", xml_declaration=True)
    return xml


def _event_identification(message: Element, event: AuditEvent, at: datetime) -> None:
    identification = SubElement(
        message,
        "EventIdentification",
        EventActionCode=event.action.value,
        EventDateTime=at.astimezone(UTC).isoformat(timespec="milliseconds"),
        EventOutcomeIndicator=event.outcome.value,
    )
    _code(identification, "EventID", event.kind.value, EVENT_NAMES[event.kind])
    if known := EVENT_TYPES.get(str(event.detail.get("what", ""))):
        _code(identification, "EventTypeCode", *known)


def _active_participant(message: Element, event: AuditEvent) -> None:
    participant = SubElement(
        message, "ActiveParticipant", UserID=_xml(event.actor_name) or "unknown", UserIsRequestor="true"
    )
    if event.actor_id is not None:
        participant.set("AlternativeUserID", str(event.actor_id))
    if event.address:
        participant.set("NetworkAccessPointID", _xml(event.address))
        participant.set("NetworkAccessPointTypeCode", "2" if _is_ip(event.address) else "1")
    receives = event.kind is EventKind.DATA_IMPORT or event.action is EventAction.CREATE
    if event.kind in (EventKind.INSTANCES_TRANSFERRED, EventKind.BEGIN_TRANSFERRING, EventKind.DATA_IMPORT):
        # Who asks for images receives them; who stores them is where they come from.
        role = ("110153", "Source Role ID") if receives else ("110152", "Destination Role ID")
        _code(participant, "RoleIDCode", *role)


def _study(message: Element, event: AuditEvent) -> None:
    study = _object(message, event.study_uid, "2", "3")  # system object, report (A.5.3: a study is one)
    _code(study, "ParticipantObjectIDTypeCode", "110180", "Study Instance UID")
    SubElement(study, "ParticipantObjectName").text = ""
    _details(study, event)
    classes = str(event.detail.get("sop_classes", "")).split()
    if "instances" in event.detail:
        description = SubElement(study, "ParticipantObjectDescription")
        # The count is known for the study, not class by class: a class is named when it is the only one.
        counted = SubElement(description, "SOPClass", NumberOfInstances=str(event.detail["instances"]))
        if len(classes) == 1:
            counted.set("UID", _xml(classes[0]))


def _patient(message: Element, event: AuditEvent) -> None:
    patient = _object(message, event.patient, "1", "1")
    code = {"csd-code": "2", "codeSystemName": "RFC-3881", "originalText": "Patient Number"}
    SubElement(patient, "ParticipantObjectIDTypeCode", code)
    SubElement(patient, "ParticipantObjectName").text = ""  # never a name


def _query(message: Element, event: AuditEvent) -> None:
    query = _object(message, str(event.detail.get("level", "query")), "2", "24")
    _code(query, "ParticipantObjectIDTypeCode", "110181", "SOP Class UID")
    keys = str(event.detail.get("keys", ""))
    SubElement(query, "ParticipantObjectQuery").text = b64encode(_xml(keys).encode()).decode()  # tags, no values
    _details(query, event)


def _other(message: Element, event: AuditEvent) -> None:
    subject = str(event.detail.get("subject", event.actor_name)) or "unknown"
    other = _object(message, subject, "2", "13")  # system object, security resource
    _code(other, "ParticipantObjectIDTypeCode", "110182", "Node ID")
    SubElement(other, "ParticipantObjectName").text = _xml(subject)
    _details(other, event)


def _object(message: Element, identifier: str, kind: str, role: str) -> Element:
    return SubElement(
        message,
        "ParticipantObjectIdentification",
        ParticipantObjectID=_xml(identifier),
        ParticipantObjectTypeCode=kind,
        ParticipantObjectTypeCodeRole=role,
    )


def _details(parent: Element, event: AuditEvent) -> None:
    for name, value in sorted((event.detail | {"door": event.door, "purpose": event.purpose}).items()):
        encoded = b64encode(str(value).encode("utf-8", "replace")).decode()
        SubElement(parent, "ParticipantObjectDetail", type=_xml(name), value=encoded)


def _code(parent: Element, element: str, code: str, meaning: str) -> None:
    attributes = {"csd-code": code, "codeSystemName": "DCM", "displayName": meaning, "originalText": meaning}
    SubElement(parent, element, attributes)


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)


def _is_ip(address: str) -> bool:
    try:
        ip_address(address)
    except ValueError:
        return False
    return True
