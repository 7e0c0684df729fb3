"""Close a quiet series: its objects end to end in one immutable pack, its rows in one manifest.

The pack is durable and read back before the index refers to it; the rows go in the same transaction in
which the manifest comes. Ingest and this transaction exclude each other for that moment (an advisory
lock an establishment), so no object falls between.
"""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import orjson

from negatoscope.archive import manifest
from negatoscope.archive.catalogue import in_order, record_of
from negatoscope.archive.lookup import uid_hash
from negatoscope.archive.metadata import instance_json
from negatoscope.archive.ports import ContainerReader, PackStore, PackWriter, Transactions, Unit
from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.dicom.pixels.describe import describe
from negatoscope.dicom.pixels.frames import frame_locations
from negatoscope.dicom.uid import transfer_syntax
from negatoscope.errors import CannotTranscode, CorruptObject, InvalidObject, NegatoscopeError, PixelsUnreadable
from negatoscope.model.checksum import BLOCK, block_crcs, blocks_match, crc32c
from negatoscope.model.stored import Container, InstanceRecord, Location
from negatoscope.queries import load_queries

log = logging.getLogger(__name__)
SQL = load_queries("negatoscope.archive", "packing.sql")

Transcode = Callable[[memoryview, str, str], bytes]
"""``(data set, its syntax, wanted syntax) -> data set``, lossless and proved frame by frame; CannotTranscode."""

LARGEST_RECOMPRESSED = 512 << 20  # bytes of an object: its new form is held in memory until it is written
WANTED_SYNTAX = {"htj2k": "1.2.840.10008.1.2.4.201", "jpeg-ls": "1.2.840.10008.1.2.4.80"}


@dataclass(frozen=True, slots=True)
class _Packed:
    """One object as it lies in the pack, and what the footer says of it."""

    record: InstanceRecord
    entry: dict[str, Any]
    metadata: bytes
    frames: list[list[list[int]]] | None


