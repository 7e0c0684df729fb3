"""The answer of STOW-RS: PS3.18 10.5.3 and PS3.18 annex I.2 (Store Instances Response Module)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.responses import Response

from negatoscope.dicom.xml_model import to_xml
from negatoscope.errors import NegatoscopeError, wire_form
from negatoscope.model.stored import Outcome, StoreResult
from negatoscope.web.media_types import DICOM_XML

SET_ASIDE = 0xB000  # Warning Reason: kept whole in quarantine, not among the study's instances
_STUDY = "/dicom-web/studies/{}"
_INSTANCE = _STUDY + "/series/{}/instances/{}"


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of one object of the request."""

    result: StoreResult | None
    error: NegatoscopeError | None
    sop_class_uid: str  # as announced, for objects refused
    sop_instance_uid: str


def answer_of(stored: Sequence[Stored], study_uid: str | None, media: str) -> Response:
    """Status and body. Objects stand in the order of the request, kept and failed ones apart."""
    kept = [one.result for one in stored if one.result is not None]
    failed = [one for one in stored if one.result is None]
    document: dict[str, Any] = {}
    studies = {result.study_uid for result in kept} | ({study_uid} if study_uid else set())
    if kept and len(studies) == 1:
        document["00081190"] = {"vr": "UR", "Value": [_STUDY.format(*studies)]}
    if failed:
        document["00081198"] = {"vr": "SQ", "Value": [_failed(one) for one in failed]}
    if kept:
        document["00081199"] = {"vr": "SQ", "Value": [_kept(result) for result in kept]}
    status = status_of(stored)
    if media == DICOM_XML:
        return Response(to_xml(document), status, media_type=media)
    return Response(orjson.dumps(document), status, media_type=media)


def status_of(stored: Sequence[Stored]) -> int:
    """200: all kept without a warning; 202: some failed or were set aside; else why none was kept."""
    kept = [one.result for one in stored if one.result is not None]
    if not kept:
        reasons = {wire_form(one.error).http for one in stored if one.error is not None}
        # The whole request failed for one reason that is not in the objects: say it (507, 503, 415...).
        return reasons.pop() if len(reasons) == 1 else 409
    warned = any(result.outcome is Outcome.QUARANTINED for result in kept)
    return 202 if warned or len(kept) < len(stored) else 200


def _kept(result: StoreResult) -> dict[str, Any]:
    """An item of Referenced SOP Sequence (0008,1199)."""
    item: dict[str, Any] = {
        "00081150": {"vr": "UI", "Value": [result.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [result.sop_instance_uid]},
    }
    if result.outcome is Outcome.QUARANTINED:
        item["00081196"] = {"vr": "US", "Value": [SET_ASIDE]}
    else:
        address = _INSTANCE.format(result.study_uid, result.series_uid, result.sop_instance_uid)
        item["00081190"] = {"vr": "UR", "Value": [address]}
    return dict(sorted(item.items()))


def _failed(one: Stored) -> dict[str, Any]:
    """An item of Failed SOP Sequence (0008,1198)."""
    reason = wire_form(one.error).dimse if one.error is not None else 0x0110
    item: dict[str, Any] = {
        "00081150": {"vr": "UI"} | ({"Value": [one.sop_class_uid]} if one.sop_class_uid else {}),
        "00081155": {"vr": "UI"} | ({"Value": [one.sop_instance_uid]} if one.sop_instance_uid else {}),
        "00081197": {"vr": "US", "Value": [reason]},
    }
    return item
