"""The hash chain as pure functions: what is altered is found, and the first bad record is named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negatoscope.audit.chain import (
    DETAIL_LIMIT,
    GENESIS,
    TEXT_LIMIT,
    Finding,
    Flaw,
    Head,
    Record,
    event_of,
    extend,
    link,
    verify,
)
from negatoscope.model.event import AuditEvent, EventAction, EventKind, EventOutcome

AT = datetime(2026, 11, 22, 12, 0, 0, 123456, UTC)
EMPTY = Head(0, GENESIS)


def event(number: int = 1, **changes: object) -> AuditEvent:
    built = AuditEvent(
        EventKind.INSTANCES_ACCESSED,
        EventAction.READ,
        EventOutcome.SUCCESS,
        number,
        "dr",
        "A",
        study_uid=f"2.25.{number}",
        detail={"instances": number},
    )
    return replace(built, **changes)  # type: ignore[arg-type]  # any field, by name


def chain(count: int) -> list[Record]:
    return extend(EMPTY, AT, [event(n) for n in range(1, count + 1)])


def test_the_hash_of_an_event_is_sha256_of_the_previous_hash_and_its_json() -> None:
    first, second = chain(2)
    assert first.hash == hashlib.sha256(bytes(32) + first.event.encode()).digest()
    assert second.hash == hashlib.sha256(first.hash + second.event.encode()).digest()


def test_the_json_is_canonical_and_holds_sequence_time_and_every_field() -> None:
    record = extend(Head(6, GENESIS), AT.astimezone(timezone(timedelta(hours=2))), [event(7)])[0]
    fields = json.loads(record.event)
    assert record.event == json.dumps(fields, sort_keys=True, separators=(",", ":"))
    assert fields["sequence"] == 7
    assert fields["at"] == "2026-11-22T12:00:00.123456+00:00"
    assert fields["study_uid"] == "2.25.7"
    assert fields["detail"] == {"instances": 7}
    assert event_of(record.event)[:2] == (7, AT)


def test_a_whole_chain_has_no_finding() -> None:
    records = chain(5)
    assert verify(records, records[-1].head).finding is None
    assert verify([], EMPTY).finding is None


def test_chains_made_in_pieces_and_at_once_are_the_same() -> None:
    events = [event(n) for n in range(1, 5)]
    first = extend(EMPTY, AT, events[:2])
    assert first + extend(first[-1].head, AT, events[2:]) == extend(EMPTY, AT, events)


TAMPERING: dict[str, tuple[Callable[[list[Record]], list[Record]], Finding]] = {
    "text": (
        lambda r: [*r[:4], replace(r[4], event=r[4].event.replace('"dr"', '"me"')), *r[5:]],
        Finding(5, Flaw.BROKEN),
    ),
    "not JSON": (lambda r: [*r[:4], replace(r[4], event="{"), *r[5:]], Finding(5, Flaw.ALTERED)),
    "JSON, not an event": (lambda r: [*r[:4], replace(r[4], event="[]"), *r[5:]], Finding(5, Flaw.ALTERED)),
    "not ASCII": (
        lambda r: [*r[:4], replace(r[4], event=r[4].event.replace('"dr"', '"é"')), *r[5:]],
        Finding(5, Flaw.ALTERED),
    ),
    "time": (lambda r: [*r[:4], replace(r[4], at=AT + timedelta(seconds=1)), *r[5:]], Finding(5, Flaw.ALTERED)),
    "actor": (lambda r: [*r[:4], replace(r[4], actor_id=99), *r[5:]], Finding(5, Flaw.ALTERED)),
    "establishment": (lambda r: [*r[:4], replace(r[4], establishment_code="B"), *r[5:]], Finding(5, Flaw.ALTERED)),
    "study": (lambda r: [*r[:4], replace(r[4], study_uid="2.25.9"), *r[5:]], Finding(5, Flaw.ALTERED)),
    "hash": (lambda r: [*r[:4], replace(r[4], hash=bytes(32)), *r[5:]], Finding(5, Flaw.BROKEN)),
    "deleted first": (lambda r: r[1:], Finding(1, Flaw.MISSING)),
    "deleted": (lambda r: [*r[:4], *r[5:]], Finding(5, Flaw.MISSING)),
    "inserted after the head": (lambda r: [*r, *extend(r[-1].head, AT, [event(11)])], Finding(11, Flaw.SURPLUS)),
    "inserted before the first": (lambda r: [replace(r[0], sequence=0), *r], Finding(0, Flaw.MISSING)),
    "two swapped": (
        lambda r: [*r[:3], replace(r[4], sequence=4), replace(r[3], sequence=5), *r[5:]],
        Finding(4, Flaw.ALTERED),
    ),
    "tail cut": (lambda r: r[:7], Finding(8, Flaw.CUT)),
    "all gone": (lambda r: [], Finding(1, Flaw.CUT)),
}


@pytest.mark.parametrize("kind", TAMPERING)
def test_tampering_is_found_and_the_first_bad_record_named(kind: str) -> None:
    records = chain(10)
    tamper, expected = TAMPERING[kind]
    found = verify(tamper(records), records[-1].head).finding
    assert found is not None
    if kind == "inserted before the first":
        assert found.flaw is Flaw.MISSING
    else:
        assert found == expected


def test_a_tail_cut_together_with_the_head_is_shown_by_an_exported_head() -> None:
    records = chain(10)
    kept = records[:7]
    assert verify(kept, kept[-1].head).finding is None
    assert verify(kept, kept[-1].head, [records[8].head]).finding == Finding(8, Flaw.CUT)


def test_a_chain_written_anew_is_shown_by_an_exported_head() -> None:
    records = chain(10)
    forged = records[:4] + extend(records[3].head, AT, [event(n, actor_name="other") for n in range(5, 11)])
    assert verify(forged, forged[-1].head).finding is None
    assert verify(forged, forged[-1].head, [records[2].head, records[7].head]).finding == Finding(8, Flaw.REWRITTEN)


def test_a_head_of_another_hash_is_found() -> None:
    records = chain(3)
    assert verify(records, Head(3, bytes(32))).finding == Finding(3, Flaw.REWRITTEN)


def test_a_head_set_back_is_found() -> None:
    records = chain(5)
    assert verify(records, records[2].head).finding == Finding(4, Flaw.SURPLUS)
    assert verify(records, records[2].head, [records[4].head]).finding == Finding(4, Flaw.SURPLUS)


def test_a_finding_says_which_record_and_what() -> None:
    assert str(Finding(5, Flaw.BROKEN)) == "record 5 is broken"


@given(st.text(st.characters(exclude_categories=[]), max_size=40), st.text(max_size=40))
def test_whatever_a_peer_sends_can_be_chained_stored_and_verified(study_uid: str, value: str) -> None:
    records = extend(EMPTY, AT, [event(1, study_uid=study_uid, detail={"key": value})])
    assert records[0].event.isascii()
    assert "\0" not in records[0].study_uid + records[0].event
    records[0].study_uid.encode()
    assert verify(records, records[0].head).finding is None


@pytest.mark.parametrize(
    ("length", "kept"), [(TEXT_LIMIT - 1, TEXT_LIMIT - 1), (TEXT_LIMIT, TEXT_LIMIT), (TEXT_LIMIT + 1, TEXT_LIMIT)]
)
def test_a_text_is_kept_up_to_its_limit(length: int, kept: int) -> None:
    record = extend(EMPTY, AT, [event(1, actor_name="x" * length, study_uid="1" * length, detail={"k": "y" * length})])[
        0
    ]
    _, _, fields = event_of(record.event)
    assert (len(fields["actor_name"]), len(record.study_uid), len(fields["detail"]["k"])) == (kept, kept, kept)
    assert verify([record], record.head).finding is None


@pytest.mark.parametrize(
    ("count", "kept"),
    [(DETAIL_LIMIT - 1, DETAIL_LIMIT - 1), (DETAIL_LIMIT, DETAIL_LIMIT), (DETAIL_LIMIT + 1, DETAIL_LIMIT)],
)
def test_details_are_kept_up_to_their_limit(count: int, kept: int) -> None:
    record = extend(EMPTY, AT, [event(1, detail={str(n): n for n in range(count)})])[0]
    assert len(event_of(record.event)[2]["detail"]) == kept


def test_link_depends_on_the_previous_hash() -> None:
    assert link(GENESIS, "{}") != link(b"\1" * 32, "{}")
