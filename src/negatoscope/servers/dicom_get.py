"""C-GET as provider: objects leave on the association that asked for them. PS3.4 C.4.3."""

from __future__ import annotations

from collections.abc import Mapping

from negatoscope.audit.events import Disclosure
from negatoscope.model.actor import Right
from negatoscope.servers.dicom_link import Gone, Link
from negatoscope.servers.dicom_query import DOOR, Archive, Asked, Identifier
from negatoscope.servers.dicom_retrieve import Item, SubOperations, Tally, by_class, conclude, select
from negatoscope.servers.dicom_sending import Content
from negatoscope.sharing import policy
from negatoscope.wire.dimse import Command, Element, encode, request
from negatoscope.wire.dimse.commands import C_STORE, MEDIUM_PRIORITY, RESPONSE
from negatoscope.wire.dul.items import NOT_SPECIFIED, ProtocolViolation

LAST_MESSAGE_ID = 0xFFFF


def get(archive: Archive, asked: Asked, identifier: Identifier) -> Command | None:
    """Send what is named, then the last response (None: sent already).

    Raises:
        Forbidden, MismatchedObject, Unavailable: nothing was sent.
        Gone, ProtocolViolation: the association has ended, or must.
    """
    scope = policy.scope(asked.peer.actor, Right.RETRIEVE)
    items = select(archive, scope, identifier)
    tally = Tally(len(items))
    cancelled = False
    if items:
        studies = list(dict.fromkeys(item.study_uid for item in items))
        archive.trail.disclose(scope, Disclosure.TRANSFER, studies, DOOR, asked.peer.address)
        cancelled = not SubOperations(archive, asked, _OnSameAssociation(asked.link), tally).run(items)
    return conclude(archive, asked, tally, cancelled=cancelled)


class _OnSameAssociation:
    """A ``Carrier``: we are SCU of storage on the association of the C-GET, in the roles negotiated for it."""

    def __init__(self, link: Link) -> None:
        self._link, self._message_id = link, 0
        self._contexts = by_class({id_: pair for id_, pair in link.contexts.items() if pair[0] in link.receives})

    def syntaxes(self, sop_class_uid: str) -> Mapping[str, int]:
        return self._contexts.get(sop_class_uid, {})

    def send(self, item: Item, syntax: str, content: Content) -> None:
        record = item.record
        context_id = self.syntaxes(record.sop_class_uid)[syntax]
        self._message_id = self._message_id % LAST_MESSAGE_ID + 1
        command = request(
            C_STORE,
            self._message_id,
            {
                Element.AFFECTED_SOP_CLASS_UID: record.sop_class_uid,
                Element.AFFECTED_SOP_INSTANCE_UID: record.sop_instance_uid,
                Element.PRIORITY: MEDIUM_PRIORITY,
            },
            data_set=True,
        )
        self._link.send(self._link.framed(context_id, encode(command), command=True))
        self._link.send_content(context_id, content)

    def answered(self, within_s: float) -> bool:
        return self._link.answered(within_s)

    def answer(self) -> int:
        response = self._link.answer()
        if (
            response.field != C_STORE | RESPONSE
            or response.number(Element.MESSAGE_ID_BEING_RESPONDED_TO) != self._message_id
        ):
            raise ProtocolViolation(NOT_SPECIFIED, "a response to nothing that was asked")
        return response.status

    def reopen(self) -> bool:
        """Half an object is with the peer: only an abort tells it so."""
        self._link.abort()
        raise Gone
