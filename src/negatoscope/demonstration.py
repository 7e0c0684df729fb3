"""``negatoscope demo``: a folder with invented establishments, people and real or drawn images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime

from negatoscope import demo
from negatoscope.bootstrap import Core
from negatoscope.demo.people import DemoOrder, orders
from negatoscope.errors import Conflict, PreconditionFailed
from negatoscope.model.actor import Scope
from negatoscope.model.source import Door, Source
from negatoscope.sharing import COMMAND_LINE
from negatoscope.worklist import Asking, Orders, read_order
from negatoscope.worklist.orders import NewOrder


def fill(built: Core, say: Callable[[str], None]) -> None:
    """Make ``built``'s folder a demonstration. Doing it twice adds nothing the second time.

    Raises:
        PreconditionFailed: the folder holds real establishments; people without password have no place there.
    """
    accounts = built.accounts
    if not accounts.is_demonstration() and accounts.establishments():
        raise PreconditionFailed("this folder holds establishments: a demonstration needs a folder of its own")
    accounts.mark_demonstration()
    for establishment in demo.ESTABLISHMENTS:
        with suppress(Conflict):  # there already
            accounts.add_establishment(
                establishment.code, establishment.name, establishment.oid, establishment.finess, by=COMMAND_LINE
            )
    for user in demo.USERS:
        with suppress(Conflict):
            accounts.add_user(
                user.login,
                user.role,
                user.establishment_code,
                by=COMMAND_LINE,
                display_name=user.display_name,
                demonstration=True,
            )
    for entity in demo.APPLICATION_ENTITIES:
        with suppress(Conflict):
            accounts.add_entity(entity.title, entity.establishment_code, entity.rights, by=COMMAND_LINE)
    sources: dict[str, Source] = {}

    def source(code: str) -> Source:
        if code not in sources:
            actor = accounts.system_actor(code)
            sources[code] = Source(
                actor.actor_id, actor.establishment_id, code, actor.authority_oid, actor.name, "", Door.IMPORT
            )
        return sources[code]

    outcomes = demo.load(
        lambda code: (built.store, source(code)),
        progress=lambda stored: say(f"{stored} demonstration images") if stored % 100 == 0 else None,
    )
    _enter_orders(built, datetime.now(UTC).astimezone().date())
    say("demonstration: " + ", ".join(f"{count} {outcome.value}" for outcome, count in outcomes.items()))


def _enter_orders(built: Core, today: date) -> None:
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