class Packer:
    """Runs in the worker; several may run, a series is packed by one."""

    def __init__(
        self,
        transactions: Transactions,
        containers: ContainerReader,
        packs: PackStore,
        *,
        syntax: str = "",
        transcode: Transcode | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """``syntax`` empty keeps objects as received; else a key of WANTED_SYNTAX, by ``transcode``."""
        self._transactions, self._containers, self._packs, self._limits = transactions, containers, packs, limits
        self._wanted = WANTED_SYNTAX[syntax] if syntax and transcode else ""
        self._transcode = transcode

    def quiet_series(self, quiet_s: float, most: int = 50) -> list[int]:
        """Open series without a new instance for ``quiet_s`` seconds (by the database's clock), oldest first."""
        with self._transactions.unit(None) as unit:
            rows = unit.execute(SQL["quiet_series"], {"quiet_s": quiet_s, "most": most}).fetchall()
        return [row["series_id"] for row in rows]

    def pack(self, series_id: int) -> bool:
        """Close one series. False: it changed meanwhile, another packs it, or a source is damaged.

        Raises:
            OutOfResources, Unavailable: try again later; nothing changed.
        """
        with self._transactions.unit(None) as unit:
            lock = unit.execute(SQL["try_lock"], {"series_id": series_id}).fetchone()
            series = unit.execute(SQL["series"], {"series_id": series_id}).fetchone()
            if not (lock and lock["locked"]) or series is None or not series["open"]:
                return False
            fresh = [record_of(row) for row in unit.execute(SQL["instances"], {"series_id": series_id})]
            provenance = {
                row["sop_instance_uid"]: row for row in unit.execute(SQL["senders"], {"series_id": series_id})
            }
        held = manifest.decode(series["manifest"], series["pack_id"]) if series["pack_id"] is not None else []
        former = self._former_entries(series)
        writer = self._packs.create()
        try:
            packed = [
                self._put(writer, series, record, former.get(record.sop_instance_uid), provenance)
                for record in in_order([*held, *fresh])
            ]
            name, layout = self._finish(writer, series, packed)
        except CorruptObject:
            writer.abort()
            log.exception("packing_stopped_by_damage series_id=%d", series_id)
            return False
        except BaseException:
            writer.abort()
            raise
        if not self._close(series, name, layout, packed, [record.sop_instance_uid for record in fresh]):
            self._packs.delete(name)
            return False
        log.info("series_packed series_id=%d instances=%d bytes=%d", series_id, len(packed), layout["bytes"])
        return True

    def _former_entries(self, series: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Footer entries of the series' present pack, by SOP Instance UID."""
        if series["pack_id"] is None:
            return {}
        footer = orjson.loads(gzip.decompress(self._packs.footer(series["pack_name"])))
        return {entry["sop_instance_uid"]: entry for entry in footer["instances"]}

    def _put(
        self,
        writer: PackWriter,
        series: dict[str, Any],
        record: InstanceRecord,
        former: dict[str, Any] | None,
        provenance: dict[str, dict[str, Any]],
    ) -> _Packed:
        """Copy one object, verified, into the pack; recompress it when policy says so and the proof holds."""
        place = record.location
        with self._containers.view(place.container, place.container_id, place.offset, place.length) as view:
            for at in range(0, place.length, BLOCK):
                if not blocks_match(view[at : at + BLOCK], place.crcs, at):
                    raise CorruptObject("stored bytes do not match their checksum")
            encoded = self._recompressed(view, record)
            if encoded is not None:
                body: bytes | memoryview = encoded
                crcs, syntax = block_crcs(encoded), self._wanted
            else:
                body, crcs, syntax = view, place.crcs, record.transfer_syntax_uid
            offset = writer.add([body])
            document = instance_json(
                body, syntax, series["study_uid"], series["series_uid"], record.sop_instance_uid, self._limits
            )
            frames = self._frame_table(body, syntax, record)
            length = len(body)
        if former:
            entry = former
        else:
            sender = provenance[record.sop_instance_uid]
            entry = {
                "sop_instance_uid": record.sop_instance_uid,
                "sop_class_uid": record.sop_class_uid,
                "received_syntax": record.transfer_syntax_uid,
                "received_sha256": record.sha256.hex(),
                "received_at": sender["received_at"].isoformat(),
                "actor_id": sender["actor_id"],
                "actor_name": sender["actor_name"],
            }
        entry = entry | {
            "transfer_syntax_uid": syntax,
            "instance_number": record.instance_number,
            "rows": record.rows,
            "columns": record.columns,
            "number_of_frames": record.number_of_frames,
            "offset": offset,
            "length": length,
            "crcs": crcs.hex(),
        }
        kept = replace(record, transfer_syntax_uid=syntax, location=Location(Container.PACK, 0, offset, length, crcs))
        return _Packed(kept, entry, orjson.dumps(document), frames)

    def _recompressed(self, view: memoryview, record: InstanceRecord) -> bytes | None:
        """The object in the policy's syntax, or None: it stays as received."""
        if not self._wanted or self._transcode is None or record.rows is None:
            return None
        if transfer_syntax(record.transfer_syntax_uid).encapsulated:
            return None  # compressed by its sender: decoding it to save a little more is not ours to do
        if len(view) > LARGEST_RECOMPRESSED:
            return None
        try:
            if describe(view, record.transfer_syntax_uid, self._limits).photometric == "YBR_FULL_422":
                return None  # codecs have no halved chroma in native form: it would come back as YBR_FULL
            encoded = self._transcode(view, record.transfer_syntax_uid, self._wanted)
        except (CannotTranscode, PixelsUnreadable, InvalidObject) as error:
            log.info("kept_as_received sop_instance_uid=%s reason=%s", record.sop_instance_uid, error)
            return None
        return encoded if len(encoded) < len(view) else None

    def _frame_table(
        self, body: bytes | memoryview, syntax: str, record: InstanceRecord
    ) -> list[list[list[int]]] | None:
        """Fragments (offset, length) of each frame, where finding them means reading the whole object."""
        if not transfer_syntax(syntax).encapsulated or (record.number_of_frames or 1) < 2:
            return None
        try:
            description = describe(body, syntax, self._limits)
            return [[list(run) for run in frame] for frame in frame_locations(body, description, self._limits)]
        except NegatoscopeError:
            return None  # kept and served whole; frames are refused when asked for

    def _finish(
        self, writer: PackWriter, series: dict[str, Any], packed: Sequence[_Packed]
    ) -> tuple[str, dict[str, int]]:
        """Write what follows the objects. Returns the name and the places of the blocks."""
        metadata = gzip.compress(b"[" + b",".join(one.metadata for one in packed) + b"]", 6, mtime=0)
        tables = {one.record.sop_instance_uid: one.frames for one in packed if one.frames is not None}
        frames = gzip.compress(orjson.dumps(tables), 6, mtime=0)
        layout = {
            "metadata_offset": writer.add([metadata]),
            "metadata_length": len(metadata),
            "frames_offset": writer.add([frames]),
            "frames_length": len(frames),
        }
        footer = {
            "nonce": uuid4().hex,  # two writers of one series never share a name, so neither deletes the other's
            "establishment": series["code"],
            "authority_oid": series["authority_oid"],
            "study_uid": series["study_uid"],
            "series_uid": series["series_uid"],
            "version": series["version"],
            "metadata_crc": crc32c(metadata),
            "frames_crc": crc32c(frames),
            **layout,
            "instances": [one.entry for one in packed],
        }
        name = writer.finish(gzip.compress(orjson.dumps(footer), 6, mtime=0))
        self._packs.footer(name)  # read back: it is whole and is the one we meant
        return name, layout | {"bytes": writer.size}

    def _close(
        self,
        series: dict[str, Any],
        name: str,
        layout: dict[str, int],
        packed: Sequence[_Packed],
        fresh: Sequence[str],
    ) -> bool:
        with self._transactions.unit(None) as unit:
            unit.execute(SQL["lock_establishment"], series)
            now = unit.execute(SQL["lock_series"], series).fetchone()
            if now is None or now["version"] != series["version"]:
                return False
            pack = unit.execute(SQL["insert_pack"], {"name": name, **layout}).fetchone()
            assert pack is not None
            unit.execute(
                SQL["close_series"],
                series | {"new_pack_id": pack["pack_id"], "new_manifest": manifest.encode([p.record for p in packed])},
            )
            unit.execute(SQL["retire_pack"], series)
            unit.execute(SQL["delete_instances"], series)
            _remember(unit, series, fresh)
            unit.execute(SQL["change"], series)
        return True


def _remember(unit: Unit, series: dict[str, Any], sop_instance_uids: Sequence[str]) -> None:
    unit.execute(
        SQL["insert_closed"],
        {
            "establishment_id": series["establishment_id"],
            "series_id": series["series_id"],
            "uid_hashes": [uid_hash(uid) for uid in sop_instance_uids],
        },
    )
