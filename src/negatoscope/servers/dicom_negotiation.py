"""What we answer to an A-ASSOCIATE-RQ: pure, given who asks. PS3.8 7.1, PS3.7 D.3, PS3.4 B.3.1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from negatoscope.dicom.limits import Limits
from negatoscope.dicom.uid import TRANSFER_SYNTAXES, is_storage_class, is_valid_uid
from negatoscope.model.actor import Actor, Right
from negatoscope.wire.dul.items import (
    AsynchronousOperations,
    ContextAnswer,
    ExtendedNegotiation,
    PresentationContext,
    RoleSelection,
    UserInformation,
)
from negatoscope.wire.dul.pdu import (
    APPLICATION_CONTEXT,
    APPLICATION_CONTEXT_UNKNOWN,
    CALLED_TITLE_UNKNOWN,
    CALLING_TITLE_UNKNOWN,
    VERSION_UNSUPPORTED,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
)

VERIFICATION = "1.2.840.10008.1.1"
DICOM_ROOT = "1.2.840.10008."
ACCEPTED, USER_REJECTION, ABSTRACT_SYNTAX_UNSUPPORTED, TRANSFER_SYNTAXES_UNSUPPORTED = 0, 1, 3, 4
LARGEST_WINDOW = 32  # operations a peer may have outstanding
# PS3.4 table B.3-2: level 2 (all elements kept), -, signatures kept as they are, -, nothing coerced, -.
STORAGE_INFORMATION = bytes([2, 0, 3, 0, 0, 0])


def takes_syntax(uid: str) -> bool:
    """Whether data sets in transfer syntax ``uid`` are kept as they come: the known ones and private ones."""
    return uid in TRANSFER_SYNTAXES or (is_valid_uid(uid) and not uid.startswith(DICOM_ROOT))


@dataclass(frozen=True, slots=True)
class Service:
    """SOP classes that we serve as SCP, and the right that their use asks for."""

    covers: Callable[[str], bool]
    right: Right | None  # None: everyone who may associate
    takes: Callable[[str], bool] = takes_syntax  # transfer syntaxes
    extended: Callable[[bytes], bytes] | None = None  # what is granted of an extended negotiation
    gives: bool = False  # its operations send objects on the same association (C-GET)
    reports: bool = False  # the requestor may be its SCP, and report to us (storage commitment)


def storage_information(proposed: bytes) -> bytes:
    return STORAGE_INFORMATION


SERVICES = (
    Service(lambda uid: uid == VERIFICATION, None),
    Service(is_storage_class, Right.STORE, extended=storage_information),
)


def refusal(request: AssociateRequest, our_title: str) -> AssociateReject | None:
    """Why the request is turned down before anyone is asked who the caller is; None: it is not."""
    if not request.version & 1:
        return VERSION_UNSUPPORTED
    if request.application_context != APPLICATION_CONTEXT:
        return APPLICATION_CONTEXT_UNKNOWN
    if request.called_title != our_title:
        return CALLED_TITLE_UNKNOWN
    if not is_title(request.calling_title):
        return CALLING_TITLE_UNKNOWN
    return None


def is_title(title: str) -> bool:
    """Whether ``title`` is 1 to 16 printable ASCII characters without backslash (PS3.5 table 6.2-1, AE)."""
    return 1 <= len(title) <= 16 and all(" " <= letter <= "~" and letter != "\\" for letter in title)


def accept(
    request: AssociateRequest, actor: Actor, limits: Limits, services: Sequence[Service] = SERVICES
) -> AssociateAccept:
    """The acceptance: each context answered for itself; every option answered only if it was proposed."""
    granted = _Granted(request, actor, services)
    answers = tuple(granted.answer(context) for context in request.contexts)
    accepted = {answer.context_id for answer in answers if answer.result == ACCEPTED}
    classes = {context.abstract_syntax for context in request.contexts if context.context_id in accepted}
    window, identity = request.user.asynchronous_operations, request.user.user_identity
    return AssociateAccept(
        answers,
        UserInformation(
            maximum_length=limits.pdu_offered,
            asynchronous_operations=_window(window) if window else None,
            roles=tuple(
                RoleSelection(uid, *granted.roles(uid)) for uid in dict.fromkeys(granted.proposed) if uid in classes
            ),
            extended=tuple(granted.extended(one) for one in request.user.extended if granted.extends(one, classes)),
            # It was checked by ``authenticate``; the answer is empty but for Kerberos and SAML tickets.
            identity_answer=b"" if identity and identity.positive_response else None,
        ),
        echo=request.echo,
    )


class _Granted:
    """What one requestor gets of what it proposes."""

    def __init__(self, request: AssociateRequest, actor: Actor, services: Sequence[Service]) -> None:
        self.proposed = {role.sop_class_uid: role for role in request.user.roles}
        self._services, self._rights = services, actor.rights
        self._gives = any(service.gives for service in services)

    def answer(self, context: PresentationContext) -> ContextAnswer:
        """The first transfer syntax that we take, in the order of the peer, so that bytes stay as they are."""
        fallback = context.transfer_syntaxes[0] if context.transfer_syntaxes else ""
        service = self._service(context.abstract_syntax)
        if service is None:
            return ContextAnswer(context.context_id, ABSTRACT_SYNTAX_UNSUPPORTED, fallback)
        if not any(self.roles(context.abstract_syntax)):
            return ContextAnswer(context.context_id, USER_REJECTION, fallback)
        for uid in context.transfer_syntaxes:
            if service.takes(uid):
                return ContextAnswer(context.context_id, ACCEPTED, uid)
        return ContextAnswer(context.context_id, TRANSFER_SYNTAXES_UNSUPPORTED, fallback)

    def roles(self, uid: str) -> tuple[bool, bool]:
        """Whether the requestor may be SCU, and SCP, of a class: to send us objects, and to be sent them by C-GET."""
        service, role = self._service(uid), self.proposed.get(uid)
        scu = service is not None and (service.right is None or service.right in self._rights)
        if role is None:
            return scu, False
        receives = self._gives and Right.RETRIEVE in self._rights and is_storage_class(uid)
        reports = scu and service is not None and service.reports
        return scu and role.scu, (receives or reports) and role.scp

    def extends(self, proposed: ExtendedNegotiation, classes: set[str]) -> bool:
        service = self._service(proposed.sop_class_uid)
        return proposed.sop_class_uid in classes and service is not None and service.extended is not None

    def extended(self, proposed: ExtendedNegotiation) -> ExtendedNegotiation:
        service = self._service(proposed.sop_class_uid)
        assert service is not None
        assert service.extended is not None
        return ExtendedNegotiation(proposed.sop_class_uid, service.extended(proposed.information))

    def _service(self, uid: str) -> Service | None:
        return next((service for service in self._services if service.covers(uid)), None)


def _window(proposed: AsynchronousOperations) -> AsynchronousOperations:
    """The peer may invoke what it asks, to a ceiling; we invoke one at a time at most."""
    return AsynchronousOperations(min(proposed.invoked or LARGEST_WINDOW, LARGEST_WINDOW), 1)
