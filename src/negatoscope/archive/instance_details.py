"""All attributes of each instance of a series: what queries at the instance level may be about."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from typing import Any

import orjson

from negatoscope.archive.open_metadata import stored_instance_json
from negatoscope.archive.retrieve import Retrieval
from negatoscope.dicom.limits import Limits
from negatoscope.errors import CorruptObject
from negatoscope.model.actor import Scope

SOP_INSTANCE_UID = "00080018"


def instance_details(
    retrieval: Retrieval, limits: Limits, scope: Scope, study_uid: str, series_uid: str
) -> Mapping[str, dict[str, Any]]:
    """By SOP Instance UID: from the block that packing made, else from the header parts of the stored bytes.

    Raises:
        NotFound: nothing there that ``scope`` may read.
        CorruptObject: what is stored does not match its checksum.
    """
    known: dict[str, dict[str, Any]] = {}
    for holding in retrieval.locate(scope, study_uid, series_uid):
        block = retrieval.stored_metadata(holding)
        if block is None:
            instances = [stored_instance_json(retrieval, holding, record, limits) for record in holding.instances]
        else:
            try:
                instances = orjson.loads(gzip.decompress(block))
            except (OSError, EOFError, ValueError) as error:
                raise CorruptObject("stored metadata do not match their checksum") from error
        for instance in instances:
            known.setdefault(instance[SOP_INSTANCE_UID]["Value"][0], instance)
    return known
