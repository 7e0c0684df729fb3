"""C-GET and C-FIND against our own sender: what comes in between, and what goes wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from harness import synthetic

from dimse_archive import READER, TITLE, Archive, archive, begin, say
from dimse_fakes import CT, EXPLICIT, VERIFICATION
from negatoscope.db import EmbeddedPostgreSQL
from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.errors import Unavailable
from negatoscope.servers.dicom_client import Proposal, Sender, associate
from negatoscope.wire.dimse import Command, Element, decode, encode, request, response_to
from negatoscope.wire.dimse.commands import C_CANCEL, C_ECHO, C_FIND, C_GET, C_STORE, RESPONSE
from negatoscope.wire.dul.events import Aborted, CommandReceived, DataReceived, Event, Released
from negatoscope.wire.dul.items import AsynchronousOperations, RoleSelection

GET, FIND = "1.2.840.10008.5.1.4.1.2.2.3", "1.2.840.10008.5.1.4.1.2.2.1"
SMALL, LARGE = "2.25.51", "2.25.52"  # studies: three small images, one of 3 MiB
MANY = 3000
LIMITS = replace(DEFAULT_LIMITS, idle_s=3.0, find_answers=10 * MANY)
PROPOSAL = Proposal(
    TITLE,
    READER,
    ((GET, (EXPLICIT,)), (CT, (EXPLICIT,)), (VERIFICATION, (EXPLICIT,))),
    roles=(RoleSelection(CT, True, True),),
)


@pytest.fixture(scope="module")
def here(postgresql: EmbeddedPostgreSQL) -> Iterator[Archive]:
    with archive(postgresql, LIMITS) as made:
        for number in (1, 2, 3):
            made.keep(synthetic(study=SMALL, series=f"{SMALL}.1", sop=f"{SMALL}.1.{number}", number=number), EXPLICIT)
        made.keep(
            synthetic(study=LARGE, series=f"{LARGE}.1", sop=f"{LARGE}.1.1", patient="P2", pixels=bytes(3 << 20)),
            EXPLICIT,
        )
        yield made


def study(uid: str) -> bytes:
    value = uid.encode() + b"\0" * (len(uid) & 1)
    return b"\x08\x00\x52\x00CS\x06\x00STUDY \x20\x00\x0d\x00UI" + len(value).to_bytes(2, "little") + value


class Talk:
    """Reads whole messages of a peer that is not only answering."""

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self.size = 0  # bytes of the last data set

    def next(self) -> Command | Event:
        """The next command, its data set read over; or what ended the association."""
        command: Command | None = None
        self.size = 0
        while True:
            event = self.sender._next()
            if isinstance(event, CommandReceived):
                command = decode(event.data)
                if not command.has_data_set:
                    return command
            elif isinstance(event, DataReceived):
                self.size += len(event.data)
                if event.last:
                    assert command is not None
                    return command
            else:
                return event

    def store(self) -> Command:
        """The next command, which is a C-STORE request."""
        command = self.next()
        assert isinstance(command, Command)
        assert command.field == C_STORE
        return command

    def until_end(self) -> Event:
        while isinstance(found := self.next(), Command):
            pass
        return found


def works(here: Archive) -> bool:
    with associate(here.address, PROPOSAL) as sender:
        return sender.echo() == 0


def test_a_request_in_between_is_answered_after_the_operation(here: Archive) -> None:
    with associate(here.address, PROPOSAL) as sender:
        talk = Talk(sender)
        begin(sender, C_GET, study(SMALL), PRIORITY=0)
        first = talk.store()
        say(sender, 5, request(C_ECHO, 40, {Element.AFFECTED_SOP_CLASS_UID: VERIFICATION}, data_set=False))
        say(sender, 3, response_to(first, 0))
        heard: list[tuple[int, int | None]] = []
        while len(heard) < 6:
            command = talk.next()
            assert isinstance(command, Command)
            heard.append((command.field, command.status if command.is_response else None))
            if command.field == C_STORE:
                say(sender, 3, response_to(command, 0))
    pending, get = (C_GET | RESPONSE, 0xFF00), C_GET | RESPONSE
    store = (C_STORE, None)
    assert heard == [pending, store, pending, store, (get, 0), (C_ECHO | RESPONSE, 0)]


def test_a_store_in_between_is_kept_and_answered_after_the_operation(here: Archive) -> None:
    data = synthetic(study="2.25.53", series="2.25.53.1", sop="2.25.53.1.1", patient="P3")
    with associate(here.address, replace(PROPOSAL, window=4)) as sender:
        assert sender.accepted is not None
        assert sender.accepted.user.asynchronous_operations == AsynchronousOperations(4, 1)
        talk = Talk(sender)
        begin(sender, C_GET, study(LARGE), PRIORITY=0)
        first = talk.store()
        uids = {Element.AFFECTED_SOP_CLASS_UID: CT, Element.AFFECTED_SOP_INSTANCE_UID: "2.25.53.1.1"}
        say(sender, 3, request(C_STORE, 41, {**uids, Element.PRIORITY: 0}, data_set=True), data)
        say(sender, 3, response_to(first, 0))
        got, stored = talk.next(), talk.next()
        assert isinstance(got, Command)
        assert isinstance(stored, Command)
        assert (got.field, got.status) == (C_GET | RESPONSE, 0)
        assert (stored.field, stored.status) == (C_STORE | RESPONSE, 0)


def test_requests_in_between_are_bounded(here: Archive) -> None:
    sender = associate(here.address, replace(PROPOSAL, window=4))
    talk = Talk(sender)
    begin(sender, C_GET, study(SMALL), PRIORITY=0)
    talk.store()
    uids = {Element.AFFECTED_SOP_CLASS_UID: CT, Element.AFFECTED_SOP_INSTANCE_UID: "2.25.54.1.1"}
    try:
        say(sender, 3, request(C_STORE, 41, {**uids, Element.PRIORITY: 0}, data_set=True), bytes(64 << 20))
    except OSError:
        return
    assert isinstance(talk.until_end(), Aborted)


@pytest.mark.parametrize("change", ["number", "kind"])
def test_a_response_to_nothing_ends_the_association(here: Archive, change: str) -> None:
    sender = associate(here.address, PROPOSAL)
    talk = Talk(sender)
    begin(sender, C_GET, study(SMALL), PRIORITY=0)
    first = talk.store()
    wrong = {Element.MESSAGE_ID: 99} if change == "number" else {Element.COMMAND_FIELD: C_ECHO}
    say(sender, 3, response_to(Command({**first.values, **wrong}), 0))
    assert isinstance(talk.until_end(), Aborted)
    assert works(here)


def test_a_peer_that_never_answers_a_sub_operation_is_aborted(here: Archive) -> None:
    sender = associate(here.address, PROPOSAL)
    talk = Talk(sender)
    began = time.monotonic()
    begin(sender, C_GET, study(SMALL), PRIORITY=0)
    talk.store()
    assert isinstance(talk.until_end(), Aborted)
    assert LIMITS.idle_s * 0.9 < time.monotonic() - began < LIMITS.idle_s + 3


@pytest.mark.parametrize("how", ["abort", "release", "reset"])
def test_a_peer_that_leaves_in_the_middle_leaves_the_door_in_order(here: Archive, how: str) -> None:
    failures = here.counts["dicom_failures_total"]
    sender = associate(here.address, PROPOSAL)
    talk = Talk(sender)
    begin(sender, C_GET, study(SMALL), PRIORITY=0)
    talk.store()
    if how == "abort":
        sender.abort()
    elif how == "reset":
        sender._connection.close()
    else:
        sender._send(sender._machine.release(time.monotonic()))
        assert isinstance(talk.until_end(), Released)
    assert works(here)
    assert here.counts["dicom_failures_total"] == failures


def test_an_object_that_rots_is_never_sent_whole(here: Archive) -> None:
    with associate(here.address, PROPOSAL) as sender:
        talk = Talk(sender)
        begin(sender, C_GET, study(LARGE), PRIORITY=0)
        say(sender, 3, response_to(talk.store(), 0))
        whole = talk.size
        assert isinstance(talk.next(), Command)
    here.keep(synthetic(study="2.25.55", series="2.25.55.1", sop="2.25.55.1.1", pixels=bytes(3 << 20)), EXPLICIT)
    segment = max((here.built.folders.segments).iterdir(), key=lambda path: path.stat().st_mtime)
    damage(segment, len(segment.read_bytes().rstrip(b"\0")))
    sender = associate(here.address, PROPOSAL)
    talk = Talk(sender)
    begin(sender, C_GET, study("2.25.55"), PRIORITY=0)
    assert isinstance(talk.next(), Aborted)
    assert 0 < talk.size < whole
    assert works(here)


def damage(segment: Path, end: int) -> None:
    """Turn a bit in the last MiB of what was written."""
    with segment.open("r+b") as file:
        file.seek(end - (1 << 19))
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


# C-FIND --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowded(here: Archive) -> Archive:
    """Many studies more, in the index alone."""
    with here.built.database.unit(None) as unit:
        unit.execute(
            "INSERT INTO patient (authority_oid, identifier, nameless_study_uid, name, birth_date, sex)"
            " SELECT '2.25.1001', 'MANY' || n, '', 'MANY^' || n, '', '' FROM generate_series(1, %s) n",
            (MANY,),
        )
        unit.execute(
            "INSERT INTO study (establishment_id, patient_id, study_uid, study_date, study_time, accession_number,"
            " modalities, number_of_series, number_of_instances, attributes)"
            " SELECT establishment_id, patient_id, '2.25.6.' || patient_id, '20260101', '', '', '{CT}', 1, 1, '{}'"
            " FROM patient, establishment WHERE code = 'A' AND identifier LIKE 'MANY%'"
        )
    return here


ALL = b"\x08\x00\x52\x00CS\x06\x00STUDY \x10\x00\x20\x00LO\x06\x00MANY* \x20\x00\x0d\x00UI\x00\x00"
FIND_PROPOSAL = Proposal(TITLE, READER, ((FIND, (EXPLICIT,)), (VERIFICATION, (EXPLICIT,))))


def test_thousands_of_answers_are_streamed(crowded: Archive) -> None:
    with associate(crowded.address, FIND_PROPOSAL) as sender:
        begin(sender, C_FIND, ALL)
        statuses: list[int] = []
        while not statuses or statuses[-1] in (0xFF00, 0xFF01):
            statuses.append(sender.answer().status)
    assert statuses == [0xFF00] * MANY + [0]


def test_a_query_is_cancelled_while_its_answers_flow(crowded: Archive) -> None:
    with associate(crowded.address, FIND_PROPOSAL) as sender:
        talk = Talk(sender)
        begin(sender, C_FIND, ALL, message_id=7)
        say(sender, 1, cancel(8))
        say(sender, 1, cancel(7))
        heard = [talk.next()]
        while isinstance(heard[-1], Command) and heard[-1].status == 0xFF00:
            heard.append(talk.next())
        last = heard[-1]
        assert isinstance(last, Command)
        assert last.status == 0xFE00
        assert len(heard) < MANY
        say(sender, 1, cancel(7))  # too late: there is nothing to cancel
        assert sender.echo() == 0


def cancel(message_id: int) -> Command:
    return Command(
        {
            Element.COMMAND_FIELD: C_CANCEL,
            Element.MESSAGE_ID_BEING_RESPONDED_TO: message_id,
            Element.DATA_SET_TYPE: 0x0101,
        }
    )


def test_a_cancel_that_came_with_the_query_is_heard(crowded: Archive) -> None:
    with associate(crowded.address, FIND_PROPOSAL) as sender:
        machine = sender._machine
        command = request(C_FIND, 7, {Element.AFFECTED_SOP_CLASS_UID: FIND}, data_set=True)
        together = machine.message(1, encode(command), command=True) + machine.message(1, ALL, command=False)
        sender._send(together + machine.message(1, encode(cancel(7)), command=True))
        assert sender.answer().status == 0xFE00


def test_a_query_without_identifier_or_of_another_class_is_refused(here: Archive) -> None:
    with associate(here.address, FIND_PROPOSAL) as sender:
        for sop_class, data_set, status in ((FIND, None, 0xA900), (GET, ALL, 0x0122), (CT, ALL, 0x0122)):
            values = {Element.AFFECTED_SOP_CLASS_UID: sop_class}
            say(sender, 1, request(C_FIND, 1, values, data_set=data_set is not None), data_set)
            assert sender.answer().status == status
        begin(sender, C_GET, ALL, PRIORITY=0)
        assert sender.answer().status == 0x0122


@pytest.mark.parametrize("data_set", [b"\x08\x00\x52\x00CS\xff\x00STUDY ", b"nonsense", b"\xff" * 100])
def test_an_identifier_that_cannot_be_read_is_refused(here: Archive, data_set: bytes) -> None:
    with associate(here.address, FIND_PROPOSAL) as sender:
        begin(sender, C_FIND, data_set)
        assert sender.answer().status in (0xA900, 0xC000, 0xC002)
        assert sender.echo() == 0


def test_nothing_is_answered_while_the_audit_trail_cannot_be_written(
    here: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object, **__: object) -> None:
        raise Unavailable("the audit trail cannot be written")

    monkeypatch.setattr(here.built.trail, "record", unavailable)
    monkeypatch.setattr(here.built.trail, "disclose", unavailable)
    with associate(here.address, FIND_PROPOSAL) as sender:
        begin(sender, C_FIND, study(SMALL))
        assert sender.answer().status == 0xA700
    with associate(here.address, PROPOSAL) as sender:
        begin(sender, C_GET, study(SMALL), PRIORITY=0)
        assert sender.answer().status == 0xA701
