"""Orders joined to their edges: the DICOM services of the worklist."""

from __future__ import annotations

from negatoscope.bootstrap import Core
from negatoscope.servers.dicom_association import Operations
from negatoscope.servers.dicom_mpps import PerformedStepService
from negatoscope.servers.dicom_worklist import Worklist
from negatoscope.worklist import PerformedSteps


def worklist_services(built: Core) -> tuple[Operations, ...]:
    """Worklist and performed steps of the DICOM door. They come before query/retrieve, which answers every C-FIND."""
    settings = built.settings
    return (
        Worklist(
            built.database, built.trail, built.limits, built.metrics.count, only_own=settings.worklist_own_station
        ),
        PerformedStepService(PerformedSteps(built.database, built.trail), built.limits),
    )
