"""One association, either role, without a socket or a clock: PS3.8 chapter 9.

The shell gives it what arrives (:meth:`Association.receive`) and the time, sends the bytes that
its other methods return, and acts on events. Two more calls make it whole: :meth:`timer` says
when :meth:`expire` is due.

What is kept in memory: a header in pieces (5 bytes), the body of a PDU that is not P-DATA
(64 KiB), a command set in pieces (64 KiB). Data set bytes pass through as views of the buffer
they arrived in. Every length is judged when its header is whole, before anything that follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NoReturn

from negatoscope.dicom.limits import Limits
from negatoscope.wire.dul import pdu
from negatoscope.wire.dul.events import (
    Aborted,
    AssociationAccepted,
    AssociationRejected,
    AssociationRequested,
    CommandReceived,
    ConnectionLost,
    DataReceived,
    Ended,
    Event,
    Released,
    ReleaseRequested,
    Violated,
)
from negatoscope.wire.dul.items import (
    INVALID_PARAMETER,
    NOT_SPECIFIED,
    PROVIDER_SOURCE,
    UNEXPECTED_PDU,
    UNRECOGNIZED_PDU,
    USER_SOURCE,
    ProtocolViolation,
)
from negatoscope.wire.dul.pdu import (
    ASSOCIATE_FIXED,
    HEADER,
    PDV_HEADER,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    Buffer,
    PDUType,
)
from negatoscope.wire.dul.states import Action, Role, State, Trigger, transition

_TRIGGERS = {
    PDUType.ASSOCIATE_RQ: Trigger.REQUEST_RECEIVED,
    PDUType.ASSOCIATE_AC: Trigger.ACCEPT_RECEIVED,
    PDUType.ASSOCIATE_RJ: Trigger.REJECT_RECEIVED,
    PDUType.P_DATA_TF: Trigger.DATA_RECEIVED,
    PDUType.RELEASE_RQ: Trigger.RELEASE_RECEIVED,
    PDUType.RELEASE_RP: Trigger.RELEASE_ANSWER_RECEIVED,
    PDUType.ABORT: Trigger.ABORT_RECEIVED,
}
_REFUSALS = (Action.AA_1, Action.AA_7, Action.AA_8)
_WAITS_FOR_END = (State.STA2, State.STA13)  # where ARTIM runs by the standard
_P_DATA = int(PDUType.P_DATA_TF)
_PDU_HEAD, _PDV_HEAD = Struct(">BxI"), Struct(">IBB")
_COMMAND, _LAST = 1, 2  # bits of the message control header


class Misuse(Exception):
    """The shell asked for what the state does not allow: a bug of ours, never the peer's doing."""


