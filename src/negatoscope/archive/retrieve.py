"""Find what a scope may read, and read it verified.

Locating is one statement, joined with the access relation, behind row security. Reading checks the CRC-32C
of every MiB block it touches before a byte of it is handed out. A block that does not match is recorded in
``damage``, alerted once, and raises ``CorruptObject``: nothing of it is served.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
from psycopg.rows import tuple_row

from negatoscope.archive import manifest
from negatoscope.archive.catalogue import in_order
from negatoscope.archive.ports import AuditTrail, ContainerReader, Transactions
from negatoscope.audit.events import integrity_alert
from negatoscope.errors import CorruptObject, NegatoscopeError, NotFound, RangeNotSatisfiable
from negatoscope.model.actor import Scope
from negatoscope.model.checksum import BLOCK, blocks_match, covering
from negatoscope.model.stored import Container, InstanceRecord, Location, SeriesHolding
from negatoscope.queries import load_queries

log = logging.getLogger(__name__)

QUERIES = load_queries("negatoscope.archive", "retrieve.sql")
_Row = tuple[Any, ...]  # the columns of both statements, in the order in which they stand there
CACHED_INSTANCES = 50_000  # of closed series whose manifest is kept decoded, all together


@dataclass(frozen=True, slots=True)
class _Closed:
    """A decoded manifest."""

    series_uid: str
    version: int
    instances: list[InstanceRecord]  # in serving order
    by_uid: dict[str, InstanceRecord]


class _Manifests:
    """Decoded manifests by series, the least recently used forgotten first. Thread-safe.

    It holds no right: the statement that says which series are readable runs every time.
    """

    def __init__(self, room: int) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, _Closed] = OrderedDict()
        self._series_ids: dict[str, set[int]] = {}
        self._room = room
        self._instances = 0

    def known(self, series_uid: str | None) -> dict[int, int]:
        """Version held by series id, for one Series Instance UID."""
        if series_uid is None:
            return {}
        with self._lock:
            return {series_id: self._kept[series_id].version for series_id in self._series_ids.get(series_uid, ())}

    def get(self, series_id: int, version: int) -> _Closed | None:
        with self._lock:
            closed = self._kept.get(series_id)
            if closed is None or closed.version != version:
                return None
            self._kept.move_to_end(series_id)
            return closed

    def put(self, series_id: int, closed: _Closed) -> None:
        with self._lock:
            self._drop(series_id)
            self._kept[series_id] = closed
            self._series_ids.setdefault(closed.series_uid, set()).add(series_id)
            self._instances += len(closed.instances)
            while self._instances > self._room and len(self._kept) > 1:
                self._drop(next(iter(self._kept)))

    def _drop(self, series_id: int) -> None:
        closed = self._kept.pop(series_id, None)
        if closed is None:
            return
        self._instances -= len(closed.instances)
        ids = self._series_ids[closed.series_uid]
        ids.discard(series_id)
        if not ids:
            del self._series_ids[closed.series_uid]


@dataclass(frozen=True, slots=True)
class Flaw:
    """A place whose bytes are not what was kept."""

    location: Location
    kind: str  # missing, truncated, altered
    sop_instance_uid: str = ""
    study_uid: str = ""


class Retrieval:
    """The archive's way out. Thread-safe."""

    def __init__(
        self,
        transactions: Transactions,
        containers: ContainerReader,
        trail: AuditTrail,
        *,
        on_flaw: Callable[[Flaw], None] = lambda flaw: None,
        cached_instances: int = CACHED_INSTANCES,
    ) -> None:
        """``on_flaw`` is told of every failed read (it counts them), the first and the later ones."""
        self._transactions, self._containers, self._trail = transactions, containers, trail
        self._on_flaw = on_flaw
        self._manifests = _Manifests(cached_instances)

    # Where

    def locate(
        self, scope: Scope, study_uid: str, series_uid: str | None = None, sop_instance_uid: str | None = None
    ) -> list[SeriesHolding]:
        """The readable series of a study, or the one asked for, with all instances or the one asked for.

        Raises:
            NotFound: nothing there that ``scope`` may read, whichever of the two it is.
        """
        if sop_instance_uid is None:
            groups = self._groups("locate_series", scope, study_uid, series_uid)
        else:
            groups = self._groups("locate_instances", scope, study_uid, series_uid, [sop_instance_uid])
        holdings = [holding for rows in groups if (holding := self._holding(rows, sop_instance_uid)).instances]
        if not holdings:
            raise NotFound("nothing here by that name")
        return holdings

    def locate_instances(
        self, scope: Scope, study_uid: str, series_uid: str, sop_instance_uids: Sequence[str]
    ) -> dict[str, SeriesHolding]:
        """What :meth:`locate` gives for each of some instances of a series, by one statement; what is not there
        for ``scope`` has no entry."""
        found: dict[str, SeriesHolding] = {}
        for rows in self._groups("locate_instances", scope, study_uid, series_uid, sop_instance_uids):
            for uid in sop_instance_uids:
                holding = self._holding([row for row in rows if row[10] == uid] or rows[:1], uid)
                if holding.instances:
                    found[uid] = holding
        return found

    def _groups(
        self,
        statement: str,
        scope: Scope,
        study_uid: str,
        series_uid: str | None,
        sop_instance_uids: Sequence[str] = (),
    ) -> list[list[_Row]]:
        """The rows of each series."""
        parameters = {
            **scope.parameters(),
            "study_uid": study_uid,
            "series_uid": series_uid,
            "sop_instance_uids": list(sop_instance_uids),
        }
        query, known = QUERIES[statement], self._manifests.known(series_uid)
        with self._transactions.reading(scope) as unit, unit.cursor(row_factory=tuple_row, binary=True) as cursor:
            groups = _by_series(cursor.execute(query, {**parameters, **_known(known)}).fetchall())
            if any(rows[0][8] is not None and self._closed(rows[0]) is None for rows in groups):
                # Known when we asked, forgotten since.
                groups = _by_series(cursor.execute(query, {**parameters, **_known({})}).fetchall())
        return groups

    def _holding(self, rows: list[_Row], sop_instance_uid: str | None) -> SeriesHolding:
        establishment_id, study_id, study_uid, series_id, series_uid, modality, version, _, pack_id, _ = rows[0][:10]
        instances: list[InstanceRecord] = []
        if pack_id is not None and (closed := self._closed(rows[0])):
            if sop_instance_uid is None:
                instances = closed.instances
            elif found := closed.by_uid.get(sop_instance_uid):
                instances = [found]
        if open_rows := [row for row in rows if row[10] is not None and sop_instance_uid in (None, row[10])]:
            fresh = {record.sop_instance_uid: record for record in map(_record, open_rows)}
            instances = in_order({**fresh, **{record.sop_instance_uid: record for record in instances}}.values())
        return SeriesHolding(
            establishment_id, study_id, series_id, study_uid, series_uid, modality, version, pack_id, instances
        )

    def _closed(self, row: _Row) -> _Closed | None:
        """The manifest of a row, from the cache or decoded; None when it is in neither."""
        series_id, series_uid, version, pack_id, packed = row[3], row[4], row[6], row[8], row[9]
        closed = self._manifests.get(series_id, version)
        if closed is None and packed is not None:
            records = in_order(manifest.decode(packed, pack_id))
            closed = _Closed(series_uid, version, records, {record.sop_instance_uid: record for record in records})
            self._manifests.put(series_id, closed)
        return closed

    # Bytes

    def read(self, record: InstanceRecord, study_uid: str = "") -> Iterator[bytes]:
        """The data set as it is kept, in verified blocks of a MiB. Raises CorruptObject."""
        for offset in range(0, record.location.length, BLOCK):
            yield self.read_range(record, offset, min(BLOCK, record.location.length - offset), study_uid)

    def read_range(self, record: InstanceRecord, offset: int, length: int, study_uid: str = "") -> bytes:
        """``length`` verified bytes of the data set from ``offset``.

        Raises:
            CorruptObject: a block they lie in is missing or does not match.
            RangeNotSatisfiable: not within the data set.
        """
        location = record.location
        if offset < 0 or length < 0 or offset + length > location.length:
            raise RangeNotSatisfiable(f"bytes {offset} to {offset + length} of {location.length}")
        if not length:
            return b""
        start, end = covering(offset, length, location.length)
        data = self._raw(record, start, end - start, study_uid)
        if not blocks_match(data, location.crcs, start):
            self.report(Flaw(location, "altered", record.sop_instance_uid, study_uid))
            raise CorruptObject("stored bytes do not match their checksum")
        return data if len(data) == length else data[offset - start : offset - start + length]

    def read_into(
        self, record: InstanceRecord, offset: int, length: int, buffer: memoryview, study_uid: str = "", *,
        wait: bool = True,
    ) -> memoryview | None:  # fmt: skip
        """The bytes of :meth:`read_range` within ``buffer``, which has room for the blocks they lie in.

        Without ``wait`` nothing blocks: None when it would have to, or when something is wrong; then read again.
        """
        place = record.location
        if offset < 0 or length < 0 or offset + length > place.length:
            raise RangeNotSatisfiable(f"bytes {offset} to {offset + length} of {place.length}")
        start, end = covering(offset, length, place.length)
        whole = buffer[: end - start]
        try:
            there = self._containers.read_into(
                place.container, place.container_id, place.offset + start, whole, wait=wait
            )
        except CorruptObject as error:
            if not wait:
                return None
            self.report(Flaw(place, "missing", record.sop_instance_uid, study_uid))
            raise CorruptObject("stored bytes are missing") from error
        if not there:
            return None
        if not blocks_match(whole, place.crcs, start):
            if not wait:
                return None
            self.report(Flaw(place, "altered", record.sop_instance_uid, study_uid))
            raise CorruptObject("stored bytes do not match their checksum")
        return whole[offset - start : offset - start + length]

    def read_steps(
        self, record: InstanceRecord, offset: int, length: int, step: int, study_uid: str = ""
    ) -> Iterator[bytes]:
        """The same bytes, at most ``step`` at a time, for a reader that should hold no more.

        The checksum of a block grows with its steps; the last step of a block is given only once it matches,
        so whoever gets them all has verified bytes. Raises as :meth:`read_range`.
        """
        place = record.location
        if offset < 0 or length < 0 or offset + length > place.length:
            raise RangeNotSatisfiable(f"bytes {offset} to {offset + length} of {place.length}")
        if not length:
            return
        start, end = covering(offset, length, place.length)
        crc, wanted_until = 0, offset + length
        for at in _cuts(start, end, offset, wanted_until, step):
            data = self._raw(record, at.start, at.stop - at.start, study_uid)
            crc = google_crc32c.extend(crc, data)
            last_wanted = at.stop == wanted_until or at.stop % BLOCK == 0
            if last_wanted and at.stop % BLOCK and at.stop != place.length:
                # The range ends within a block: the rest of the block is read for its checksum alone.
                for rest in range(at.stop, min(end, place.length), step):
                    more = self._raw(record, rest, min(step, end - rest), study_uid)
                    crc = google_crc32c.extend(crc, more)
            if last_wanted:
                block = at.start // BLOCK
                if crc.to_bytes(4, "big") != place.crcs[4 * block : 4 * block + 4]:
                    self.report(Flaw(place, "altered", record.sop_instance_uid, study_uid))
                    raise CorruptObject("stored bytes do not match their checksum")
                crc = 0
            given = [data]
            del data  # while it is with the reader, nothing here holds it too
            if at.start >= offset:
                yield given.pop()

    def _raw(self, record: InstanceRecord, offset: int, length: int, study_uid: str) -> bytes:
        """Unverified bytes of the data set. Raises CorruptObject: they are not there."""
        place = record.location
        try:
            return self._containers.read(place.container, place.container_id, place.offset + offset, length)
        except CorruptObject as error:
            self.report(Flaw(place, "missing", record.sop_instance_uid, study_uid))
            raise CorruptObject("stored bytes are missing") from error

    def stored_metadata(self, holding: SeriesHolding) -> bytes | None:
        """The gzip of the DICOM JSON array of a closed series, as packing made it; None for an open one.

        Unverified: gzip has a checksum of its own, so whoever opens it knows. Raises CorruptObject.
        """
        if holding.pack_id is None or any(r.location.container is Container.SEGMENT for r in holding.instances):
            return None
        with self._transactions.statements(None) as unit:
            row = unit.execute(QUERIES["stored_metadata"], {"pack_id": holding.pack_id}).fetchone()
        if row is None:
            return None
        return self._containers.read(Container.PACK, holding.pack_id, row["metadata_offset"], row["metadata_length"])

    def report(self, flaw: Flaw) -> None:
        """Record and alert. Never raises: the reader is refused all the same."""
        self._on_flaw(flaw)
        location = flaw.location
        try:
            with self._transactions.unit(None) as unit:
                first = unit.execute(
                    QUERIES["record_damage"],
                    {
                        "container": location.container.value,
                        "container_id": location.container_id,
                        "byte_offset": location.offset,
                        "sop_instance_uid": flaw.sop_instance_uid,
                        "study_uid": flaw.study_uid,
                        "kind": flaw.kind,
                    },
                ).fetchone()
            if first is not None:
                self._trail.record(
                    [
                        integrity_alert(
                            flaw.kind, location.container.value, location.container_id, location.offset,
                            flaw.study_uid, flaw.sop_instance_uid,
                        )
                    ]
                )  # fmt: skip
        except NegatoscopeError:
            log.exception("damage_not_recorded container=%s id=%d", location.container, location.container_id)
        log.error(
            "bytes_unverified kind=%s container=%s id=%d offset=%d sop_instance_uid=%s",
            flaw.kind, location.container, location.container_id, location.offset, flaw.sop_instance_uid,
        )  # fmt: skip


def _cuts(start: int, end: int, offset: int, until: int, step: int) -> Iterator[range]:
    """Steps from block-aligned ``start`` to ``until``: none crosses a block's end or ``offset``."""
    at = start
    while at < until:
        stop = min(at + step, at // BLOCK * BLOCK + BLOCK, until, end)
        if at < offset < stop:
            stop = offset
        yield range(at, stop)
        at = stop


def _known(versions: dict[int, int]) -> dict[str, list[int]]:
    return {"known_series": list(versions), "known_versions": list(versions.values())}


def _by_series(rows: Iterable[_Row]) -> list[list[_Row]]:
    groups: dict[int, list[_Row]] = {}
    for row in rows:
        groups.setdefault(row[3], []).append(row)
    return list(groups.values())


def _record(row: _Row) -> InstanceRecord:
    uid, sop_class, syntax, number, rows, columns, frames, sha256, segment_id, offset, length, crcs = row[10:]
    location = Location(Container.SEGMENT, segment_id, offset, length, crcs)
    return InstanceRecord(uid, sop_class, syntax, number, rows, columns, frames, sha256, location)
