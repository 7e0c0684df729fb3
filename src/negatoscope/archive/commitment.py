"""What storage commitment rests on: each object named is read back whole and its digest compared. PS3.4 annex J.

An object is committed when its bytes, as they lie on the disk now, have the SHA-256 of what was received. One that
was recompressed when its series was packed has other bytes by design: then its checksums decide, and the
proof that its frames are equal was made before the original went.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import orjson

from negatoscope.archive import manifest
from negatoscope.archive.catalogue import record_of
from negatoscope.archive.lookup import candidate_series
from negatoscope.archive.ports import PackStore, Transactions, Unit
from negatoscope.archive.retrieve import Retrieval
from negatoscope.errors import CorruptObject
from negatoscope.model.stored import InstanceRecord
from negatoscope.queries import load_queries

SQL = load_queries("negatoscope.archive", "commitment.sql")

# Failure Reason (0008,1197), PS3.3 C.14.1.1
COMMITTED = 0
PROCESSING_FAILURE = 0x0110
NO_SUCH_OBJECT = 0x0112
CLASS_INSTANCE_CONFLICT = 0x0119
Reference = tuple[str, str]  # SOP class UID, SOP instance UID


@dataclass(frozen=True, slots=True)
class _Held:
    record: InstanceRecord
    sha256: str  # hexadecimal; "" when it was recompressed. A beginning of it, when the pack is not asked


class _Series:
    """Closed series met on the way, each decoded once."""

    def __init__(self, packs: PackStore) -> None:
        self._packs = packs
        self._known: dict[int, dict[str, _Held]] = {}

    def find(self, unit: Unit, establishment_id: int, series_id: int, uid: str) -> _Held | None:
        if series_id not in self._known:
            row = unit.execute(
                SQL["closed_series"], {"series_id": series_id, "establishment_id": establishment_id}
            ).fetchone()
            self._known[series_id] = self._read(row["name"], row["manifest"], row["pack_id"]) if row else {}
        return self._known[series_id].get(uid)

    def _read(self, name: str, packed: bytes, pack_id: int) -> dict[str, _Held]:
        records = manifest.decode(packed, pack_id)
        try:
            footer = orjson.loads(gzip.decompress(self._packs.footer(name)))
        except (CorruptObject, OSError, EOFError, orjson.JSONDecodeError):
            # The footer of the pack is damaged: nothing in it is promised.
            return {record.sop_instance_uid: _Held(record, "damaged") for record in records}
        entries = {entry["sop_instance_uid"]: entry for entry in footer["instances"]}
        found = {}
        for record in records:
            entry = entries.get(record.sop_instance_uid)
            same = entry is not None and entry["received_syntax"] == entry["transfer_syntax_uid"]
            digest = "damaged" if entry is None else entry["received_sha256"] if same else ""
            found[record.sop_instance_uid] = _Held(record, digest)
        return found


class CommitmentJudge:
    """Thread-safe."""

    def __init__(self, transactions: Transactions, retrieval: Retrieval, packs: PackStore) -> None:
        self._transactions, self._retrieval, self._packs = transactions, retrieval, packs

    def judge(
        self, establishment_id: int, objects: Sequence[Reference], alive: Callable[[], None] = lambda: None
    ) -> list[int]:
        """For each object ``COMMITTED`` or the reason why not, in the order asked.

        ``alive`` is called between objects: it may prolong a lease, or raise to give up.

        Raises:
            Unavailable: the index cannot be asked; nothing is known.
        """
        held = self._held(establishment_id, objects)
        order = sorted(
            (index for index, one in enumerate(held) if isinstance(one, _Held)), key=lambda index: _place(held[index])
        )
        verdicts = [one if isinstance(one, int) else PROCESSING_FAILURE for one in held]
        for index in order:  # as they lie on the disk
            alive()
            one = held[index]
            assert isinstance(one, _Held)
            verdicts[index] = COMMITTED if self._is_whole(one) else PROCESSING_FAILURE
        return verdicts

    def _held(self, establishment_id: int, objects: Iterable[Reference]) -> list[_Held | int]:
        series = _Series(self._packs)
        found = []
        with self._transactions.unit([establishment_id]) as unit:
            for sop_class_uid, uid in objects:
                found.append(self._find(unit, series, establishment_id, sop_class_uid, uid))
        return found

    def _find(self, unit: Unit, series: _Series, establishment_id: int, sop_class_uid: str, uid: str) -> _Held | int:
        key = {"establishment_id": establishment_id, "sop_instance_uid": uid}
        if unit.execute(SQL["quarantined"], key).fetchone():
            return PROCESSING_FAILURE  # two objects claim this UID: which one is meant is not for us to say
        row = unit.execute(SQL["open_instance"], key).fetchone()
        held: _Held | None = None
        if row is not None:
            record = record_of(row)
            held = _Held(record, record.sha256.hex())
        else:
            for series_id in candidate_series(unit, establishment_id, uid):
                held = held or series.find(unit, establishment_id, series_id, uid)
        if held is None:
            return NO_SUCH_OBJECT
        return held if held.record.sop_class_uid == sop_class_uid else CLASS_INSTANCE_CONFLICT

    def _is_whole(self, held: _Held) -> bool:
        digest = hashlib.sha256()
        try:
            for block in self._retrieval.read(held.record):  # checks the CRC-32C of every block
                digest.update(block)
        except CorruptObject:
            return False
        return not held.sha256 or digest.hexdigest() == held.sha256


def _place(held: _Held | int) -> tuple[str, int, int]:
    assert isinstance(held, _Held)
    place = held.record.location
    return place.container.value, place.container_id, place.offset
