"""Orders joined to their edges: the DICOM services of the worklist, and the orders of a demonstration."""

from __future__ import annotations

from contextlib import suppress
from datetime import date

from negatoscope.bootstrap import Core
from negatoscope.demo.people import DemoOrder, orders
from negatoscope.errors import Conflict
from negatoscope.model.actor import Scope
from negatoscope.servers.dicom_association import Operations
from negatoscope.servers.dicom_mpps import PerformedStepService
from negatoscope.servers.dicom_worklist import Worklist
from negatoscope.worklist import Asking, Orders, PerformedSteps, read_order
from negatoscope.worklist.orders import NewOrder


def worklist_services(built: Core) -> tuple[Operations, ...]:
    """Worklist and performed steps of the DICOM door. They come before query/retrieve, which answers every C-FIND."""
    settings = built.settings
    return (
        Worklist(
            built.database, built.trail, built.limits, built.metrics.count, only_own=settings.worklist_own_station
        ),
        PerformedStepService(PerformedSteps(built.database, built.trail), built.limits),
    )


def enter_demonstration(built: Core, today: date) -> None:
    """What the worklists of ``today`` hold; those of a day before stay as they are."""
    book = Orders(built.database, built.trail)
    for order in orders(today):
        hand = built.accounts.system_actor(order.establishment_code, "orders")
        with suppress(Conflict):  # there already
            book.add(_read(order), Asking(Scope(hand), "cli"))


def _read(order: DemoOrder) -> NewOrder:
    patient, scheduled = order.patient, order.scheduled.isoformat(timespec="minutes")
    step = {"modality": order.modality, "station_ae": order.station_ae, "scheduled": scheduled}
    return read_order(
        {
            "accession_number": order.accession_number,
            "patient": {
                "identifier": patient.identifier,
                "name": patient.name,
                "birth_date": patient.birth_date,
                "sex": patient.sex,
            },
            "procedures": [{"description": order.description, "steps": [step]}],
        }
    )
