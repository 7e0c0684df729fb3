"""Orders, the modality worklist, and what modalities report of their work."""

from negatoscope.worklist.book import ImagesRow, OrderPage, OrderRow, Orders, ProcedureRow, StepRow, Wanted
from negatoscope.worklist.entries import EMPTY_KEYS, KEYS, STATION_TITLE, STEP_KEYS, STEP_SEQUENCE
from negatoscope.worklist.find import Found, find_entries
from negatoscope.worklist.orders import NewOrder, read_order
from negatoscope.worklist.performed import PerformedRow, SeriesRow
from negatoscope.worklist.ports import Asking
from negatoscope.worklist.reports import PerformedPage, PerformedSteps
from negatoscope.worklist.states import BY_HAND, OPEN, PerformedStatus, StepStatus

__all__ = [
    "BY_HAND",
    "EMPTY_KEYS",
    "KEYS",
    "OPEN",
    "STATION_TITLE",
    "STEP_KEYS",
    "STEP_SEQUENCE",
    "Asking",
    "Found",
    "ImagesRow",
    "NewOrder",
    "OrderPage",
    "OrderRow",
    "Orders",
    "PerformedPage",
    "PerformedRow",
    "PerformedStatus",
    "PerformedSteps",
    "ProcedureRow",
    "SeriesRow",
    "StepRow",
    "StepStatus",
    "Wanted",
    "find_entries",
    "read_order",
]
