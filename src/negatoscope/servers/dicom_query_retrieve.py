"""The query/retrieve services as the DICOM door offers them: which SOP classes, which rights, what answers."""

from __future__ import annotations

from negatoscope.model.actor import Right
from negatoscope.servers.dicom_find import find, find_information
from negatoscope.servers.dicom_get import get
from negatoscope.servers.dicom_link import Link
from negatoscope.servers.dicom_move import move
from negatoscope.servers.dicom_negotiation import Service
from negatoscope.servers.dicom_query import MISMATCH, SOP_CLASSES, Archive, Asked, Operation, Run, takes
from negatoscope.servers.dicom_retrieve import retrieve_information
from negatoscope.servers.dicom_store import Answer, Exchange, Peer
from negatoscope.wire.dimse import Element, Message
from negatoscope.wire.dimse.commands import C_FIND, C_GET, C_MOVE

SOP_CLASS_UNSUPPORTED = 0x0122

_RUNS: dict[int, Run] = {C_FIND: find, C_GET: get, C_MOVE: move}


def _covers(verb: int, uid: str) -> bool:
    return uid in SOP_CLASSES and SOP_CLASSES[uid][0] == verb


FIND = Service(lambda uid: _covers(C_FIND, uid), Right.QUERY, takes, find_information)
MOVE = Service(lambda uid: _covers(C_MOVE, uid), Right.RETRIEVE, takes, retrieve_information)
GET = Service(lambda uid: _covers(C_GET, uid), Right.RETRIEVE, takes, retrieve_information, gives=True)


class QueryRetrieve:
    """Implements ``dicom_association.Operations``."""

    services = (FIND, MOVE, GET)

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def open(self, message: Message, context: tuple[str, str], peer: Peer, link: Link) -> Exchange | None:
        """See ``Operations``."""
        command = message.command
        run = _RUNS.get(command.field)
        if run is None:
            return None
        uid = command.text(Element.AFFECTED_SOP_CLASS_UID)
        if uid != context[0] or not _covers(command.field, uid):
            return Answer(
                command, SOP_CLASS_UNSUPPORTED, "Affected SOP class is not the one of its presentation context"
            )
        if not command.has_data_set:
            return Answer(command, MISMATCH, "no identifier")
        model = SOP_CLASSES[uid][1]
        asked = Asked(command, message.context_id, context[1], model, link.extended.get(uid, b""), peer, link)
        return Operation(self._archive, asked, run)
