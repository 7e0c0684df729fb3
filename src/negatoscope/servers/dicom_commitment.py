"""Storage Commitment Push Model, PS3.4 annex J, in both roles.

Provider: a request is written down before it is accepted, judged by reading each object back, and answered on the
same association while that is open, else on a new one, until the report is taken. User: after a delivery its node
is asked, and its report is heard on the same association or on one that it opens to us.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from negatoscope.archive.commitment import CommitmentJudge
from negatoscope.archive.ports import Count
from negatoscope.dicom.limits import Limits
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN
from negatoscope.errors import MismatchedObject, NegatoscopeError, NotFound, title, wire_form
from negatoscope.model.actor import Right
from negatoscope.routing import Asked, Commitments, Node, Nodes
from negatoscope.routing import commitment_messages as messages
from negatoscope.servers.dicom_client import PeerUnavailable, Proposal, Sender, associate
from negatoscope.servers.dicom_gathered import Gathered, takes
from negatoscope.servers.dicom_link import Gone, Link
from negatoscope.servers.dicom_negotiation import Service
from negatoscope.servers.dicom_store import Answer, Exchange, Peer
from negatoscope.servers.dicom_tls import Secured
from negatoscope.sharing import Destination
from negatoscope.wire.dimse import Command, Element, Message, encode, request, response_to
from negatoscope.wire.dimse.commands import N_ACTION, N_EVENT_REPORT, RESPONSE, SUCCESS, Value
from negatoscope.wire.dul.items import RoleSelection

log = logging.getLogger(__name__)

PUSH_MODEL, WELL_KNOWN_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
NO_SUCH_SOP_CLASS, NO_SUCH_INSTANCE, NO_SUCH_ACTION = 0x0118, 0x0112, 0x0123  # PS3.7 annex C.5
NO_SUCH_EVENT, INVALID_ARGUMENT = 0x0113, 0x0115
AT_ONCE_S = 10.0  # judged on the asking association within this, else later
LEASE_S = 90.0  # of a request that is being judged or reported
CONNECT_S = 10.0
WAIT_S = 5.0  # for a node's report on the association on which we asked
_SYNTAXES = (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN)

# PS3.7 10.1.4.1.5 leaves them out at will; Orthanc takes no response without them.
_AFFECTED: dict[Element, Value] = {
    Element.AFFECTED_SOP_CLASS_UID: PUSH_MODEL,
    Element.AFFECTED_SOP_INSTANCE_UID: WELL_KNOWN_INSTANCE,
}

COMMITMENT = Service(lambda uid: uid == PUSH_MODEL, Right.STORE, takes, reports=True)


class _TooLong(Exception):
    """Judging goes on elsewhere."""


class CommitmentService:
    """Implements ``dicom_association.Operations``: requests of peers, and reports of nodes that we asked."""

    services: Sequence[Service] = (COMMITMENT,)

    def __init__(
        self, title: str, commitments: Commitments, judge: CommitmentJudge, limits: Limits, count: Count
    ) -> None:
        """``title``: ours."""
        self._title, self._commitments, self._judge = title, commitments, judge
        self._limits, self._count = limits, count

    def open(self, message: Message, context: tuple[str, str], peer: Peer, link: Link) -> Exchange | None:
        """See ``Operations``."""
        command, run = message.command, None
        if context[0] != PUSH_MODEL:
            return None
        if command.field == N_ACTION:
            refusal = _refusal(
                command, Element.REQUESTED_SOP_CLASS_UID, Element.REQUESTED_SOP_INSTANCE_UID,
                Element.ACTION_TYPE_ID, (messages.REQUEST,), NO_SUCH_ACTION,
            )  # fmt: skip

            def run(data: bytes) -> Command | None:
                return self._asked(message, context[1], peer, link, data)

        elif command.field == N_EVENT_REPORT:
            refusal = _refusal(
                command, Element.AFFECTED_SOP_CLASS_UID, Element.AFFECTED_SOP_INSTANCE_UID,
                Element.EVENT_TYPE_ID, (messages.SUCCESSFUL, messages.FAILURES_EXIST), NO_SUCH_EVENT,
            )  # fmt: skip

            def run(data: bytes) -> Command | None:
                return self._reported(command, context[1], peer, data)

        else:
            return None
        if refusal is not None:
            return Answer(command, refusal)
        if not command.has_data_set:
            return Answer(command, INVALID_ARGUMENT, "no data set")
        return Gathered(command, self._limits.commitment, run, lambda error: _refused(command, error))

    # ---- as provider --------------------------------------------------------------------------

    def _asked(self, message: Message, syntax: str, peer: Peer, link: Link, data: bytes) -> Command | None:
        """Write down, accept, judge and report while the peer is there. Raises Gone."""
        command = message.command
        transaction_uid, objects = messages.read_request(data, syntax, self._limits)
        commitment_id = self._commitments.asked(peer.actor, peer.calling_title, transaction_uid, objects, LEASE_S)
        self._count("commitments_total", 1)
        try:
            link.begin()
            link.respond(message.context_id, response_to(command, SUCCESS, values=_AFFECTED))
            taken = self._answer_at_once(message, syntax, peer, link, commitment_id, transaction_uid, objects)
        except Gone:
            self._give_back(commitment_id)
            raise
        if not taken:
            self._give_back(commitment_id)
        return None

    def _answer_at_once(
        self,
        message: Message,
        syntax: str,
        peer: Peer,
        link: Link,
        commitment_id: int,
        transaction_uid: str,
        objects: list[messages.Reference],
    ) -> bool:
        """Whether the peer has taken the report. Raises Gone."""
        until = time.monotonic() + AT_ONCE_S

        def alive() -> None:
            link.cancelled(message.command.message_id)  # reads what has come: Gone when the peer ends
            if time.monotonic() > until:
                raise _TooLong

        try:
            verdicts = self._judge.judge(peer.actor.establishment_id, objects, alive)
            self._commitments.judged(commitment_id, verdicts)
            alive()
        except _TooLong:
            return False
        except NegatoscopeError as error:
            log.warning("commitment_postponed id=%d error=%s", commitment_id, type(error).__name__)
            return False
        kind, report = messages.write_report(transaction_uid, objects, verdicts, self._title, syntax)
        command = event_report(1, kind)
        link.send(
            link.framed(message.context_id, encode(command), command=True)
            + link.framed(message.context_id, report, command=False)
        )
        answer = link.answer()
        if answer.field != N_EVENT_REPORT | RESPONSE or answer.status != SUCCESS:
            return False
        with suppress(NegatoscopeError):  # else it is reported once more
            self._commitments.delivered(commitment_id)
        return True

    def _give_back(self, commitment_id: int) -> None:
        with suppress(NegatoscopeError):  # else its lease ends
            self._commitments.give_back(commitment_id)

    # ---- as user ------------------------------------------------------------------------------

    def _reported(self, command: Command, syntax: str, peer: Peer, data: bytes) -> Command:
        report = messages.read_report(data, syntax, self._limits)
        known = self._commitments.answered(report.transaction_uid, report.committed, peer.actor.establishment_id)
        if not known:
            log.warning("a report on a transaction that we did not begin, or that is answered")
        return response_to(command, SUCCESS)


def _refusal(
    command: Command, of_class: Element, of_instance: Element, of_type: Element, types: Sequence[int], no_type: int
) -> int | None:
    if command.text(of_class) != PUSH_MODEL:
        return NO_SUCH_SOP_CLASS
    if command.text(of_instance) != WELL_KNOWN_INSTANCE:
        return NO_SUCH_INSTANCE
    return None if command.values.get(of_type) in types else no_type


def _refused(command: Command, error: NegatoscopeError) -> Command:
    status = INVALID_ARGUMENT if isinstance(error, MismatchedObject) else wire_form(error).dimse
    return response_to(command, status, str(error) or title(error))


def event_report(message_id: int, kind: int) -> Command:
    """The command set of a report of ours."""
    return request(
        N_EVENT_REPORT,
        message_id,
        {
            Element.AFFECTED_SOP_CLASS_UID: PUSH_MODEL,
            Element.AFFECTED_SOP_INSTANCE_UID: WELL_KNOWN_INSTANCE,
            Element.EVENT_TYPE_ID: kind,
        },
        data_set=True,
    )


class Reporter:
    """Judges and reports what was not answered on the association that asked. For the sender's process."""

    def __init__(
        self,
        our_title: str,
        commitments: Commitments,
        judge: CommitmentJudge,
        destination_of: Callable[[Asked], Destination],
        secured: Callable[[Destination], Secured | None],
        limits: Limits,
        retry_s: float,
        longest_retry_s: float,
        give_up_s: float,
        lease_s: float = LEASE_S,
    ) -> None:
        """``destination_of``: where the peer that asked listens. Raises NotFound."""
        self._title, self._commitments, self._judge = our_title, commitments, judge
        self._destination_of, self._secured, self._limits = destination_of, secured, limits
        self._retry_s, self._longest_retry_s, self._give_up_s = retry_s, longest_retry_s, give_up_s
        self._lease_s = lease_s

    def round(self) -> bool:
        """One request that is due; whether there was one. Raises Unavailable."""
        asked = self._commitments.claim(self._lease_s, self._give_up_s)
        if asked is None:
            return False
        verdicts = asked.verdicts
        if verdicts is None:
            verdicts = self._judge.judge(asked.establishment_id, asked.objects, self._prolonging(asked))
            self._commitments.judged(asked.commitment_id, verdicts)
        try:
            self._report(asked, verdicts)
        except (PeerUnavailable, NotFound) as error:
            log.warning("commitment_unreported id=%d error=%s", asked.commitment_id, type(error).__name__)
            if self._commitments.later(asked, self._retry_s, self._longest_retry_s):
                log.error("commitment_given_up id=%d", asked.commitment_id)
        else:
            self._commitments.delivered(asked.commitment_id)
        return True

    def _prolonging(self, asked: Asked) -> Callable[[], None]:
        due = [time.monotonic() + self._lease_s / 3]

        def alive() -> None:
            if time.monotonic() > due[0]:
                self._commitments.prolong(asked.commitment_id, self._lease_s)
                due[0] = time.monotonic() + self._lease_s / 3

        return alive

    def _report(self, asked: Asked, verdicts: Sequence[int]) -> None:
        """Raises PeerUnavailable, NotFound."""
        where = self._destination_of(asked)
        roles = (RoleSelection(PUSH_MODEL, scu=False, scp=True),)  # we serve it, though we call
        limits = replace(self._limits, artim_s=min(self._limits.artim_s, CONNECT_S))
        proposal = Proposal(
            where.title,
            self._title,
            ((PUSH_MODEL, _SYNTAXES),),
            roles=roles,
            limits=limits,
            secured=self._secured(where),
        )
        with associate((where.host, where.port), proposal) as sender:
            context_id, syntax = _context(sender)
            kind, report = messages.write_report(asked.transaction_uid, asked.objects, verdicts, self._title, syntax)
            sender.ask(context_id, N_EVENT_REPORT, _values(event_report(1, kind)), report)
            answer = sender.answer()
        if answer.status != SUCCESS:
            raise PeerUnavailable(f"the report was answered with status 0x{answer.status:04X}")


