"""Upper layer machines led into every state, and one PDU of each kind."""

from __future__ import annotations

from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.wire.dul import Association, Role, State
from negatoscope.wire.dul.items import ContextAnswer, PresentationContext, UserInformation
from negatoscope.wire.dul.pdu import (
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    data_pdus,
    encode_abort,
    encode_associate_accept,
    encode_associate_reject,
    encode_associate_request,
    encode_release_request,
    encode_release_response,
)
from negatoscope.wire.dul.states import Trigger

LIMITS = DEFAULT_LIMITS
CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
REQUEST = AssociateRequest(
    "NEGATOSCOPE",
    "CT_A",
    (PresentationContext(1, CT, (EXPLICIT,)), PresentationContext(3, "1.2.3", (EXPLICIT,))),
    UserInformation(16384),
)
ACCEPT = AssociateAccept((ContextAnswer(1, 0, EXPLICIT), ContextAnswer(3, 3, EXPLICIT)), UserInformation(16384))
REJECT = AssociateReject(1, 1, 1)


def data(
    payload: bytes = b"", command: bool = False, context_id: int = 1, size: int = 16384, last: bool = True
) -> bytes:
    """P-DATA-TF PDUs as bytes."""
    return b"".join(head + bytes(part) for head, part in data_pdus(context_id, payload, command, size, last))


PDUS = {
    Trigger.REQUEST_RECEIVED: encode_associate_request(REQUEST),
    Trigger.ACCEPT_RECEIVED: encode_associate_accept(ACCEPT),
    Trigger.REJECT_RECEIVED: encode_associate_reject(REJECT),
    Trigger.DATA_RECEIVED: data(b"data"),
    Trigger.RELEASE_RECEIVED: encode_release_request(),
    Trigger.RELEASE_ANSWER_RECEIVED: encode_release_response(),
    Trigger.ABORT_RECEIVED: encode_abort(0, 0),
    Trigger.INVALID_PDU: bytes.fromhex("080000000000"),
}


def established(role: Role) -> Association:
    machine = Association(role, LIMITS, 0.0)
    if role is Role.ACCEPTOR:
        machine.receive(PDUS[Trigger.REQUEST_RECEIVED], 0.0)
        machine.accept(ACCEPT, 0.0)
    else:
        machine.request(REQUEST, 0.0)
        machine.receive(PDUS[Trigger.ACCEPT_RECEIVED], 0.0)
    assert machine.state is State.STA6
    return machine


def reach(state: State, role: Role) -> Association:
    """A machine in ``state``, led there by what peers and shells really do."""
    machine = Association(role, LIMITS, 0.0)
    release, answer = PDUS[Trigger.RELEASE_RECEIVED], PDUS[Trigger.RELEASE_ANSWER_RECEIVED]
    if state is State.STA3:
        machine.receive(PDUS[Trigger.REQUEST_RECEIVED], 0.0)
    elif state is State.STA5:
        machine.request(REQUEST, 0.0)
    elif state is not State.STA2:
        machine = established(role)
        if state in (State.STA7, State.STA9, State.STA10, State.STA11, State.STA12):
            machine.release(0.0)
        if state in (State.STA8, State.STA9, State.STA10, State.STA11, State.STA12, State.STA13):
            machine.receive(release, 0.0)
        if state in (State.STA11, State.STA13):
            machine.release_answer(0.0)
        if state is State.STA12:
            machine.receive(answer, 0.0)
    assert machine.state is state, machine.state
    return machine
