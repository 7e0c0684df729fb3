"""Deliveries by C-STORE: one association for as many objects as its presentation contexts cover."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from negatoscope.archive.ports import Buffer
from negatoscope.archive.retrieve import Retrieval
from negatoscope.dicom.limits import Limits
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN
from negatoscope.errors import CannotTranscode, CorruptObject, NegatoscopeError
from negatoscope.model.stored import InstanceRecord
from negatoscope.routing import Node
from negatoscope.servers.dicom_client import AssociationRefused, PeerUnavailable, Proposal, Sender, associate
from negatoscope.servers.dicom_pixels import Transcoder, choose
from negatoscope.servers.dicom_retrieve import WARNINGS, by_class, even
from negatoscope.servers.dicom_sending import Content, Stored
from negatoscope.servers.dicom_tls import Secured
from negatoscope.servers.sender_run import NodeSilent, Parcel, Run, preferred
from negatoscope.wire.dimse.commands import SUCCESS

log = logging.getLogger(__name__)

CONNECT_S = 10.0  # for a connection and the answer to its request
OUT_OF_RESOURCES = range(0xA700, 0xA800)  # PS3.4 table B.2-1: the node has no room now; that is not the object's fault
_ALWAYS = (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN)
Contexts = list[tuple[str, Sequence[str]]]
Securing = Callable[[Node], Secured | None]  # raises Unavailable: never plain text instead


@dataclass(frozen=True, slots=True)
class _Ready:
    parcel: Parcel
    syntax: str
    content: Content


class DimseCarrier:
    """Thread-safe: an association belongs to the call."""

    def __init__(
        self, retrieval: Retrieval, transcoder: Transcoder, title: str, limits: Limits, secured: Securing
    ) -> None:
        """``title``: as which we call. ``secured``: how a node is called over TLS, None in plain text."""
        self._retrieval, self._transcoder, self._title, self._limits = retrieval, transcoder, title, limits
        self._secured = secured

    def echo(self, node: Node) -> None:
        """C-ECHO. Raises NodeSilent."""
        try:
            with _associated(node, self.proposal(node, [("1.2.840.10008.1.1", (IMPLICIT_LITTLE_ENDIAN,))])) as sender:
                status = sender.echo()
        except (PeerUnavailable, NegatoscopeError) as error:
            raise NodeSilent(slug(error)) from error
        if status != SUCCESS:
            raise NodeSilent(f"status-{status:04x}")

    def proposal(self, node: Node, contexts: Contexts) -> Proposal:
        limits = replace(self._limits, artim_s=min(self._limits.artim_s, CONNECT_S))
        return Proposal(node.title, self._title, contexts, limits=limits, secured=self._secured(node))

    def deliver(self, node: Node, parcels: Sequence[Parcel], run: Run) -> None:
        """See ``Carrier``."""
        for batch, contexts in batches(parcels, self._limits.presentation_contexts, run.claimed.syntax):
            left = list(batch)
            while left:  # once more on a new association behind an object that broke off in the middle
                left = self._on_one(node, contexts, left, run)

    def _on_one(self, node: Node, contexts: Contexts, parcels: Sequence[Parcel], run: Run) -> list[Parcel]:
        """Send over one association; what is left when an object of ours could not be finished."""
        run.check()
        try:
            with _associated(node, self.proposal(node, contexts)) as sender:
                run.connected.set()
                return self._send_all(sender, parcels, run)
        except PeerUnavailable as error:
            raise NodeSilent(slug(error)) from error

    def _send_all(self, sender: Sender, parcels: Sequence[Parcel], run: Run) -> list[Parcel]:
        accepted = by_class(sender.contexts)
        following = self._prepare(parcels[0], accepted, run)
        for index, parcel in enumerate(parcels):
            run.check()
            ready, following = following, None
            rest = parcels[index + 1 :]
            if ready is None:
                following = self._prepare(rest[0], accepted, run) if rest else None
                continue
            record = parcel.record
            try:
                sender.begin_store(record.sop_class_uid, record.sop_instance_uid, ready.syntax, ready.content)
                following = self._prepare(rest[0], accepted, run) if rest else None  # while the node keeps this one
                status = sender.answer().status
            except PeerUnavailable:
                run.lost([parcel])
                raise
            except NegatoscopeError as error:  # our bytes are not what was kept, and half of them are under way
                log.error("an object cannot be sent: %s", type(error).__name__)
                run.refused(parcel, _why(error))
                sender.abort()
                return list(rest)
            self._judge(parcel, status, run)
        return []

    def _judge(self, parcel: Parcel, status: int, run: Run) -> None:
        if status == SUCCESS or status >> 12 == 0xB or status in WARNINGS:
            run.acknowledged(parcel)
        elif status in OUT_OF_RESOURCES:
            raise NodeSilent("no-room")
        else:
            log.warning("an object was refused by its receiver: status 0x%04X", status)
            run.refused(parcel, f"{status:04X}")

    def _prepare(self, parcel: Parcel, accepted: Mapping[str, Mapping[str, int]], run: Run) -> _Ready | None:
        """The object, its first bytes read; None: it cannot be sent, which is noted."""
        record = parcel.record
        syntaxes = accepted.get(record.sop_class_uid, {}).keys()
        try:
            for syntax in choices(record, syntaxes, run.claimed.syntax):
                with suppress(CannotTranscode):
                    return _Ready(parcel, syntax, self._content(parcel, syntax))
            run.refused(parcel, "not-accepted")
        except NegatoscopeError as error:
            log.error("an object cannot be sent: %s", type(error).__name__)
            run.refused(parcel, _why(error))
        return None

    def _content(self, parcel: Parcel, syntax: str) -> Content:
        record = parcel.record
        if syntax != record.transfer_syntax_uid:
            return even(self._transcoder.transcode(record, parcel.study_uid, syntax))
        length, read_range = record.location.length, self._retrieval.read_range

        def read(offset: int, size: int) -> Buffer:
            inside = min(size, length - offset)  # odd ones are padded: fragments are even (PS3.8 annex E)
            data = read_range(record, offset, inside, parcel.study_uid)
            return data if inside == size else data + b"\0" * (size - inside)

        stored = Stored(length + (length & 1), read)
        stored.begin()
        return stored


def choices(record: InstanceRecord, accepted: Collection[str], wanted: str) -> Iterator[str]:
    """Transfer syntaxes in which an object may leave, best first."""
    first = preferred(record, wanted)
    if first and first in accepted:
        yield first
    chosen = choose(record.transfer_syntax_uid, accepted)
    if chosen is not None:
        yield chosen


def batches(parcels: Sequence[Parcel], most: int, syntax: str) -> Iterator[tuple[list[Parcel], Contexts]]:
    """Parcels that one association can carry, with what it must propose: each syntax in a context of its own."""
    batch: list[Parcel] = []
    proposed: dict[tuple[str, str], None] = {}
    for parcel in parcels:
        record = parcel.record
        syntaxes = dict.fromkeys((record.transfer_syntax_uid, syntax or EXPLICIT_LITTLE_ENDIAN, *_ALWAYS))
        wanted = dict.fromkeys((record.sop_class_uid, one) for one in syntaxes)
        if batch and len(proposed | wanted) > most:
            yield batch, [(abstract, (one,)) for abstract, one in proposed]
            batch, proposed = [], {}
        proposed |= wanted
        batch.append(parcel)
    if batch:
        yield batch, [(abstract, (one,)) for abstract, one in proposed]


@contextmanager
def _associated(node: Node, proposal: Proposal) -> Iterator[Sender]:
    """An association that is released at the end, aborted when something went wrong."""
    assert node.port is not None
    sender = associate((node.host, node.port), proposal)
    try:
        yield sender
    except BaseException:
        sender.abort()
        raise
    with suppress(PeerUnavailable):  # all is answered already
        sender.release()


def slug(error: Exception) -> str:
    """Why a node is silent, for the page."""
    if isinstance(error, AssociationRefused):
        return "association-rejected"
    text = str(error)
    return "no-connection" if text.startswith("no connection") else "connection-lost"


def _why(error: NegatoscopeError) -> str:
    return "corrupt" if isinstance(error, CorruptObject) else "unreadable"
