"""Accept negotiation: RFC 9110 12.5.1, and the ways DICOM clients really write it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negatoscope.errors import BadRequest, NotAcceptable
from negatoscope.web.media_types import (
    ANY,
    DICOM,
    DICOM_JSON,
    DICOM_XML,
    JSON,
    MAX_RANGES,
    MULTIPART,
    OCTET_STREAM,
    MediaRange,
    Offer,
    accept_of,
    check_charset,
    describe,
    negotiate,
    parse_accept,
    preferences,
)

JLS = "1.2.840.10008.1.2.4.80"
EXPLICIT = "1.2.840.10008.1.2.1"
SEARCH = (Offer(DICOM_JSON), Offer(JSON), Offer(MULTIPART, DICOM_XML))
FRAMES = (Offer(MULTIPART, OCTET_STREAM), Offer(MULTIPART, "image/jls"), Offer(OCTET_STREAM))
SINGLE = (Offer(DICOM, transfer_syntaxes=(EXPLICIT, JLS)),)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("application/dicom+json", [MediaRange(DICOM_JSON)]),
        ("Application/DICOM+JSON ; Q=0.5", [MediaRange(DICOM_JSON, weight=0.5)]),
        ("*/*;q=0.1, image/*", [MediaRange("*/*", weight=0.1), MediaRange("image/*")]),
        (", ,application/json,,", [MediaRange(JSON)]),
        (
            'multipart/related; type="application/dicom"; transfer-syntax=*',
            [MediaRange(MULTIPART, DICOM, ANY)],
        ),
        (
            "multipart/related;type=application/octet-stream;transfer-syntax=*",
            [MediaRange(MULTIPART, OCTET_STREAM, ANY)],
        ),
        (
            f'multipart/related; type="image/jls; transfer-syntax={JLS}"; q=0.9',
            [MediaRange(MULTIPART, "image/jls", JLS, weight=0.9)],
        ),
        (
            f'multipart/related; type="image/jls"; transfer-syntax="{JLS}", application/json;charset=UTF-8',
            [MediaRange(MULTIPART, "image/jls", JLS), MediaRange(JSON, charset="utf-8")],
        ),
        ('application/json; note="a, \\"b\\"; c"; ; q=0.2', [MediaRange(JSON, weight=0.2)]),
        ("application/dicom; type=ignored", [MediaRange(DICOM)]),
        ("", []),
    ],
)
def test_every_spelling_of_a_media_range_is_read(header: str, expected: list[MediaRange]) -> None:
    assert parse_accept(header) == expected


@pytest.mark.parametrize(
    "header",
    [
        "json",
        "*/json",
        "application/json; q=2",
        "application/json; q=0.1234",
        "application/json; q=-1",
        'application/json; a="unclosed',
        "application/json application/xml",
        "application/dicom; transfer-syntax=../x",
        "application/json; q",
    ],
)
def test_a_malformed_accept_is_a_bad_request(header: str) -> None:
    with pytest.raises(BadRequest, match="Accept"):
        parse_accept(header)


@pytest.mark.parametrize(("count", "accepted"), [(MAX_RANGES - 1, True), (MAX_RANGES, True), (MAX_RANGES + 1, False)])
def test_the_number_of_media_ranges_is_bounded(count: int, accepted: bool) -> None:
    header = ",".join(["a/b"] * count)
    if accepted:
        assert len(parse_accept(header)) == count
    else:
        with pytest.raises(BadRequest, match=str(MAX_RANGES)):
            parse_accept(header)


@given(st.text(alphabet='abc/*;=, "\\q0.15\t', max_size=60))
def test_any_text_is_read_or_refused_and_nothing_else(header: str) -> None:
    try:
        ranges = parse_accept(header)
    except BadRequest:
        return
    assert all(0 <= wanted.weight <= 1 and "/" in wanted.essence for wanted in ranges)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, DICOM_JSON),
        ("", DICOM_JSON),
        ("*/*", DICOM_JSON),
        ("application/*", DICOM_JSON),
        ("application/json", JSON),
        ("application/json, application/dicom+json", DICOM_JSON),
        ("application/json, application/dicom+json;q=0.9", JSON),
        ("*/*, application/json", JSON),
        ("*/*, application/dicom+json;q=0", JSON),
        ("multipart/related", MULTIPART),
        ('multipart/related; type="application/dicom+xml"', MULTIPART),
        ('multipart/related; type="application/*"', MULTIPART),
        ('multipart/related; type="application/dicom+xml";q=0.2, application/json;q=0.1', MULTIPART),
        ("text/html, application/xhtml+xml, */*;q=0.8", DICOM_JSON),
        ("application/*, application/dicom+json;q=0, application/json;q=0.5", JSON),
    ],
)
def test_the_best_representation_is_chosen(header: str | None, expected: str) -> None:
    assert negotiate(header, SEARCH).offer.essence == expected


@pytest.mark.parametrize(
    "header",
    ["text/html", "application/dicom+json;q=0", "image/*", 'multipart/related; type="application/dicom"', "*/*;q=0"],
)
def test_what_cannot_be_given_is_not_acceptable(header: str) -> None:
    with pytest.raises(NotAcceptable, match=r"application/dicom\+json"):
        negotiate(header, SEARCH)


def test_each_transfer_syntax_asked_for_is_a_choice_in_order_of_weight() -> None:
    header = (
        'multipart/related; type="application/octet-stream"; transfer-syntax=1.2.840.10008.1.2.1; q=0.5, '
        f'multipart/related; type="image/jls"; transfer-syntax={JLS}, '
        'multipart/related; type="application/octet-stream"; transfer-syntax=*; q=0.7'
    )
    choices = preferences(header, FRAMES)
    assert [(choice.offer.part, choice.transfer_syntax) for choice in choices] == [
        ("image/jls", JLS),
        (OCTET_STREAM, ANY),
        (OCTET_STREAM, EXPLICIT),
    ]


def test_a_transfer_syntax_outside_the_offer_is_not_acceptable() -> None:
    assert negotiate(f"application/dicom; transfer-syntax={JLS}", SINGLE).transfer_syntax == JLS
    assert negotiate("application/dicom; transfer-syntax=*", SINGLE).transfer_syntax == ANY
    assert negotiate("application/dicom", SINGLE).transfer_syntax is None
    with pytest.raises(NotAcceptable):
        negotiate("application/dicom; transfer-syntax=1.2.3", SINGLE)


def test_the_content_type_names_the_parts_and_the_boundary() -> None:
    choice = negotiate("multipart/related", SEARCH)
    assert choice.content_type("abc") == 'multipart/related; type="application/dicom+xml"; boundary=abc'
    assert negotiate("application/json", SEARCH).content_type() == JSON
    assert describe(SEARCH[2]) == 'multipart/related; type="application/dicom+xml"'


def test_the_accept_query_parameter_stands_in_for_the_header() -> None:
    assert accept_of("text/html", "application/json") == "application/json"
    assert accept_of("text/html", " ") == "text/html"
    assert accept_of(None, None) is None


@pytest.mark.parametrize("names", [None, "", "utf-8", "iso-8859-1, UTF-8;q=0.5", "*", '"utf-8"'])
def test_a_charset_that_includes_utf8_is_served(names: str | None) -> None:
    check_charset(names)


def test_a_charset_without_utf8_is_not_acceptable() -> None:
    with pytest.raises(NotAcceptable, match="UTF-8"):
        check_charset("iso-8859-1")
