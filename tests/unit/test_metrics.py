"""metrics: every process's numbers in one answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from negatoscope.metrics import SLOTS, Metrics, clear, exposition

COUNT_AND_LEAVE = """
import sys
from pathlib import Path
from negatoscope.metrics import Metrics
metrics = Metrics(Path(sys.argv[1]))
metrics.count("acknowledged_total", 3, door="dimse")
metrics.gauge("damaged", 7)
"""


def test_counters_of_a_dead_process_stay_and_its_gauges_go(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", COUNT_AND_LEAVE, str(tmp_path)], check=True)
    mine = Metrics(tmp_path)
    mine.count("acknowledged_total", door="dimse")
    mine.count("acknowledged_total", door="stow")
    mine.gauge("damaged", 1)
    mine.gauge("damaged", 2)
    assert mine.collect() == {
        'acknowledged_total{door="dimse"}': 4,
        'acknowledged_total{door="stow"}': 1,
        "damaged": 2,
    }


def test_a_new_run_starts_from_nothing(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", COUNT_AND_LEAVE, str(tmp_path)], check=True)
    clear(tmp_path)
    assert Metrics(tmp_path).collect() == {}


def test_the_text_form_has_help_type_and_a_zero_for_counters_never_touched() -> None:
    metrics = Metrics()
    metrics.count("quarantined_total", 2)
    text = exposition(metrics.collect())
    assert "# TYPE negatoscope_quarantined_total counter\nnegatoscope_quarantined_total 2\n" in text
    assert "\nnegatoscope_unverified_total 0\n" in text
    assert "negatoscope_orphans" not in text, "a gauge nobody measured says nothing"


def test_a_name_outside_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="not in METRICS"):
        Metrics().count("misspelt_total")


@pytest.mark.parametrize(("labels", "taken"), [(SLOTS - 1, True), (SLOTS, True), (SLOTS + 1, False)])
def test_labels_are_bounded(labels: int, taken: bool) -> None:
    metrics = Metrics()
    for number in range(labels - 1):
        metrics.count("refused_total", reason=str(number))
    if taken:
        metrics.count("refused_total", reason="last")
    else:
        with pytest.raises(ValueError, match="too many"):
            metrics.count("refused_total", reason="last")