class Association:
    """The upper layer machine of one transport connection, which exists and is the shell's."""

    def __init__(self, role: Role, limits: Limits, now: float) -> None:
        """``now`` is on any monotonic clock, in seconds; it is the same clock in every call."""
        self.role = role
        self.state = State.STA1
        self.contexts: dict[int, tuple[str, str]] = {}  # accepted: abstract syntax, transfer syntax
        self.maximum_length = limits.pdu_offered  # of the PDUs that we send, bytes of the body
        self._limits = limits
        self._due: float | None = None
        self._proposed: dict[int, str] = {}
        self._deaf = False  # framing is lost or the association is over: what comes is dropped
        self._partial = bytearray()  # start of a PDU or PDV header, if cut
        self._kind = 0  # type of the PDU being read, 0 between PDUs
        self._pdu_left = 0  # bytes of its body still to come
        self._skip = False  # its body is of no interest
        self._body = bytearray()
        self._pdv_left = 0  # bytes of the current fragment still to come
        self._pdv_context = 0
        self._pdv_control = 0
        self._command = bytearray()  # command set so far
        self._command_context: int | None = None  # while a command set is in pieces
        if role is Role.ACCEPTOR:
            self._step(Trigger.CONNECTION_INDICATED)
            self._due = now + limits.artim_s

    # ---- what the shell sends -------------------------------------------------------------

    def request(self, request: AssociateRequest, now: float) -> bytes:
        """Requestor only, first of all. ValueError for a request that cannot be encoded."""
        encoded = pdu.encode_associate_request(request)
        self._step(Trigger.REQUEST)
        self._step(Trigger.CONNECTED)
        self._proposed = {context.context_id: context.abstract_syntax for context in request.contexts}
        self._due = now + self._limits.artim_s
        return encoded

    def accept(self, accept: AssociateAccept, now: float) -> bytes:
        """Answer a request. Contexts not accepted here cannot carry data."""
        self._step(Trigger.ACCEPT)
        self._establish(accept, now)
        return pdu.encode_associate_accept(accept)

    def reject(self, reject: AssociateReject, now: float) -> bytes:
        self._step(Trigger.REJECT)
        self._due = now + self._limits.artim_s
        return pdu.encode_associate_reject(reject)

    def data(
        self, context_id: int, payload: Buffer, command: bool, last: bool = True
    ) -> Iterator[tuple[bytes, memoryview]]:
        """PDUs that carry ``payload``, each as (headers, view of the payload), for ``sendmsg``."""
        self._step(Trigger.DATA)
        if context_id not in self.contexts:
            raise Misuse(f"context {context_id} was not accepted")
        return pdu.data_pdus(context_id, payload, command, self.maximum_length, last)

    def message(self, context_id: int, payload: bytes, command: bool) -> bytes:
        """The same for a whole command set or data set that is small, joined."""
        pairs = self.data(context_id, payload, command)
        if len(payload) <= self.maximum_length - pdu.PDV_HEADER:
            return pdu.data_pdu(context_id, payload, command)
        return b"".join(part for pair in pairs for part in pair)

    def release(self, now: float) -> bytes:
        self._step(Trigger.RELEASE)
        self._due = now + self._limits.artim_s
        return pdu.encode_release_request()

    def release_answer(self, now: float) -> bytes:
        """Answer ReleaseRequested."""
        self._step(Trigger.RELEASE_ANSWER)
        self._due = now + self._limits.artim_s
        return pdu.encode_release_response()

    def abort(self, now: float, source: int = USER_SOURCE) -> bytes:
        """End it now. Returns b"" when the association is over already. The source is 0 (user) or 2 (provider)."""
        step = transition(self.state, Trigger.ABORT, self.role)
        if step is None:
            return b""
        self.state = step[1]
        self._end(now)
        return pdu.encode_abort(source, NOT_SPECIFIED) if step[0] is Action.AA_1 else b""

    # ---- what arrives ---------------------------------------------------------------------

    def receive(self, data: Buffer, now: float) -> list[Event]:
        """Events of the bytes ``data``, in order; how TCP cut the stream makes no difference.

        Never raises for what a peer sent: a violation is the last event, :class:`Violated`.
        """
        events: list[Event] = []
        if self.state is State.STA6:
            self._due = now + self._limits.idle_s
        try:
            self._read(memoryview(data), events, now)
        except ProtocolViolation as violation:
            events.append(self._violated(violation, Trigger.INVALID_PDU, now))
        return events

    def closed(self, now: float) -> list[Event]:
        """The transport connection has ended."""
        step = transition(self.state, Trigger.TRANSPORT_CLOSED, self.role)
        if step is None:
            return []
        self.state = step[1]
        self._end(now)
        return [ConnectionLost() if step[0] is Action.AA_4 else Ended()]

    def timer(self) -> float | None:
        """When :meth:`expire` is due: ARTIM, the answer to a request of ours, or idleness."""
        return self._due

    def expire(self, now: float) -> list[Event]:
        """What follows from the time being ``now``; nothing when it is too early."""
        if self._due is None or now < self._due:
            return []
        if self.state in _WAITS_FOR_END:
            self._step(Trigger.ARTIM_EXPIRED)
            self._end(now)
            return [Ended()]
        detail = f"nothing came in time: {self.state.value}"
        return [Violated(self.abort(now, PROVIDER_SOURCE), detail)]

    # ---- inside ---------------------------------------------------------------------------

    def _step(self, trigger: Trigger) -> Action:
        step = transition(self.state, trigger, self.role)
        if step is None:
            raise Misuse(f"{trigger.name} while {self.state.value}")
        action, self.state = step
        return action

    def _establish(self, accept: AssociateAccept, now: float) -> None:
        self.contexts = {
            answer.context_id: (self._proposed[answer.context_id], answer.transfer_syntax)
            for answer in accept.contexts
            if answer.result == 0 and answer.context_id in self._proposed
        }
        self._due = now + self._limits.idle_s

    def _peer_takes(self, maximum_length: int) -> None:
        """0 is without limit; then, and above what is of use, our own size holds."""
        self.maximum_length = min(maximum_length or self._limits.pdu_offered, self._limits.pdu_accepted)

    def _end(self, now: float) -> None:
        self._deaf = True
        self._due = now + self._limits.artim_s if self.state is State.STA13 else None
        self._body.clear()
        self._command.clear()

    def _violated(self, violation: ProtocolViolation, trigger: Trigger, now: float) -> Violated:
        """Take the abort that the table has for ``trigger``; the stream can no longer be read."""
        action = self._step(trigger)
        self._end(now)
        if action is Action.AA_1:  # not yet an association: the user's abort, without a reason
            return Violated(pdu.encode_abort(USER_SOURCE, NOT_SPECIFIED), str(violation))
        return Violated(pdu.encode_abort(PROVIDER_SOURCE, violation.reason), str(violation))

    def _read(self, view: memoryview, events: list[Event], now: float) -> None:
        position, end = 0, len(view)
        partial = self._partial
        while position < end and not self._deaf:
            if self._pdv_left:
                position = self._read_fragment(view, position, end, events)
                continue
            if self._pdu_left and (self._kind != _P_DATA or self._skip):
                position = self._read_body(view, position, end, events, now)
                continue
            # A header comes next, of a PDV inside P-DATA or else of a PDU. Both are six bytes.
            source, at = view, position
            if not partial and end - position >= HEADER:
                position += HEADER
            else:
                taken = min(HEADER - len(partial), end - position)
                partial += view[position : position + taken]
                position += taken
                if len(partial) < HEADER:
                    return
                source, at = memoryview(bytes(partial)), 0
                partial.clear()
            if self._pdu_left:
                length, context_id, control = _PDV_HEAD.unpack_from(source, at)
                self._begin_fragment(length, context_id, control, view, events)
            else:
                kind, length = _PDU_HEAD.unpack_from(source, at)
                self._begin_pdu(kind, length, events, now)

    def _begin_pdu(self, kind: int, length: int, events: list[Event], now: float) -> None:
        if kind not in _TRIGGERS:
            raise ProtocolViolation(UNRECOGNIZED_PDU, f"unrecognized PDU type 0x{kind:02X}")
        trigger = _TRIGGERS[PDUType(kind)]
        step = transition(self.state, trigger, self.role)
        if step is None:  # only before anything was sent, or after the end
            self._deaf = True
            return
        if step[0] in _REFUSALS:
            unexpected = ProtocolViolation(UNEXPECTED_PDU, f"unexpected {PDUType(kind).name}: {self.state.value}")
            events.append(self._violated(unexpected, trigger, now))
            return
        least, most = self._bounds(kind)
        if not least <= length <= most:
            self._refuse_length(kind, length, least, most)
        self._kind, self._pdu_left, self._skip = kind, length, step[0] is Action.AA_6

    def _bounds(self, kind: int) -> tuple[int, int]:
        """Shortest and longest body of a PDU of this kind."""
        if kind == _P_DATA:
            return PDV_HEADER, self._limits.pdu_accepted
        if kind in (PDUType.ASSOCIATE_RQ, PDUType.ASSOCIATE_AC):
            return ASSOCIATE_FIXED, self._limits.associate_body
        return 4, 4

    def _refuse_length(self, kind: int, length: int, least: int, most: int) -> NoReturn:
        name = PDUType(kind).name
        raise ProtocolViolation(INVALID_PARAMETER, f"{name} of {length} bytes declared, {least} to {most} allowed")

    def _read_body(self, view: memoryview, position: int, end: int, events: list[Event], now: float) -> int:
        taken = min(self._pdu_left, end - position)
        self._pdu_left -= taken
        if not self._skip:
            self._body += view[position : position + taken]
            if not self._pdu_left:
                body = bytes(self._body)
                self._body.clear()
                self._whole_pdu(PDUType(self._kind), body, events, now)
        return position + taken

    def _whole_pdu(self, kind: PDUType, body: bytes, events: list[Event], now: float) -> None:
        limit = self._limits.presentation_contexts
        if kind is PDUType.ASSOCIATE_RQ:
            request = pdu.decode_associate_request(body, limit)
            self._step(Trigger.REQUEST_RECEIVED)
            self._due = None
            self._proposed = {context.context_id: context.abstract_syntax for context in request.contexts}
            self._peer_takes(request.user.maximum_length)
            events.append(AssociationRequested(request))
        elif kind is PDUType.ASSOCIATE_AC:
            accept = pdu.decode_associate_accept(body, limit)
            self._step(Trigger.ACCEPT_RECEIVED)
            self._peer_takes(accept.user.maximum_length)
            self._establish(accept, now)
            events.append(AssociationAccepted(accept))
        elif kind is PDUType.ASSOCIATE_RJ:
            self._step(Trigger.REJECT_RECEIVED)
            self._end(now)
            events.append(AssociationRejected(pdu.decode_associate_reject(body)))
        elif kind is PDUType.ABORT:
            action = self._step(Trigger.ABORT_RECEIVED)
            self._end(now)
            events.append(Aborted(*pdu.decode_abort(body)) if action is Action.AA_3 else Ended())
        elif kind is PDUType.RELEASE_RQ:
            self._step(Trigger.RELEASE_RECEIVED)
            if self.state is not State.STA10:  # there the answer waits for the peer's
                events.append(ReleaseRequested())
        else:
            action = self._step(Trigger.RELEASE_ANSWER_RECEIVED)
            if action is Action.AR_10:
                events.append(ReleaseRequested())
            else:
                self._end(now)
                events.append(Released())

    def _begin_fragment(
        self, length: int, context_id: int, control: int, view: memoryview, events: list[Event]
    ) -> None:
        if not 2 <= length <= self._pdu_left - 4:
            raise ProtocolViolation(INVALID_PARAMETER, f"PDV of {length} bytes, {self._pdu_left - 4} left in its PDU")
        if context_id not in self.contexts:
            raise ProtocolViolation(INVALID_PARAMETER, f"PDV of presentation context {context_id}, not accepted")
        self._pdu_left -= PDV_HEADER
        self._pdv_left, self._pdv_context, self._pdv_control = length - 2, context_id, control
        if 0 < self._pdu_left - self._pdv_left < PDV_HEADER:
            rest = self._pdu_left - self._pdv_left
            raise ProtocolViolation(INVALID_PARAMETER, f"{rest} bytes left in the PDU after its last PDV")
        if self._command_context is not None and not (control & _COMMAND and context_id == self._command_context):
            raise ProtocolViolation(INVALID_PARAMETER, "a command set was broken into by another fragment")
        if control & _COMMAND:
            self._command_context = context_id
            if len(self._command) + self._pdv_left > self._limits.command_set:
                size = len(self._command) + self._pdv_left
                raise ProtocolViolation(
                    INVALID_PARAMETER, f"command set of {size} bytes, {self._limits.command_set} allowed"
                )
        if not self._pdv_left:
            self._read_fragment(view, 0, 0, events)

    def _read_fragment(self, view: memoryview, position: int, end: int, events: list[Event]) -> int:
        """Pass on what is there of the current fragment; returns the position behind it."""
        left = self._pdv_left
        taken = end - position
        if taken > left:
            taken = left
        stop = position + taken
        self._pdv_left = left = left - taken
        self._pdu_left -= taken
        control = self._pdv_control
        last = not left and bool(control & _LAST)
        if not control & _COMMAND:
            if taken or last:
                events.append(DataReceived(self._pdv_context, view[position:stop], last))
        else:
            self._command += view[position:stop]
            if last:
                events.append(CommandReceived(self._pdv_context, bytes(self._command)))
                self._command.clear()
                self._command_context = None
        return stop
