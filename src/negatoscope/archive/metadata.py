"""The DICOM JSON of an instance as every representation serves it (PS3.18 F)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from negatoscope.archive.ports import Buffer
from negatoscope.dicom.json_model import to_json
from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits


def bulk_uri(study_uid: str, series_uid: str, sop_instance_uid: str) -> Callable[[str], str]:
    """BulkDataURI by path of the element. Without scheme and host, so that any proxy may stand before us."""
    prefix = f"/dicom-web/studies/{study_uid}/series/{series_uid}/instances/{sop_instance_uid}/bulkdata/"
    return lambda path: prefix + path


def instance_json(
    data: Buffer,
    transfer_syntax_uid: str,
    study_uid: str,
    series_uid: str,
    sop_instance_uid: str,
    limits: Limits = DEFAULT_LIMITS,
) -> dict[str, Any]:
    """All attributes, bulk data by reference. Raises InvalidObject and its kinds."""
    return dict(to_json(data, transfer_syntax_uid, bulk_uri(study_uid, series_uid, sop_instance_uid), limits))
