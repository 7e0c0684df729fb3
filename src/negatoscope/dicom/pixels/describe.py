"""What a data set says of its pixels, read from its header alone and judged against the limits.

Sources: PS3.3 C.7.6.3 (Image Pixel), C.11 (LUTs), C.7.6.16.2 (functional groups), C.7.5.1.1.2 (padding).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.dicom.pixels.header import (
    DOUBLE_PIXELS,
    FLOAT_PIXELS,
    PIXELS,
    Buffer,
    Element,
    Header,
    plain,
    read_header,
)
from negatoscope.dicom.pixels.luts import Lut, Palette, read_lut, read_palette
from negatoscope.dicom.uid import transfer_syntax
from negatoscope.errors import LimitExceeded, PixelsUnreadable, TruncatedObject

_SHARED_GROUPS, _FRAME_GROUPS = 0x52009229, 0x52009230
_OFFSETS, _LENGTHS = 0x7FE00001, 0x7FE00002  # Extended Offset Table and its lengths


class Kind(Enum):
    """Which element holds the pixels."""

    INTEGER = PIXELS
    FLOAT = FLOAT_PIXELS
    DOUBLE = DOUBLE_PIXELS


@dataclass(frozen=True, slots=True)
class Window:
    """A VOI window in modality units; ``function`` is LINEAR, LINEAR_EXACT or SIGMOID."""

    center: float
    width: float
    function: str = "LINEAR"


@dataclass(frozen=True, slots=True, eq=False)
class Transform:
    """Stored values to display: modality step, then the choice of VOI steps."""

    slope: float = 1.0
    intercept: float = 0.0
    modality_lut: Lut | None = None
    windows: tuple[Window, ...] = ()
    voi_luts: tuple[Lut, ...] = ()
    aspect: float = 1.0  # height of a pixel over its width


@dataclass(frozen=True, slots=True, eq=False)
class PixelDescription:
    """All that decoding and rendering need. Offsets refer to the plain (inflated) data set."""

    transfer_syntax_uid: str  # of the plain data set: never the deflated one
    rows: int
    columns: int
    samples: int
    photometric: str
    planar: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    frames: int
    kind: Kind
    encapsulated: bool
    pixels: Element  # where the pixel data element lies
    little: bool
    transform: Transform  # top level and shared functional groups
    palette: Palette | None
    padding: tuple[int, int] | None  # stored values that are no image, both ends included
    inverse: bool  # Presentation LUT Shape INVERSE
    modality: str
    sop_class_uid: str
    lossy: bool  # Lossy Image Compression is "01"
    offset_table: tuple[Element, Element] | None  # Extended Offset Table, Lengths
    frame_groups: bool  # per-frame functional groups are present

    @property
    def subsampled(self) -> bool:
        """Native 4:2:2: two luminances share a pair of chrominances."""
        return self.photometric == "YBR_FULL_422" and not self.encapsulated

    @property
    def frame_bits(self) -> int:
        """Bits of one native frame."""
        samples = 2 if self.subsampled else self.samples
        return self.rows * self.columns * samples * self.bits_allocated

    @property
    def unit(self) -> int:
        """Bytes swapped together on top of the cell: 2 for bytes or bits in big endian words, else 1."""
        return 2 if not self.little and self.pixels.vr == b"OW" and self.bits_allocated < 16 else 1

    @property
    def monochrome(self) -> bool:
        return self.photometric in ("MONOCHROME1", "MONOCHROME2")


def describe(data: Buffer, transfer_syntax_uid: str, limits: Limits = DEFAULT_LIMITS) -> PixelDescription:
    """Read how the pixels of a data set are to be understood; never touches them.

    For a deflated data set call :func:`header.plain` first when offsets are needed.

    Raises:
        PixelsUnreadable: no pixels, or attributes that contradict one another.
        LimitExceeded: frames, frame pixels, elements or nesting.
        TruncatedObject: the data set, or native pixel data, ends early.
    """
    view, syntax = plain(data, transfer_syntax_uid, limits)
    return describe_header(read_header(view, syntax, limits), syntax, limits)


def describe_header(header: Header, transfer_syntax_uid: str, limits: Limits) -> PixelDescription:
    """:func:`describe` of a header already read."""
    kind = next((k for k in Kind if k.value in header), None)
    if kind is None:
        raise PixelsUnreadable("the data set has no pixel data")
    rows, columns = header.integer(0x00280010, 0), header.integer(0x00280011, 0)
    samples = header.integer(0x00280002, 1)
    allocated = header.integer(0x00280100, {Kind.INTEGER: 0, Kind.FLOAT: 32, Kind.DOUBLE: 64}[kind])
    frames = _frames(header, limits)
    _judge(rows, columns, samples, allocated, limits)
    stored = header.integer(0x00280101, allocated)
    high = header.integer(0x00280102, stored - 1)
    if not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
        if stored > allocated or stored < 1:
            raise PixelsUnreadable(f"{stored} bits stored in {allocated} allocated")
        high = stored - 1
    signed = header.integer(0x00280103, 0) == 1
    photometric = header.text(0x00280004).upper() or ("MONOCHROME2" if samples == 1 else "RGB")
    pixels = header.elements[kind.value]
    encapsulated = pixels.undefined and transfer_syntax(transfer_syntax_uid).encapsulated
    if pixels.undefined and not encapsulated:
        raise PixelsUnreadable("pixel data of undefined length in a native transfer syntax")
    shared = header.first(_SHARED_GROUPS)
    transform = read_transform(header, Transform(), signed)
    description = PixelDescription(
        transfer_syntax_uid=transfer_syntax_uid,
        rows=rows,
        columns=columns,
        samples=samples,
        photometric=photometric,
        planar=header.integer(0x00280006, 0) if samples > 1 else 0,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high,
        signed=signed,
        frames=frames,
        kind=kind,
        encapsulated=encapsulated,
        pixels=pixels,
        little=header.encoding.little,
        transform=_groups(shared, transform, signed) if shared else transform,
        palette=read_palette(header, signed) if photometric == "PALETTE COLOR" else None,
        padding=_padding(header, signed) if samples == 1 else None,
        inverse=header.text(0x20500020).upper() == "INVERSE",
        modality=header.text(0x00080060),
        sop_class_uid=header.text(0x00080016),
        lossy=header.text(0x00282110) == "01",
        offset_table=_offset_table(header),
        frame_groups=_FRAME_GROUPS in header,
    )
    if encapsulated:
        return description
    return _judge_length(description, len(header.view))


def frame_transform(header: Header, description: PixelDescription, frame: int) -> Transform:
    """The transform of one frame, counted from 0: its functional groups over the shared ones.

    Frames without an item of their own take the shared transform.
    """
    if not description.frame_groups:
        return description.transform
    for number, item in enumerate(header.items(_FRAME_GROUPS)):
        if number == frame:
            return _groups(item, description.transform, description.signed)
    return description.transform


def read_transform(header: Header, base: Transform, signed: bool) -> Transform:
    """``base`` with what this level says: rescale, LUT sequences, windows, pixel aspect."""
    slope, intercept = header.numbers(0x00281053), header.numbers(0x00281052)
    if slope or intercept:
        factor = slope[0] if slope and slope[0] != 0 else 1.0
        base = replace(base, slope=factor, intercept=intercept[0] if intercept else 0.0)
    modality = header.first(0x00283000)
    if modality is not None and (lut := read_lut(modality, signed)):
        base = replace(base, modality_lut=lut)
    centers, widths = header.numbers(0x00281050), header.numbers(0x00281051)
    if centers and widths:
        function = header.text(0x00281056).upper() or "LINEAR"
        windows = tuple(Window(c, w, function) for c, w in zip(centers, widths, strict=False) if w > 0)
        base = replace(base, windows=windows)
    # The input of a VOI LUT is what the modality step gives: signed when that may be negative.
    signed_input = signed or base.intercept < 0
    luts = tuple(lut for item in header.items(0x00283010) if (lut := read_lut(item, signed_input)))
    if luts:
        base = replace(base, voi_luts=luts)
    aspect = _aspect(header)
    return replace(base, aspect=aspect) if aspect is not None else base


def _groups(item: Header, base: Transform, signed: bool) -> Transform:
    """Pixel Measures, Pixel Value Transformation and Frame VOI LUT groups, in that order."""
    for tag in (0x00289110, 0x00289145, 0x00289132):
        if (inner := item.first(tag)) is not None:
            base = read_transform(inner, base, signed)
    return base


def _frames(header: Header, limits: Limits) -> int:
    numbers = header.numbers(0x00280008)
    frames = int(numbers[0]) if numbers and abs(numbers[0]) < 1e18 else 1
    if frames > limits.frames or (numbers and not abs(numbers[0]) < 1e18):
        raise LimitExceeded(f"more than {limits.frames} frames declared")
    return max(frames, 1)


def _judge(rows: int, columns: int, samples: int, allocated: int, limits: Limits) -> None:
    if not rows or not columns:
        raise PixelsUnreadable(f"{rows} rows of {columns} columns")
    if rows * columns > limits.frame_pixels:
        raise LimitExceeded(f"{rows} x {columns} pixels a frame, {limits.frame_pixels} allowed")
    if samples not in (1, 3, 4):
        raise PixelsUnreadable(f"{samples} samples per pixel")
    if allocated not in (1, 8, 16, 32, 64):
        raise PixelsUnreadable(f"{allocated} bits allocated")


def _judge_length(description: PixelDescription, end: int) -> PixelDescription:
    """Native pixel data must hold every declared frame; a last odd byte may be missing.

    4:2:2 that is as long as 4:4:4 is 4:4:4 under a wrong name, as old writers left it.
    """
    element = description.pixels
    full = description.rows * description.columns * 3 * (description.bits_allocated // 8) * description.frames
    if description.subsampled and element.length >= full:
        description = replace(description, photometric="YBR_FULL")
    needed = (description.frame_bits * description.frames + 7) // 8
    if element.length < needed:
        raise TruncatedObject(f"{element.length} bytes of pixel data, {needed} needed")
    if element.end > end:
        raise TruncatedObject("pixel data end after the data set")
    return description


def _padding(header: Header, signed: bool) -> tuple[int, int] | None:
    code = "h" if signed else "H"
    value = header.packed(0x00280120, code)
    if not value:
        return None
    limit = header.packed(0x00280121, code) or value
    low, high = sorted((int(value[0]), int(limit[0])))
    return low, high


def _aspect(header: Header) -> float | None:
    """Vertical over horizontal size of a pixel: PixelSpacing, ImagerPixelSpacing or PixelAspectRatio."""
    for tag in (0x00280030, 0x00181164, 0x00280034):
        values = header.numbers(tag)
        if len(values) >= 2 and values[0] > 0 and values[1] > 0:
            return values[0] / values[1]
    return None


def _offset_table(header: Header) -> tuple[Element, Element] | None:
    offsets, lengths = header.elements.get(_OFFSETS), header.elements.get(_LENGTHS)
    return (offsets, lengths) if offsets and lengths else None
