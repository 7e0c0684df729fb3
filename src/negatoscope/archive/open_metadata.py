"""DICOM JSON of instances that no pack has prepared: read from the header part of the stored bytes.

The form is that of :mod:`negatoscope.archive.metadata`, which packing uses on whole data sets.
"""

from __future__ import annotations

from struct import Struct
from typing import Any

from negatoscope.archive.metadata import bulk_uri
from negatoscope.archive.partial import PartialObject
from negatoscope.archive.retrieve import Retrieval
from negatoscope.dicom.json_model import to_json
from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.dicom.pixels.header import PIXEL_TAGS, Element, Header
from negatoscope.errors import NegatoscopeError
from negatoscope.model.stored import InstanceRecord, SeriesHolding

_SEQUENCE_END = Struct("<HHL").pack(0xFFFE, 0xE0DD, 0)


def stored_instance_json(
    retrieval: Retrieval, holding: SeriesHolding, record: InstanceRecord, limits: Limits = DEFAULT_LIMITS
) -> dict[str, Any]:
    """One instance in the DICOM JSON model (PS3.18 annex F); pixels are neither read nor verified, unless the
    object is small or its elements go on after them.

    Raises:
        CorruptObject: the header part does not match its checksum.
    """
    uri = bulk_uri(holding.study_uid, holding.series_uid, record.sop_instance_uid)
    with PartialObject(retrieval, record, holding.study_uid, limits) as opened:
        if not opened.sparse:
            return to_json(opened.buffer, record.transfer_syntax_uid, uri, limits)
        try:
            header = opened.header()
        except NegatoscopeError:  # the stricter reader of pixels could not; the walker takes more
            header = None
        pixels = _pixels(header)
        if header is None or pixels is None:
            opened.need_all()
            return to_json(opened.buffer, record.transfer_syntax_uid, uri, limits)
        if pixels.undefined:
            opened.need(opened.length - len(_SEQUENCE_END), len(_SEQUENCE_END))
            if opened.buffer[-len(_SEQUENCE_END) :] != _SEQUENCE_END:
                opened.need_all()
                return to_json(opened.buffer, record.transfer_syntax_uid, uri, limits)
        elif pixels.end < opened.length:
            opened.need(pixels.end, opened.length - pixels.end)
            return to_json(opened.buffer, record.transfer_syntax_uid, uri, limits)
        with opened.buffer[: pixels.start] as before:
            found = to_json(before, record.transfer_syntax_uid, uri, limits)
        key = f"{pixels.tag:08X}"
        found[key] = {"vr": pixels.vr.decode("ascii") or "OW", "BulkDataURI": uri(key)}
        return found


def _pixels(header: Header | None) -> Element | None:
    if header is None:
        return None
    return next((header.elements[tag] for tag in PIXEL_TAGS if tag in header), None)
