"""The query/retrieve services as the DICOM door offers them: which SOP classes, which rights, what answers."""

from __future__ import annotations

from negatoscope.model.actor import Right
from negatoscope.servers.dicom_find import find, find_information
from negatoscope.servers.dicom_link import Link
from negatoscope.servers.dicom_negotiation import Service
from negatoscope.servers.dicom_query import MISMATCH, SOP_CLASSES, Archive, Asked, Operation, Run, takes
from negatoscope.servers.dicom_store import Answer, Exchange, Peer
from negatoscope.wire.dimse import Element, Message
from negatoscope.wire.dimse.commands import C_FIND

SOP_CLASS_UNSUPPORTED = 0x0122

_RUNS: dict[int, Run] = {C_FIND: find}


def _covers(verb: int, uid: str) -> bool:
    return uid in SOP_CLASSES and SOP_CLASSES[uid][0] == verb


FIND = Service(lambda uid: _covers(C_FIND, uid), Right.QUERY, takes, find_information)


class QueryRetrieve:
    """Implements ``dicom_association.Operations``."""

    services = (FIND,)

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
