"""What a row is, and how its figures are reduced."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum


class Bar(Enum):
    """What a bar is compared with."""

    RATIO = "times Orthanc"  # at least
    VALUE = "at most"  # our own figure
    NONE = ""


@dataclass(slots=True)
class Row:
    """One line of the table: figures of each run, ours and Orthanc's."""

    name: str
    unit: str
    more_is_better: bool = True
    bar: float = 0.0
    kind: Bar = Bar.NONE
    ours: list[float] = field(default_factory=list)
    orthanc: list[float] = field(default_factory=list)
    note: str = ""
    client: list[float] = field(default_factory=list)  # share of one core that the clients used, our runs

    @property
    def ratio(self) -> float | None:
        """How many times better ours is."""
        if not self.ours or not self.orthanc:
            return None
        ours, orthanc = statistics.median(self.ours), statistics.median(self.orthanc)
        better, worse = (ours, orthanc) if self.more_is_better else (orthanc, ours)
        return better / worse if worse else None

    @property
    def met(self) -> bool | None:
        """None: there is no bar, or nothing to hold against it."""
        if self.kind is Bar.NONE or not self.ours:
            return None
        if self.kind is Bar.RATIO:
            return None if self.ratio is None else self.ratio >= self.bar
        return statistics.median(self.ours) <= self.bar

    def as_json(self) -> dict[str, object]:
        return {
            "row": self.name,
            "unit": self.unit,
            "ours": self.ours,
            "orthanc": self.orthanc,
            "ratio": self.ratio,
            "bar": self.bar if self.kind is not Bar.NONE else None,
            "bar_kind": self.kind.value,
            "met": self.met,
            "client_cores": self.client,
            "note": self.note,
        }


def spread(figures: Sequence[float]) -> float:
    """(largest - smallest) / median."""
    middle = statistics.median(figures)
    return (max(figures) - min(figures)) / middle if middle else 0.0


def percentile(figures: Sequence[float], share: float) -> float:
    ordered = sorted(figures)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def shown(value: float) -> str:
    """Three significant figures."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


Log = Callable[[str], None]
