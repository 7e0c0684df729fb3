"""Objects that are no pictures: encapsulated documents and video, found where they lie.

Sources: PS3.3 C.24.2 (Encapsulated Document), PS3.5 8.2.5 to 8.2.9 (video), PS3.18 8.7.3.3 (media types).
"""

from __future__ import annotations

from dataclasses import dataclass

from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.dicom.pixels.describe import describe_header
from negatoscope.dicom.pixels.frames import Fragments, all_fragments
from negatoscope.dicom.pixels.header import Buffer, plain, read_header
from negatoscope.dicom.uid import transfer_syntax
from negatoscope.errors import NotAcceptable, TruncatedObject

_DOCUMENT, _MEDIA_TYPE, _DOCUMENT_LENGTH = 0x00420011, 0x00420012, 0x00420015
_MPEG2 = ("1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.101")
_HEVC = ("1.2.840.10008.1.2.4.107", "1.2.840.10008.1.2.4.108")


@dataclass(frozen=True, slots=True)
class VideoStream:
    """A video: its media type, and the ranges that joined are the stream as the camera wrote it."""

    media_type: str
    fragments: Fragments

    @property
    def length(self) -> int:
        return sum(length for _, length in self.fragments)


def encapsulated_document(
    data: Buffer, transfer_syntax_uid: str, limits: Limits = DEFAULT_LIMITS
) -> tuple[str, int, int]:
    """Media type, offset and length of the document (PDF, CDA, STL...) in the plain data set.

    Raises:
        NotAcceptable: the object holds no document.
        PixelsUnreadable, LimitExceeded, TruncatedObject: the data set cannot be read.
    """
    view, syntax = plain(data, transfer_syntax_uid, limits)
    header = read_header(view, syntax, limits)
    found = header.elements.get(_DOCUMENT)
    if found is None or found.undefined:
        raise NotAcceptable("the object holds no document")
    length = found.length
    declared = header.packed(_DOCUMENT_LENGTH, "L")
    if declared and length - 1 <= declared[0] <= length:  # without the byte that makes it even
        length = int(declared[0])
    return header.text(_MEDIA_TYPE).lower() or "application/octet-stream", found.offset, length


def video_stream(data: Buffer, transfer_syntax_uid: str, limits: Limits = DEFAULT_LIMITS) -> VideoStream:
    """The video of an object stored in an MPEG or HEVC syntax.

    Raises:
        NotAcceptable: the object is no video.
        PixelsUnreadable, LimitExceeded, TruncatedObject: the data set cannot be read.
    """
    if not transfer_syntax(transfer_syntax_uid).video:
        raise NotAcceptable("the object is no video")
    view, syntax = plain(data, transfer_syntax_uid, limits)
    description = describe_header(read_header(view, syntax, limits), syntax, limits)
    fragments = all_fragments(view, description, limits)
    if not fragments:
        raise TruncatedObject("a video without a fragment")
    plain_uid = transfer_syntax_uid.removesuffix(".1")
    media_type = "video/mpeg" if plain_uid in _MPEG2 else "video/H265" if plain_uid in _HEVC else "video/mp4"
    return VideoStream(media_type, fragments)
