"""Storage commitment with pynetdicom in the other role: only what is whole on the disk is promised."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import pytest
from harness import synthetic
from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid
from pynetdicom import AE, build_role, evt

from dimse_archive import READER, STORER, TITLE
from negatoscope.db import EmbeddedPostgreSQL
from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.model.actor import Right, Scope
from negatoscope.routing import State
from negatoscope.routing.commitment_messages import write_request
from negatoscope.sending import commitment_service, duties
from negatoscope.servers.dicom import DicomServer
from negatoscope.servers.dicom_client import Proposal, associate
from negatoscope.servers.dicom_commitment import INVALID_ARGUMENT, PUSH_MODEL, WELL_KNOWN_INSTANCE, CommitmentService
from negatoscope.sharing import COMMAND_LINE
from negatoscope.storage.segments import segment_path
from negatoscope.wire.dimse.commands import N_ACTION, Element, Value
from sending_bench import EXPLICIT, QUICK, Bench, bench, free_port, wait

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
PROCESSING_FAILURE, NO_SUCH_OBJECT, CLASS_CONFLICT = 0x0110, 0x0112, 0x0119
Reference = tuple[str, str]


@dataclass
class Committing:
    bench: Bench
    port: int

    def limited(self, limit: int) -> CommitmentService:
        built = self.bench.archive.built
        limits = changed(DEFAULT_LIMITS, commitment=limit)
        return CommitmentService(
            TITLE, self.bench.parts.commitments, self.bench.parts.judge, limits, built.metrics.count
        )


@contextmanager
def door(made: Bench, service: CommitmentService) -> Iterator[int]:
    built = made.archive.built
    server = DicomServer(
        ("127.0.0.1", 0),
        TITLE,
        built.store,
        lambda calling, called, address, *more: built.accounts.actor_of_title(calling, address, called),
        operations=(service,),
    )
    server.start()
    yield server.address[1]
    server.stop()


@pytest.fixture
def committing(postgresql: EmbeddedPostgreSQL) -> Iterator[Committing]:
    with bench(postgresql) as made, door(made, commitment_service(made.archive.built)) as port:
        yield Committing(made, port)


def asked(objects: list[Reference], transaction: str = "") -> Dataset:
    dataset = Dataset()
    dataset.TransactionUID = transaction or generate_uid()
    dataset.ReferencedSOPSequence = []
    for sop_class, uid in objects:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        dataset.ReferencedSOPSequence.append(item)
    return dataset


@dataclass
class Modality:
    """A user of storage commitment that keeps the reports it gets, on either kind of association."""

    title: str = STORER
    reports: list[tuple[int, Dataset]] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)
    status: int = 0x0000

    def hear(self, event: Any) -> tuple[int, Dataset | None]:
        if self.status == 0x0000:
            self.reports.append((event.event_type, event.event_information))
            self.arrived.set()
        return self.status, None

    def ask(self, port: int, objects: list[Reference], stay_s: float = 10.0) -> int:
        entity = AE(ae_title=self.title)
        entity.add_requested_context(PUSH_MODEL, EXPLICIT)
        association = entity.associate(
            "127.0.0.1", port, ae_title=TITLE, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self.hear)]
        )
        assert association.is_established
        status, _ = association.send_n_action(asked(objects), 1, UID(PUSH_MODEL), UID(WELL_KNOWN_INSTANCE))
        if stay_s:
            self.arrived.wait(stay_s)
            time.sleep(0.1)
            association.release()
        else:
            association.abort()
        return int(status.Status)

    @contextmanager
    def listening(self, port: int) -> Iterator[None]:
        entity = AE(ae_title=self.title)
        entity.add_supported_context(PUSH_MODEL, EXPLICIT, scu_role=False, scp_role=True)
        server = entity.start_server(
            ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self.hear)]
        )
        assert server is not None
        yield
        server.shutdown()

    def verdicts(self) -> dict[str, int]:
        """Failure reason by SOP Instance UID, 0 for what is committed, of the last report."""
        _, report = self.reports[-1]
        found = {str(item.ReferencedSOPInstanceUID): 0 for item in report.get("ReferencedSOPSequence", [])}
        failed = report.get("FailedSOPSequence", [])
        return found | {str(item.ReferencedSOPInstanceUID): int(item.FailureReason) for item in failed}


def damage(made: Bench, uid: str) -> None:
    """Flip a bit of an object on the disk."""
    (row,) = made.sql(
        "SELECT segment_id, segment_offset, length FROM instance WHERE sop_instance_uid = %s",
        uid,
    )
    path = segment_path(made.archive.built.folders.segments, row["segment_id"])
    path.chmod(0o640)
    with path.open("r+b") as file:
        file.seek(row["segment_offset"] + row["length"] // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))


def quarantine(made: Bench, uid: str) -> None:
    """A second object of the same UID, with other pixels."""
    made.archive.keep(synthetic(sop=uid, study="2.25.500", series="2.25.500.1", pixels=bytes([7]) * 128), EXPLICIT)


@pytest.mark.parametrize("packed", [False, True], ids=["open series", "closed series"])
def test_each_object_is_judged_by_reading_it_back(committing: Committing, packed: bool) -> None:
    made = committing.bench
    good, corrupt, conflicting = made.fill(3)
    if packed:
        packer = made.archive.built.packer(lambda *_: b"")
        (series_id,) = packer.quiet_series(0.0)
        assert packer.pack(series_id)
        (row,) = made.sql("SELECT name FROM pack")
        (path,) = Path(made.archive.built.folders.packs).rglob(f"*{row['name']}*")
        holding = made.archive.built.retrieval.locate
        (found,) = holding(Scope(made.hand()), "2.25.500")
        place = next(one.location for one in found.instances if one.sop_instance_uid == corrupt)
        path.chmod(0o640)
        content = bytearray(path.read_bytes())
        content[place.offset + 5] ^= 1
        path.write_bytes(content)
    else:
        damage(made, corrupt)
    quarantine(made, conflicting)
    modality = Modality()
    objects = [(CT, good), (CT, corrupt), (CT, conflicting), (CT, "2.25.404"), (MR, good)]
    assert modality.ask(committing.port, objects[:4]) == 0x0000
    assert modality.verdicts() == {
        good: 0,
        corrupt: PROCESSING_FAILURE,
        conflicting: PROCESSING_FAILURE,
        "2.25.404": NO_SUCH_OBJECT,
    }
    assert modality.reports[-1][0] == 2
    modality.arrived.clear()
    assert modality.ask(committing.port, objects[4:]) == 0x0000
    assert modality.verdicts() == {good: CLASS_CONFLICT}


def test_a_report_of_success_names_everything_and_where_it_can_be_had(committing: Committing) -> None:
    uids = committing.bench.fill(5)
    modality = Modality()
    assert modality.ask(committing.port, [(CT, uid) for uid in uids]) == 0x0000
    kind, report = modality.reports[0]
    assert (kind, report.RetrieveAETitle) == (1, TITLE)
    assert modality.verdicts() == dict.fromkeys(uids, 0)
    assert committing.bench.sql("SELECT state FROM commitment") == [{"state": "delivered"}]


def test_what_another_establishment_holds_is_as_absent(committing: Committing) -> None:
    (uid,) = committing.bench.fill(1, code="B")
    modality = Modality()
    modality.ask(committing.port, [(CT, uid)])
    assert modality.verdicts() == {uid: NO_SUCH_OBJECT}


def test_a_modality_that_has_gone_is_called_back_until_it_takes_the_report(committing: Committing) -> None:
    made = committing.bench
    (uid,) = made.fill(1)
    port = free_port()
    accounts = made.archive.built.accounts
    accounts.add_entity("CALLME", "A", [Right.STORE], "127.0.0.1", port, by=COMMAND_LINE)
    modality = Modality("CALLME")
    assert modality.ask(committing.port, [(CT, uid)], stay_s=0.0) == 0x0000
    reporter = duties(made.archive.built, made.parts, QUICK)[1][0].run
    wait(lambda: made.sql("SELECT lease_until FROM commitment")[0]["lease_until"] is None or bool(modality.reports))
    if modality.reports:
        pytest.skip("the report was quicker than the end of the association")
    assert reporter()  # nobody listens: later
    with modality.listening(port):
        wait(lambda: reporter() and bool(modality.reports))
    assert modality.verdicts() == {uid: 0}
    assert made.sql("SELECT state FROM commitment") == [{"state": "delivered"}]


def test_a_report_that_is_refused_comes_again(committing: Committing) -> None:
    made = committing.bench
    (uid,) = made.fill(1)
    port = free_port()
    made.archive.built.accounts.add_entity("CALLME", "A", [Right.STORE], "127.0.0.1", port, by=COMMAND_LINE)
    modality = Modality("CALLME", status=0x0110)
    modality.ask(committing.port, [(CT, uid)], stay_s=0.5)
    wait(lambda: made.sql("SELECT lease_until FROM commitment")[0]["lease_until"] is None)
    modality.status = 0
    reporter = duties(made.archive.built, made.parts, QUICK)[1][0].run
    with modality.listening(port):
        wait(lambda: reporter() or bool(modality.reports))
    assert modality.verdicts() == {uid: 0}


@pytest.mark.parametrize("excess", [-1, 0, 1])
def test_a_request_over_the_limit_is_refused(committing: Committing, excess: int) -> None:
    data = write_request("2.25.1", [(CT, "2.25.2")], EXPLICIT)
    with door(committing.bench, committing.limited(len(data) - excess)) as port:
        sender = associate(("127.0.0.1", port), Proposal(TITLE, STORER, ((PUSH_MODEL, (EXPLICIT,)),)))
        values: dict[Element, Value] = {
            Element.REQUESTED_SOP_CLASS_UID: PUSH_MODEL,
            Element.REQUESTED_SOP_INSTANCE_UID: WELL_KNOWN_INSTANCE,
            Element.ACTION_TYPE_ID: 1,
        }
        sender.ask(1, N_ACTION, values, data)
        _, response, _ = sender.receive(1 << 20)
        sender.abort()
    assert (response.status == 0x0000) == (excess <= 0)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({Element.ACTION_TYPE_ID: 2}, 0x0123),
        ({Element.REQUESTED_SOP_INSTANCE_UID: "1.2.3"}, 0x0112),
        ({Element.REQUESTED_SOP_CLASS_UID: CT}, 0x0118),
    ],
)
def test_a_request_of_something_else_is_refused_for_what_it_is(
    committing: Committing, change: dict[Element, Value], status: int
) -> None:
    values: dict[Element, Value] = {
        Element.REQUESTED_SOP_CLASS_UID: PUSH_MODEL,
        Element.REQUESTED_SOP_INSTANCE_UID: WELL_KNOWN_INSTANCE,
        Element.ACTION_TYPE_ID: 1,
    }
    values |= change
    proposal = Proposal(TITLE, STORER, ((PUSH_MODEL, (EXPLICIT,)),))
    with associate(("127.0.0.1", committing.port), proposal) as sender:
        sender.ask(1, N_ACTION, values, write_request("2.25.1", [(CT, "2.25.2")], EXPLICIT))
        assert sender.receive(1 << 20)[1].status == status
        sender.ask(1, N_ACTION, values | {Element.ACTION_TYPE_ID: 1}, b"")
    assert committing.bench.sql("SELECT * FROM commitment") == []


def test_a_request_that_names_nothing_is_refused(committing: Committing) -> None:
    assert Modality().ask(committing.port, [], stay_s=0.0) == INVALID_ARGUMENT
    assert committing.bench.sql("SELECT * FROM commitment") == []


# As user ------------------------------------------------------------------------------------------


@dataclass
class Keeper:
    """A storage and commitment provider that keeps what it says it keeps."""

    port: int = field(default_factory=free_port)
    arrived: list[str] = field(default_factory=list)
    refuse: set[str] = field(default_factory=set)  # promised only when they have come a second time
    requests: list[Dataset] = field(default_factory=list)

    @contextmanager
    def started(self, call_back: int | None) -> Iterator[Keeper]:
        """``call_back``: reports on an association of its own to this port; None: on the one that asked."""
        entity = AE(ae_title="SHELF")
        entity.add_supported_context(CT, EXPLICIT)
        entity.add_supported_context(PUSH_MODEL, EXPLICIT)

        def store(event: Any) -> int:
            self.arrived.append(str(event.request.AffectedSOPInstanceUID))
            return 0x0000

        def action(event: Any) -> tuple[int, Dataset | None]:
            self.requests.append(event.action_information)
            report = self._report(event.action_information)
            if call_back is None:
                threading.Timer(0.1, self._send, (event.assoc, report)).start()
            else:
                threading.Timer(0.1, self._call, (call_back, report)).start()
            return 0x0000, None

        handlers: list[Any] = [(evt.EVT_C_STORE, store), (evt.EVT_N_ACTION, action)]
        server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        assert server is not None
        yield self
        server.shutdown()

    def _report(self, request: Dataset) -> Dataset:
        report = Dataset()
        report.TransactionUID = request.TransactionUID
        good, failed = [], []
        for item in request.ReferencedSOPSequence:
            uid = str(item.ReferencedSOPInstanceUID)
            if uid in self.refuse and self.arrived.count(uid) < 2:
                item.FailureReason = 0x0110
                failed.append(item)
            else:
                good.append(item)
        if good:
            report.ReferencedSOPSequence = good
        if failed:
            report.FailedSOPSequence = failed
        return report

    def _send(self, association: Any, report: Dataset) -> None:
        kind = 2 if "FailedSOPSequence" in report else 1
        association.send_n_event_report(report, kind, UID(PUSH_MODEL), UID(WELL_KNOWN_INSTANCE))

    def _call(self, port: int, report: Dataset) -> None:
        entity = AE(ae_title=READER)
        entity.add_requested_context(PUSH_MODEL, EXPLICIT)
        role = build_role(PUSH_MODEL, scu_role=False, scp_role=True)
        association = entity.associate("127.0.0.1", port, ae_title=TITLE, ext_neg=[role])
        assert association.is_established
        self._send(association, report)
        association.release()


@pytest.mark.parametrize("calls_back", [False, True], ids=["same association", "its own association"])
def test_a_delivery_is_done_once_the_node_has_promised_to_keep_it(committing: Committing, calls_back: bool) -> None:
    made = committing.bench
    uids = made.fill(3)
    keeper = Keeper(refuse={uids[2]})
    asker = duties(made.archive.built, made.parts, QUICK)[1][1].run
    with keeper.started(committing.port if calls_back else None):
        delivery = made.ask(made.node(keeper.port, commitment=True))
        made.deliverer()
        made.until(delivery, State.COMMITTING)
        made.sql("UPDATE delivery SET not_before = now()")
        assert asker()
        wait(lambda: made.row(delivery).state is not State.COMMITTING)
        made.sql("UPDATE delivery SET not_before = now() WHERE state = 'waiting'")
        made.until(delivery, State.COMMITTING)
        assert keeper.arrived.count(uids[2]) == 2, "what it would not keep was sent again"
        assert keeper.arrived.count(uids[0]) == 1
        assert asker()
        row = made.until(delivery, State.DONE)
    assert row.delivered == 3
    assert len({str(one.TransactionUID) for one in keeper.requests}) == 2


def test_a_node_that_does_not_take_the_request_is_asked_again(committing: Committing) -> None:
    made = committing.bench
    made.fill(1)
    keeper = Keeper()
    asker = duties(made.archive.built, made.parts, QUICK)[1][1].run
    with keeper.started(None):
        node = made.node(keeper.port, commitment=True)
        delivery = made.ask(node)
        made.deliverer()
        made.until(delivery, State.COMMITTING)
    assert asker()  # it is gone
    assert made.parts.nodes.of_id(node).failure == "commitment-refused"
    with keeper.started(None):
        wait(lambda: asker() or made.row(delivery).state is State.DONE)
        made.until(delivery, State.DONE)
