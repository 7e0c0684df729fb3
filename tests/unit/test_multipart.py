"""wire.multipart: RFC 2046 bodies as events, whatever the network does to them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negatoscope.errors import BadRequest, TooLarge
from negatoscope.wire.multipart import (
    End,
    MultipartReader,
    MultipartWriter,
    PartBegan,
    PartData,
    PartEnded,
    new_boundary,
    parse_content_type,
)

Part = tuple[dict[str, str], bytes]


def parts_of(reader: MultipartReader, chunks: list[bytes]) -> tuple[list[Part], bool]:
    """Parts read whole, and whether the closing delimiter came."""
    parts: list[Part] = []
    open_headers: dict[str, str] = {}
    data = b""
    ended = False
    for chunk in chunks:
        for event in reader.receive(chunk):
            match event:
                case PartBegan(headers):
                    open_headers, data = dict(headers), b""
                case PartData(view):
                    assert len(view), "an empty piece of data says nothing"
                    data += view
                case PartEnded():
                    parts.append((open_headers, data))
                case End():
                    ended = True
    return parts, ended


def written(parts: list[Part], boundary: str) -> bytes:
    writer = MultipartWriter(boundary)
    heads = [writer.part_head(headers, first=index == 0) for index, (headers, _) in enumerate(parts)]
    return b"".join(head + data for head, (_, data) in zip(heads, parts, strict=True)) + writer.closing


def cut(stream: bytes, sizes: list[int]) -> list[bytes]:
    chunks = []
    while stream:
        size = sizes[len(stream) % len(sizes)]
        chunks.append(stream[:size])
        stream = stream[size:]
    return chunks


# Data made of the letters of a delimiter, so that near misses are common.
# The delimiter itself may not occur (RFC 2046 5.1), nor at the very start, where the line before has just ended.
near_misses = (
    st.lists(st.sampled_from([b"\r", b"\n", b"-", b"--", b"b", b"\r\n--", b"\r\n--a", b"x"]))
    .map(b"".join)
    .filter(lambda body: b"\r\n--bbb" not in b"\r\n" + body)
)


@given(bodies=st.lists(near_misses, min_size=1, max_size=5), sizes=st.lists(st.integers(1, 9), min_size=1))
def test_segmentation_never_changes_what_is_received(bodies: list[bytes], sizes: list[int]) -> None:
    sent: list[Part] = [({"content-type": "application/dicom"}, body) for body in bodies]
    stream = written(sent, "bbb")
    assert parts_of(MultipartReader("bbb"), cut(stream, sizes)) == (sent, True)
    assert parts_of(MultipartReader("bbb"), [stream]) == (sent, True)


@given(bodies=st.lists(near_misses, min_size=1, max_size=5), sizes=st.lists(st.integers(1, 9), min_size=1))
def test_what_lies_behind_the_length_in_a_buffer_is_not_looked_at(bodies: list[bytes], sizes: list[int]) -> None:
    """A buffer that is used again still holds what came before: here what would be the end of the body."""
    reader, received, stream = MultipartReader("bbb"), bytearray(), written([({}, body) for body in bodies], "bbb")
    ended = 0
    for piece in cut(stream, sizes):
        for event in reader.receive(bytearray(piece + b"\r\n--bbb--\r\n\r\n"), len(piece)):
            ended += isinstance(event, PartEnded)
            if isinstance(event, PartData):
                received += event.data
    assert (bytes(received), ended, reader.ended) == (b"".join(bodies), len(bodies), True)


@given(st.binary(max_size=200), st.lists(st.integers(1, 7), min_size=1))
def test_any_bytes_give_events_or_a_typed_refusal_alike_in_any_segmentation(noise: bytes, sizes: list[int]) -> None:
    def outcome(chunks: list[bytes]) -> object:
        try:
            return parts_of(MultipartReader("b", parts=3, header_bytes=64), chunks)
        except (BadRequest, TooLarge) as error:
            return type(error)

    stream = b"--b\r\n" + noise
    assert outcome(cut(stream, sizes)) == outcome([stream])


def test_preamble_epilogue_folded_headers_and_padding_are_read_as_the_standard_says() -> None:
    body = (
        b"ignored\r\nwords\r\n--simple \t\r\nContent-Type: application/dicom;\r\n\ttype=x\r\n"
        b"Content-Location:/a\r\n\r\n\r\ndata\r\n\r\n--simple\r\n\r\nno headers\r\n--simple--\r\nepilogue --simple"
    )
    assert parts_of(MultipartReader("simple"), [body]) == (
        [
            ({"content-type": "application/dicom; type=x", "content-location": "/a"}, b"\r\ndata\r\n"),
            ({}, b"no headers"),
        ],
        True,
    )


@pytest.mark.parametrize("body", [b"--b\r\nA: 1\r\n\r\n\r\n--b--", b"--b\r\nA: 1\r\n\r\n--b--"])
def test_an_empty_part_is_a_part(body: bytes) -> None:
    """With or without the line break of its own that the grammar asks for."""
    assert parts_of(MultipartReader("b"), [body]) == ([({"a": "1"}, b"")], True)
    assert parts_of(MultipartReader("b"), [body[i : i + 1] for i in range(len(body))]) == ([({"a": "1"}, b"")], True)


def test_a_body_that_stops_early_never_ends() -> None:
    stream = written([({"a": "1"}, b"data")], "b")
    for length in range(len(stream) - len(b"--\r\n") + 1):
        reader = MultipartReader("b")
        reader.receive(stream[:length])
        assert not reader.ended


@pytest.mark.parametrize("count", [2, 3])
def test_parts_up_to_the_limit_are_taken(count: int) -> None:
    parts, ended = parts_of(MultipartReader("b", parts=3), [written([({}, b"x")] * count, "b")])
    assert (len(parts), ended) == (count, True)


def test_a_part_over_the_limit_is_refused_when_it_begins() -> None:
    with pytest.raises(TooLarge, match="over 3 parts"):
        parts_of(MultipartReader("b", parts=3), [written([({}, b"x")] * 4, "b")])


@pytest.mark.parametrize(("length", "taken"), [(63, True), (64, True), (65, False)])
def test_a_header_block_is_bounded_whether_it_ends_or_not(length: int, taken: bool) -> None:
    block = b"\r\n" + b"a:" + b"x" * (length - 4)
    for chunks in ([b"--b" + block + b"\r\n\r\n"], [b"--b" + block, b"\r\n\r\n"]):
        reader = MultipartReader("b", header_bytes=64)
        if taken:
            assert [type(e) for chunk in chunks for e in reader.receive(chunk)] == [PartBegan]
        else:
            with pytest.raises(TooLarge):
                for chunk in chunks:
                    reader.receive(chunk)


@pytest.mark.parametrize("noise", [b"x", b"\r\n", b"\r\n--", b"--a"])
def test_an_endless_preamble_is_refused(noise: bytes) -> None:
    reader = MultipartReader("b", header_bytes=64)
    with pytest.raises(TooLarge):
        for _ in range(100):
            reader.receive(noise)


def test_what_is_held_stays_below_one_delimiter_while_data_flows() -> None:
    reader = MultipartReader("b" * 70)
    reader.receive(b"--" + b"b" * 70 + b"\r\n\r\n")
    for piece in [b"\r", b"\n", b"--", b"b" * 69, b"\r\n--", b"y" * 100_000, b"\r\r\r\r"] * 5:
        reader.receive(piece)
        assert reader.held <= 74


@pytest.mark.parametrize("boundary", ["", " ", "a ", "é", "a\r\n", "a" * 201, 'a"b'])
def test_boundaries_outside_the_grammar_are_refused(boundary: str) -> None:
    with pytest.raises(BadRequest):
        MultipartReader(boundary)


@pytest.mark.parametrize("tail", [b"x", b"-x", b" -", b" --", b"\rx", b"\n"])
def test_text_glued_to_a_boundary_is_refused(tail: bytes) -> None:
    with pytest.raises(BadRequest):
        MultipartReader("b").receive(b"--b" + tail + b"\r\n")


@pytest.mark.parametrize("line", [b"no colon", b": no name", b" folded first: x"])
def test_header_lines_that_are_none_are_refused(line: bytes) -> None:
    with pytest.raises(BadRequest):
        MultipartReader("b").receive(b"--b\r\n" + line + b"\r\n\r\n")


def test_content_types_are_read_with_quotes_escapes_and_white_space() -> None:
    value = 'Multipart/Related; type="application/dicom+json" ; Boundary = "a;\\"b\\\\" ;charset=utf-8'
    assert parse_content_type(value) == (
        "multipart/related",
        {"type": "application/dicom+json", "boundary": 'a;"b\\', "charset": "utf-8"},
    )
    assert parse_content_type("application/dicom") == ("application/dicom", {})


def test_a_written_body_says_its_type_and_boundary() -> None:
    boundary = new_boundary()
    kind, parameters = parse_content_type(MultipartWriter(boundary).content_type("application/dicom"))
    assert (kind, parameters) == ("multipart/related", {"type": "application/dicom", "boundary": boundary})
