"""STOW-RS, PS3.18 10.5: objects stream from the network into the archive.

A part of ``application/dicom`` goes to its reception as it comes; only its first 64 KiB (file meta) are held.
Objects go into batches, which share syncs and commits; a few batches of one request commit at a time, and
the answers keep the order of the parts. A connection that is cut takes away the part that was coming and
nothing else.

What is large is read by worker threads, a turn each, straight from the connection (``web.receiving``).
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from typing import Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from negatoscope.archive.ports import Batch, BatchedReception, BatchReceiver
from negatoscope.dicom.limits import Limits
from negatoscope.dicom.part10 import FileMeta, read_file_meta
from negatoscope.dicom.uid import is_valid_uid
from negatoscope.errors import BadRequest, InvalidObject, NegatoscopeError, UnsupportedMediaType
from negatoscope.model.actor import Right
from negatoscope.model.source import Announced, Door, Source
from negatoscope.model.stored import StoreResult
from negatoscope.web.media_types import DICOM, DICOM_JSON, DICOM_XML, JSON, MULTIPART, Offer, accept_of, negotiate
from negatoscope.web.receiving import DirectBody, take_body
from negatoscope.web.services import Services
from negatoscope.web.stow_answer import Stored, answer_of
from negatoscope.web.stow_metadata import MetadataParts
from negatoscope.wire.multipart import Event, MultipartReader, PartBegan, PartData, PartEnded, parse_content_type

COMMITS_AT_ONCE = 3  # of one request
BATCH_BYTES = 4 << 20  # after which a batch is committed while the next one is received
BATCH_OBJECTS = 32
READ_BYTES = 256 << 10  # by a thread at once: small enough to stay in the processor's cache
TURN_BYTES = 4 << 20  # that a thread reads before other work has its turn
CROWDED_S = 0.05  # that a thread waits for a commit; a slow one is waited for without a thread
ANSWERS = (Offer(DICOM_JSON), Offer(JSON), Offer(DICOM_XML))
_META_ROOM = 200  # preamble, magic and the element after group 0002


def stow_routes(services: Services) -> list[BaseRoute]:
    """POST below ``/dicom-web``."""
    endpoint = partial(store_instances, services)
    return [
        Route("/dicom-web/studies", endpoint, methods=["POST"], name="store"),
        Route("/dicom-web/studies/{study_uid}", endpoint, methods=["POST"], name="store-study"),
    ]


async def store_instances(services: Services, request: Request) -> Response:
    """200: all kept. 202: some failed or were set aside. 409 and others: none kept; the body says why of each."""
    source, study_uid = await services.run(_sender, services, request)
    representation = negotiate(
        accept_of(request.headers.get("accept"), request.query_params.get("accept")), ANSWERS
    ).offer.essence
    intake = _intake(services, request, source, study_uid)
    body: DirectBody | None = None
    try:
        async for chunk in request.stream():
            body = take_body(request)  # now, before more of it is received
            if chunk:
                await _advance(services, intake, chunk)
            if body is not None:
                await _advance_directly(services, intake, body)
                break
        await _advance(services, intake, None)
        stored = [await slot.outcome() for slot in intake.slots]
    except ClientDisconnect:
        await services.run(intake.cut)
        return Response(status_code=400)  # nobody is there to read it
    except BaseException:
        await services.run(intake.cut)
        raise
    finally:
        if body is not None:
            body.close()
    return answer_of(stored, study_uid, representation)


def _sender(services: Services, request: Request) -> tuple[Source, str | None]:
    """Who sends, and the one study its objects must belong to.

    Raises:
        Unauthenticated, Forbidden: it may not store.
        BadRequest: the study of the path is no UID.
    """
    authentication = services.authentication
    scope = services.scope(request, Right.STORE)
    authentication.check_csrf(request)
    actor = scope.actor
    study_uid = request.path_params.get("study_uid")
    if study_uid is not None and not is_valid_uid(study_uid):
        raise BadRequest("the study in the address is not a UID")
    if actor.only_study_uid is not None:
        if study_uid not in (None, actor.only_study_uid):
            raise BadRequest("the token is for another study")
        study_uid = actor.only_study_uid
    source = Source(
        actor.actor_id,
        actor.establishment_id,
        actor.establishment_code,
        actor.authority_oid,
        actor.name,
        authentication.address_of(request),
        Door.STOW,
    )
    return source, study_uid


def _intake(services: Services, request: Request, source: Source, study_uid: str | None) -> Intake:
    """The reader of this body. Raises UnsupportedMediaType, BadRequest."""
    kind, parameters = parse_content_type(request.headers.get("content-type", ""))
    target = Target(services.receiver, source, study_uid, services.limits)
    if kind == DICOM:
        return Intake(services, target, None)
    if kind != MULTIPART:
        raise UnsupportedMediaType("objects are taken as multipart/related or application/dicom")
    if "boundary" not in parameters:
        raise BadRequest("multipart/related without a boundary")
    reader = MultipartReader(parameters["boundary"], parts=services.limits.stow_parts)
    part = parse_content_type(parameters.get("type", ""))[0]
    if part in (DICOM, ""):
        return Intake(services, target, reader)
    if part in (DICOM_JSON, DICOM_XML):
        return Intake(services, target, reader, MetadataParts(part, services.limits))
    raise UnsupportedMediaType(f"parts are {DICOM}, {DICOM_JSON} or {DICOM_XML} with bulk data")


async def _advance(services: Services, intake: Intake, chunk: bytes | None) -> None:
    """Take a chunk in (None: the body is over), waiting for commits when enough are under way."""
    done = await services.run(intake.receive, chunk)
    while not done:
        await intake.room()
        done = await services.run(intake.go_on)


async def _advance_directly(services: Services, intake: Intake, body: DirectBody) -> None:
    """Take in all that is left of the body. Raises ClientDisconnect."""
    try:
        while (turn := await services.run(intake.take_turn, body)) is not Turn.COMPLETE:
            if turn is Turn.CROWDED:
                await intake.room()
            elif turn is Turn.STARVED and not await body.ready():
                raise ClientDisconnect
    except ConnectionError as error:
        raise ClientDisconnect from error


class Turn(Enum):
    """Why a thread stopped reading a body."""

    OVER = auto()  # others want the thread too
    STARVED = auto()  # the sender is slower
    CROWDED = auto()  # the commits are
    COMPLETE = auto()


@dataclass(frozen=True, slots=True)
class Target:
    """Where the objects of one request go."""

    receiver: BatchReceiver
    source: Source
    study_uid: str | None
    limits: Limits

    def begin(self, batch: Batch, transfer_syntax_uid: str) -> BatchedReception:
        return batch.begin(self.source, Announced(transfer_syntax_uid, study_uid=self.study_uid))


Committed = list[StoreResult | NegatoscopeError]


@dataclass(slots=True)
class Slot:
    """What becomes of one object: in the order of the body."""

    commit: Future[Committed] | None = None
    place: int = 0  # in its batch
    error: NegatoscopeError | None = None
    sop_class_uid: str = ""  # as announced: for the answer when the object is refused
    sop_instance_uid: str = ""

    async def outcome(self) -> Stored:
        """Wait for the commit, if there is one."""
        result = None
        if self.commit is not None:
            outcome = (await asyncio.wrap_future(self.commit))[self.place]
            if isinstance(outcome, NegatoscopeError):
                self.error = outcome
            else:
                result = outcome
        return Stored(result, self.error, self.sop_class_uid, self.sop_instance_uid)


class ObjectPart:
    """One ``application/dicom`` object on its way in."""

    def __init__(self, target: Target, batch: Batch, slot: Slot) -> None:
        self._target, self._batch, self.slot = target, batch, slot
        self._head = bytearray()
        self._reception: BatchedReception | None = None

    def write(self, data: memoryview) -> None:
        """Never raises: a part that cannot be kept is read to its end and reported."""
        if self.slot.error is not None:
            return
        try:
            if self._reception is None:
                self._head += data
                if len(self._head) >= self._target.limits.file_meta + _META_ROOM:
                    self._begin()
            else:
                self._reception.write([data])
        except NegatoscopeError as error:
            self._refuse(error)

    def end(self) -> bool:
        """It is complete: whether it waits for the commit of its batch."""
        if self.slot.error is None:
            try:
                if self._reception is None:
                    self._begin()
                assert self._reception is not None
                self._reception.finish()
            except NegatoscopeError as error:
                self._refuse(error)
        return self.slot.error is None

    def cut(self, error: NegatoscopeError) -> None:
        """The rest will not come."""
        if self.slot.error is None:
            self._refuse(error)

    def _begin(self) -> None:
        head = bytes(self._head)
        self._head.clear()
        meta, offset = read_file_meta(head, self._target.limits)
        self._note(meta)
        self._reception = self._target.begin(self._batch, meta.transfer_syntax_uid)
        self._reception.write([memoryview(head)[offset:]])

    def _note(self, meta: FileMeta) -> None:
        self.slot.sop_class_uid, self.slot.sop_instance_uid = meta.sop_class_uid, meta.sop_instance_uid

    def _refuse(self, error: NegatoscopeError) -> None:
        self.slot.error = error
        if self._reception is not None:
            self._reception.abort()


class Parts(Protocol):
    """Parts that become objects only when the whole body is there."""

    def begin(self, event: PartBegan) -> None: ...
    def write(self, data: memoryview) -> None: ...
    def end(self) -> None: ...
    def objects(self) -> Iterator[MetadataObject]: ...
    def close(self) -> None: ...


class MetadataObject(Protocol):
    """An object given as metadata and bulk data."""

    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str

    def chunks(self) -> Iterator[bytes]: ...


@dataclass(slots=True)
class Intake:
    """One request body. Its methods run on worker threads, one at a time; none waits long for a commit.

    Whatever happens, :meth:`receive` has taken None or :meth:`cut` was called: else a batch would stay open.
    """

    services: Services
    target: Target
    reader: MultipartReader | None
    metadata: Parts | None = None
    slots: list[Slot] = field(default_factory=list)
    _events: deque[Event] = field(default_factory=deque)
    _open: ObjectPart | None = None
    _later: Iterator[MetadataObject] | None = None
    _under_way: deque[Future[Committed]] = field(default_factory=deque)
    _batch: Batch | None = None
    _batched: list[Slot] = field(default_factory=list)  # finished, in the batch
    _cut: bool = False
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def take_turn(self, body: DirectBody) -> Turn:
        """Read on for as long as bytes come and there is room for their commits, but no longer than a turn.

        Raises as :meth:`receive`, and ConnectionError: the sender has left.
        """
        with self._turn:
            if not self.go_on():
                return Turn.CROWDED
            # Views of a crowded turn's buffer live on: the next turn has its own.
            buffer, end = bytearray(min(READ_BYTES, body.left)), body.left - TURN_BYTES
            while body.left > max(0, end):
                if self._cut:
                    raise ConnectionAbortedError
                length = body.read_into(buffer)
                if not length:
                    self._commit_batch()  # who knows when more comes
                    return Turn.STARVED
                if not self._take_in(buffer, length):
                    return Turn.CROWDED
            return Turn.OVER if body.left else Turn.COMPLETE

    def receive(self, chunk: bytes | None) -> bool:
        """Take a chunk; None: no more will come. False: call :meth:`go_on` when there is room.

        Raises:
            BadRequest, TooLarge: the body as a whole cannot be understood.
        """
        with self._turn:
            return self._finish() if chunk is None else self._take_in(chunk, len(chunk))

    def _take_in(self, chunk: bytes | bytearray, length: int) -> bool:
        if self.reader is not None:
            self._events.extend(self.reader.receive(chunk, length))
            return self.go_on()
        if self._open is None:
            self._open = self._new_part()
        self._open.write(memoryview(chunk)[:length])
        return True

    def go_on(self) -> bool:
        """Work off what was received, until enough commits are under way."""
        while self._events:
            if self._crowded():
                return False
            self._take(self._events.popleft())
        return self._later is None or self._store_later()

    async def room(self) -> None:
        """Wait for the oldest commit under way, whatever becomes of it."""
        if self._under_way:
            await asyncio.wait([asyncio.wrap_future(self._under_way[0])])

    def cut(self) -> None:
        """The body will not go on: its open part is taken away; commits under way go on."""
        self._cut = True
        with self._turn:  # a request that was cancelled may leave a thread at work
            self._cut_open()
            self._commit_batch()

    def _cut_open(self) -> None:
        if self._open is not None:
            self._open.cut(InvalidObject("the body ended within this object"))
            self._open = None
        if self.metadata is not None:
            self.metadata.close()

    def _crowded(self) -> bool:
        if len(self._under_way) >= COMMITS_AT_ONCE:
            wait_for([self._under_way[0]], CROWDED_S)
        while self._under_way and self._under_way[0].done():
            self._under_way.popleft()
        return len(self._under_way) >= COMMITS_AT_ONCE

    def _new_part(self) -> ObjectPart:
        self.slots.append(Slot())
        return ObjectPart(self.target, self._open_batch(), self.slots[-1])

    def _open_batch(self) -> Batch:
        if self._batch is None:
            self._batch = self.target.receiver.batch()
        return self._batch

    def _take(self, event: Event) -> None:
        parts = self.metadata
        match event:
            case PartBegan():
                if parts is not None:
                    parts.begin(event)
                else:
                    self._open = self._new_part()
                    kind = parse_content_type(event.headers.get("content-type", DICOM))[0]
                    if kind not in (DICOM, ""):
                        self._open.cut(UnsupportedMediaType(f"this part is not {DICOM}"))
            case PartData(data):
                if parts is not None:
                    parts.write(data)
                elif self._open is not None:
                    self._open.write(data)
            case PartEnded():
                if parts is not None:
                    parts.end()
                else:
                    self._commit_open()

    def _commit_open(self) -> None:
        part, self._open = self._open, None
        if part is not None and part.end():
            self._join_batch(part.slot)

    def _join_batch(self, slot: Slot) -> None:
        assert self._batch is not None
        slot.place = len(self._batched)
        self._batched.append(slot)
        if self._batch.bytes >= BATCH_BYTES or len(self._batched) >= BATCH_OBJECTS:
            self._commit_batch()

    def _commit_batch(self) -> None:
        """Not while a part is open in it."""
        batch, slots = self._batch, self._batched
        if batch is None or self._open is not None:
            return
        self._batch, self._batched = None, []
        commit = self.services.commits.submit(batch.commit)
        for slot in slots:
            slot.commit = commit
        self._under_way.append(commit)

    def _finish(self) -> bool:
        if self.reader is None:
            self._commit_open()
        elif not self.reader.ended:
            if not self.slots:
                raise BadRequest("the multipart body has no end")
            self._cut_open()
        elif self.metadata is not None:
            self._later = self.metadata.objects()
            return self._store_later()
        self._commit_batch()
        if not self.slots:
            raise BadRequest("the body holds no object")
        return True

    def _store_later(self) -> bool:
        """Store objects of metadata and bulk data until enough commits are under way."""
        while self._later is not None:
            if self._crowded():
                return False
            found = next(self._later, None)
            if found is None:
                self._later = None
                break
            slot = Slot(sop_class_uid=found.sop_class_uid, sop_instance_uid=found.sop_instance_uid)
            self.slots.append(slot)
            self._store_metadata(slot, found)
        if self.metadata is not None:
            self.metadata.close()
        self._commit_batch()
        if not self.slots:
            raise BadRequest("the body holds no object")
        return True

    def _store_metadata(self, slot: Slot, found: MetadataObject) -> None:
        reception: BatchedReception | None = None
        try:
            reception = self.target.begin(self._open_batch(), found.transfer_syntax_uid)
            for chunk in found.chunks():
                reception.write([chunk])
            reception.finish()
        except BaseException as error:
            if reception is not None:
                reception.abort()
            if not isinstance(error, NegatoscopeError):
                raise
            slot.error = error
            return
        self._join_batch(slot)
