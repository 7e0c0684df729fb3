"""Modality performed procedure steps as provider: N-CREATE, N-SET and N-GET, PS3.4 F.7 and F.8."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from negatoscope.dicom.answers import AnswerWriter
from negatoscope.dicom.limits import Limits
from negatoscope.dicom.uid import is_valid_uid, transfer_syntax
from negatoscope.errors import AttributeFault, NegatoscopeError, StepEnded, title, wire_form
from negatoscope.model.actor import Right
from negatoscope.servers.dicom_gathered import Gathered, read_data_set, takes
from negatoscope.servers.dicom_link import Link
from negatoscope.servers.dicom_negotiation import Service
from negatoscope.servers.dicom_query import DOOR
from negatoscope.servers.dicom_store import UNRECOGNIZED_OPERATION, Answer, Exchange, Peer
from negatoscope.sharing import policy
from negatoscope.wire.dimse import Command, Element, Message, response_to
from negatoscope.wire.dimse.commands import N_CREATE, N_GET, N_SET, SUCCESS, Value
from negatoscope.worklist import Asking, PerformedSteps
from negatoscope.worklist.book import new_study_uid

PERFORMED_STEP = "1.2.840.10008.3.1.2.3.3"
PERFORMED_STEP_RETRIEVE = "1.2.840.10008.3.1.2.3.4"
NO_SUCH_CLASS, INVALID_INSTANCE, MISSING_ATTRIBUTE = 0x0118, 0x0117, 0x0120
ATTRIBUTE_LIST_WARNING = 0x0107  # some attributes were not taken
NO_LONGER_UPDATED = 0xA710  # Error ID that goes with 0x0110, PS3.4 F.7.2.2.4
_VERBS = {PERFORMED_STEP: (N_CREATE, N_SET), PERFORMED_STEP_RETRIEVE: (N_GET,)}

MPPS = Service(lambda uid: uid in _VERBS, Right.WORKLIST, takes)
Run = Callable[[bytes], Command | None]


class PerformedStepService:
    """Implements ``dicom_association.Operations``."""

    services = (MPPS,)

    def __init__(self, steps: PerformedSteps, limits: Limits) -> None:
        self._steps, self._limits = steps, limits

    def open(self, message: Message, context: tuple[str, str], peer: Peer, link: Link) -> Exchange | None:
        """See ``Operations``."""
        command, (sop_class, syntax) = message.command, context
        if sop_class not in _VERBS:
            return None
        if command.field not in _VERBS[sop_class]:
            return Answer(command, UNRECOGNIZED_OPERATION)
        creates = command.field == N_CREATE
        named = command.text(Element.AFFECTED_SOP_CLASS_UID if creates else Element.REQUESTED_SOP_CLASS_UID)
        # The Retrieve class reads instances of the step's own class (PS3.4 F.8.2.1): both names are in use.
        if named not in (sop_class, PERFORMED_STEP):
            return Answer(command, NO_SUCH_CLASS, "the SOP class is not the one of its presentation context")
        uid = command.text(Element.AFFECTED_SOP_INSTANCE_UID if creates else Element.REQUESTED_SOP_INSTANCE_UID)
        if creates and not uid:
            uid = new_study_uid()  # PS3.7 10.1.5.1.4: the performer may be left to name it
        if not is_valid_uid(uid):
            return Answer(command, INVALID_INSTANCE, "SOP instance UID is missing or malformed")
        if command.field != N_GET and not command.has_data_set:
            return Answer(command, MISSING_ATTRIBUTE, "no attributes")
        named_so: dict[Element, Value] = {
            Element.AFFECTED_SOP_CLASS_UID: PERFORMED_STEP,
            Element.AFFECTED_SOP_INSTANCE_UID: uid,
        }

        def create(data: bytes) -> Command:
            attributes, _ = read_data_set(data, syntax, self._limits)
            self._steps.create(uid, attributes, _asking(peer))
            return response_to(command, SUCCESS, values=named_so)

        def change(data: bytes) -> Command:
            changes, _ = read_data_set(data, syntax, self._limits)
            changed = self._steps.set(uid, changes, _asking(peer))
            if changed.ignored:
                values = {**named_so, Element.ATTRIBUTE_IDENTIFIER_LIST: changed.ignored}
                return response_to(command, ATTRIBUTE_LIST_WARNING, values=values)
            return response_to(command, SUCCESS, values=named_so)

        def get(data: bytes) -> None:
            held = self._steps.get(uid, _asking(peer))
            writer = AnswerWriter(transfer_syntax(syntax).explicit)
            response = response_to(command, SUCCESS, values=named_so, data_set=True)
            link.respond(message.context_id, response, writer.encode(_wanted(command, held)))

        runs: dict[int, Run] = {N_CREATE: create, N_SET: change, N_GET: get}
        return Gathered(
            command, self._limits.performed_step, runs[command.field], lambda error: _refused(command, error, named_so)
        )


def _asking(peer: Peer) -> Asking:
    """Raises Forbidden."""
    return Asking(policy.scope(peer.actor, Right.WORKLIST), DOOR, peer.address)


def _wanted(command: Command, held: dict[str, Any]) -> dict[str, Any]:
    """The attributes of the list, all without one (PS3.7 10.1.2.1.5)."""
    asked = command.values.get(Element.ATTRIBUTE_IDENTIFIER_LIST)
    if not isinstance(asked, tuple) or not asked:
        return held
    keys = {f"{tag:08X}" for tag in asked}
    return {key: element for key, element in held.items() if key in keys}


def _refused(command: Command, error: NegatoscopeError, named_so: dict[Element, Value]) -> Command:
    values = dict(named_so)
    if isinstance(error, StepEnded):
        values[Element.ERROR_ID] = NO_LONGER_UPDATED
    if isinstance(error, AttributeFault) and error.tags:
        values[Element.ATTRIBUTE_IDENTIFIER_LIST] = error.tags
    return response_to(command, wire_form(error).dimse, str(error) or title(error), values)
