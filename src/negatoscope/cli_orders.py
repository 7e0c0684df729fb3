"""Commands of orders and the worklist."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from negatoscope.bootstrap import Core
from negatoscope.model.actor import Scope
from negatoscope.settings import Settings
from negatoscope.worklist import Asking, Orders, read_order

Opened = Callable[[Settings], AbstractContextManager[Core]]
Add = Callable[..., argparse.ArgumentParser]


def add_commands(add: Add, group: Callable[[str, str], Any], opened: Opened) -> None:
    """``order add``, to the command line's grammar."""
    actions = group("order", "orders and the worklist")
    sub = add("add", lambda o, s: _add(o, s, opened), "enter an order and print its number", actions)
    sub.add_argument("--establishment", required=True, metavar="CODE", help="the one that does the examination")
    sub.add_argument("--accession", metavar="NUMBER", help="accession number; made when left out")
    sub.add_argument("--patient-id", required=True, metavar="ID", help="the establishment's own identifier")
    sub.add_argument("--patient-name", required=True, metavar="NAME", help="FAMILY^Given")
    sub.add_argument("--birth-date", metavar="YYYY-MM-DD", help="of the patient")
    sub.add_argument("--sex", metavar="SEX", help="F, M or O")
    sub.add_argument("--modality", required=True, metavar="CODE", help="CT, MR, US...")
    sub.add_argument("--station-ae", metavar="TITLE", help="the modality that does it; without it any of them")
    sub.add_argument("--scheduled", required=True, metavar="YYYY-MM-DDTHH:MM", help="day and time")
    sub.add_argument("--description", metavar="TEXT", help="the examination")
    sub.add_argument("--study", metavar="UID", help="Study Instance UID; made when left out")


def _add(options: argparse.Namespace, settings: Settings, opened: Opened) -> int:
    step = {
        "modality": options.modality,
        "station_ae": options.station_ae,
        "scheduled": options.scheduled,
        "description": options.description,
    }
    patient = {
        "identifier": options.patient_id,
        "name": options.patient_name,
        "birth_date": options.birth_date,
        "sex": options.sex,
    }
    procedure = {"study_uid": options.study, "description": options.description, "steps": [step]}
    order = read_order({"accession_number": options.accession, "patient": patient, "procedures": [procedure]})
    with opened(settings) as built:
        scope = Scope(built.accounts.system_actor(options.establishment, "orders"))
        print(Orders(built.database, built.trail).add(order, Asking(scope, "cli")))
    return 0
