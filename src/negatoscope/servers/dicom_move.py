"""C-MOVE as provider: objects leave for an application entity of the asker's own establishment. PS3.4 C.4.2."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from negatoscope.audit.events import Disclosure, refused, transfer_begun
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN
from negatoscope.errors import NotFound
from negatoscope.model.actor import Right
from negatoscope.servers.dicom_client import AssociationRefused, PeerUnavailable, Proposal, Sender, associate
from negatoscope.servers.dicom_query import DOOR, Archive, Asked, Identifier
from negatoscope.servers.dicom_retrieve import Item, SubOperations, Tally, by_class, conclude, select
from negatoscope.servers.dicom_sending import Content
from negatoscope.sharing import Destination, policy
from negatoscope.wire.dimse import Command, Element, response_to

log = logging.getLogger(__name__)

DESTINATION_UNKNOWN = 0xA801
PAUSES_S = (0.2, 1.0)  # before the second and third attempt to open an association
CONNECT_S = 10.0  # for a connection and the answer to its request; the asker waits meanwhile
REJECTED_PERMANENT = 1
_ALWAYS = (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN)


def move(archive: Archive, asked: Asked, identifier: Identifier) -> Command | None:
    """Send what is named to where it shall go, then the last response (None: sent already).

    Raises:
        Forbidden, MismatchedObject, Unavailable: nothing was sent.
        Gone, ProtocolViolation: the asker's association has ended, or must.
    """
    peer = asked.peer
    scope = policy.scope(peer.actor, Right.RETRIEVE)
    try:
        destination = archive.destination_of(asked.command.text(Element.MOVE_DESTINATION), peer.actor)
    except NotFound as error:
        archive.trail.record([refused(peer.calling_title, "move-destination", DOOR, peer.address, actor=peer.actor)])
        return response_to(asked.command, DESTINATION_UNKNOWN, str(error))
    items = select(archive, scope, identifier)
    tally = Tally(len(items))
    cancelled = False
    if items:
        counts: dict[str, int] = {}
        for item in items:
            counts[item.study_uid] = counts.get(item.study_uid, 0) + 1
        archive.trail.record(
            [transfer_begun(scope, uid, destination.title, n, DOOR, peer.address) for uid, n in counts.items()]
        )
        archive.trail.disclose(scope, Disclosure.TRANSFER, list(counts), DOOR, peer.address)
        for batch, contexts in batches(items, archive.limits.presentation_contexts):
            with _ToDestination(archive, asked, destination, contexts) as carrier:
                if not carrier.open():
                    for item in batch:
                        tally.fail(item)
                elif not SubOperations(archive, asked, carrier, tally).run(batch):
                    cancelled = True
                    break
    return conclude(archive, asked, tally, cancelled=cancelled)


Contexts = list[tuple[str, Sequence[str]]]


def batches(items: Sequence[Item], most: int) -> Iterator[tuple[list[Item], Contexts]]:
    """Items that one association can carry, with what it must propose.

    Each class is proposed in the syntaxes in which its objects are kept, each in a context of its own so that
    the peer takes or leaves it, and in both that every peer should take.
    """
    batch: list[Item] = []
    proposed: dict[tuple[str, str], None] = {}
    for item in items:
        record = item.record
        wanted = [(record.sop_class_uid, syntax) for syntax in (record.transfer_syntax_uid, *_ALWAYS)]
        fresh = dict.fromkeys(pair for pair in wanted if pair not in proposed)
        if batch and len(proposed) + len(fresh) > most:
            yield batch, [(abstract, (syntax,)) for abstract, syntax in proposed]
            batch, proposed, fresh = [], {}, dict.fromkeys(wanted)
        proposed |= fresh
        batch.append(item)
    if batch:
        yield batch, [(abstract, (syntax,)) for abstract, syntax in proposed]


class _ToDestination:
    """A ``Carrier``: an association of ours with the destination."""

    def __init__(self, archive: Archive, asked: Asked, destination: Destination, contexts: Contexts) -> None:
        limits = archive.limits
        self._address = destination.host, destination.port
        self._proposal = Proposal(
            destination.title,
            archive.title,
            contexts,
            limits=replace(limits, artim_s=min(limits.artim_s, CONNECT_S)),
            secured=archive.secured(destination),
        )
        self._originator = asked.peer.calling_title, asked.command.message_id
        self._sender: Sender | None = None
        self._contexts: dict[str, dict[str, int]] = {}

    def __enter__(self) -> _ToDestination:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        sender, self._sender = self._sender, None
        if sender is None:
            return
        if kind is not None:
            sender.abort()
            return
        with suppress(PeerUnavailable):  # all is answered already
            sender.release()

    def open(self) -> bool:
        """Whether there is an association, after a few attempts."""
        for pause in (*PAUSES_S, None):
            try:
                self._sender = associate(self._address, self._proposal)
                self._contexts = by_class(self._sender.contexts)
                return True
            except PeerUnavailable as error:
                log.warning("no association with a move destination: %s", error)
                permanent = isinstance(error, AssociationRefused) and error.reject.result == REJECTED_PERMANENT
                if permanent or pause is None:
                    return False
                time.sleep(pause)
        return False

    def syntaxes(self, sop_class_uid: str) -> Mapping[str, int]:
        return self._contexts.get(sop_class_uid, {})

    def send(self, item: Item, syntax: str, content: Content) -> None:
        record = item.record
        self._open_one().begin_store(record.sop_class_uid, record.sop_instance_uid, syntax, content, self._originator)

    def answered(self, within_s: float) -> bool:
        return self._open_one().answered(within_s)

    def answer(self) -> int:
        return self._open_one().answer().status

    def reopen(self) -> bool:
        if self._sender is not None:
            self._sender.abort()
            self._sender = None
        return self.open()

    def _open_one(self) -> Sender:
        if self._sender is None:
            raise PeerUnavailable("no association")
        return self._sender