class Asker:
    """Asks nodes for storage commitment after deliveries. For the sender's process."""

    def __init__(
        self,
        our_title: str,
        commitments: Commitments,
        nodes: Nodes,
        secured: Callable[[Node], Secured | None],
        limits: Limits,
        new_uid: Callable[[], str],
        retry_s: float,
        longest_retry_s: float,
        answer_s: float = 3600.0,
    ) -> None:
        """``answer_s``: without a report within this a node is asked again."""
        self._title, self._commitments, self._nodes, self._limits = our_title, commitments, nodes, limits
        self._secured = secured
        self._new_uid, self._answer_s = new_uid, answer_s
        self._retry_s, self._longest_retry_s = retry_s, longest_retry_s

    def round(self) -> bool:
        """One delivery whose node is to be asked; whether there was one. Raises Unavailable."""
        transaction_uid = self._new_uid()
        to_ask = self._commitments.to_ask(transaction_uid, self._answer_s)
        if to_ask is None:
            return False
        node = self._nodes.of_id(to_ask.node_id)
        try:
            self._ask(node, transaction_uid, to_ask.objects)
        except PeerUnavailable as error:
            log.warning("commitment_unasked delivery_id=%d: %s", to_ask.delivery_id, error)
            self._nodes.silent(node.node_id, "commitment-refused", self._retry_s, self._longest_retry_s)
            self._commitments.ask_again(to_ask.delivery_id, self._retry_s)
        return True

    def _ask(self, node: Node, transaction_uid: str, objects: Sequence[messages.Reference]) -> None:
        """Raises PeerUnavailable: the request was not accepted."""
        assert node.port is not None
        limits = replace(self._limits, artim_s=min(self._limits.artim_s, CONNECT_S))
        contexts = ((PUSH_MODEL, _SYNTAXES),)
        proposal = Proposal(node.title, self._title, contexts, limits=limits, secured=self._secured(node))
        sender = associate((node.host, node.port), proposal)
        try:
            context_id, syntax = _context(sender)
            values: dict[Element, Value] = {
                Element.REQUESTED_SOP_CLASS_UID: PUSH_MODEL,
                Element.REQUESTED_SOP_INSTANCE_UID: WELL_KNOWN_INSTANCE,
                Element.ACTION_TYPE_ID: messages.REQUEST,
            }
            sender.ask(context_id, N_ACTION, values, messages.write_request(transaction_uid, objects, syntax))
            _, response, _ = sender.receive(self._limits.commitment)
            if response.field != N_ACTION | RESPONSE or response.status != SUCCESS:
                raise PeerUnavailable("the node did not accept the request")
        except BaseException:
            sender.abort()
            raise
        with suppress(PeerUnavailable):  # it may report later, on an association of its own
            if sender.answered(WAIT_S):
                self._hear(sender, context_id, syntax)
            sender.release()

    def _hear(self, sender: Sender, context_id: int, syntax: str) -> None:
        """A report on the same association. Raises PeerUnavailable."""
        _, command, data = sender.receive(self._limits.commitment)
        if command.field != N_EVENT_REPORT:
            raise PeerUnavailable("not a report")
        try:
            report = messages.read_report(data, syntax, self._limits)
        except NegatoscopeError:
            sender.respond(context_id, response_to(command, INVALID_ARGUMENT))
            return
        self._commitments.answered(report.transaction_uid, report.committed)
        sender.respond(context_id, response_to(command, SUCCESS))


def _context(sender: Sender) -> tuple[int, str]:
    """The accepted context and its transfer syntax. Raises PeerUnavailable."""
    for context_id, (abstract, syntax) in sender.contexts.items():
        if abstract == PUSH_MODEL:
            return context_id, syntax
    sender.abort()
    raise PeerUnavailable("the peer does not take storage commitment")


def _values(command: Command) -> dict[Element, Value]:
    own = (Element.COMMAND_FIELD, Element.MESSAGE_ID, Element.DATA_SET_TYPE)
    return {element: value for element, value in command.values.items() if element not in own}
