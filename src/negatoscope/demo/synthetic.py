"""Generated DICOM files: what a demonstration shows and benchmarks send. Every one says that it is synthetic.

Each function gives Part 10 files as bytes, deterministic in its arguments, a few milliseconds apiece.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from negatoscope.demo.encode import Elements, data_set, part10, stable_uid
from negatoscope.demo.phantom import breast, fan, head, thorax

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2.1"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
MG_IMAGE = "1.2.840.10008.5.1.4.1.1.1.2"  # for presentation
US_MULTIFRAME = "1.2.840.10008.5.1.4.1.1.3.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"
SERIES = "Fantôme synthétique"


@dataclass(frozen=True, slots=True)
class Labels:
    """Whose and which study a generated object says it is. Dates YYYYMMDD, times HHMMSS."""

    study: str  # any text; studies, series and instances get UIDs derived from it
    patient_id: str = "SYN0001"
    patient_name: str = "SYNTHETIC^PHANTOM"
    birth_date: str = "19700101"
    sex: str = "O"
    study_date: str = "20260312"
    study_time: str = "101500"
    accession_number: str = ""
    study_description: str = "SYNTHETIC"
    institution: str = "Négatoscope demonstration"
    study_id: str = "1"

    @property
    def study_uid(self) -> str:
        return stable_uid("study", self.study)

    def series_uid(self, series: int) -> str:
        return stable_uid("series", self.study, series)

    def instance_uid(self, series: int, number: int) -> str:
        return stable_uid("instance", self.study, series, number)


def header(labels: Labels, sop_class_uid: str, modality: str, series: int, number: int, description: str) -> Elements:
    """Patient, study, series, equipment and SOP common modules (PS3.3 C.7, C.12)."""
    return {
        0x00080005: ("CS", "ISO_IR 192"),
        0x00080012: ("DA", labels.study_date),
        0x00080013: ("TM", labels.study_time),
        0x00080016: ("UI", sop_class_uid),
        0x00080018: ("UI", labels.instance_uid(series, number)),
        0x00080020: ("DA", labels.study_date),
        0x00080021: ("DA", labels.study_date),
        0x00080023: ("DA", labels.study_date),
        0x00080030: ("TM", labels.study_time),
        0x00080031: ("TM", labels.study_time),
        0x00080033: ("TM", labels.study_time),
        0x00080050: ("SH", labels.accession_number),
        0x00080060: ("CS", modality),
        0x00080070: ("LO", "Negatoscope"),
        0x00080080: ("LO", labels.institution),
        0x00080090: ("PN", ""),
        0x00081030: ("LO", labels.study_description),
        0x0008103E: ("LO", description),
        0x00081090: ("LO", "phantom.py"),
        0x00100010: ("PN", labels.patient_name),
        0x00100020: ("LO", labels.patient_id),
        0x00100030: ("DA", labels.birth_date),
        0x00100040: ("CS", labels.sex),
        0x0020000D: ("UI", labels.study_uid),
        0x0020000E: ("UI", labels.series_uid(series)),
        0x00200010: ("SH", labels.study_id),
        0x00200011: ("IS", series),
        0x00200013: ("IS", number),
    }


def image(
    rows: int, columns: int, bits: int, stored: int, kind: str = "DERIVED\\SECONDARY", photometric: str = "MONOCHROME2"
) -> Elements:
    """Image pixel module (PS3.3 C.7.6.3); the annotation drawn in says SYNTHETIC and names nobody."""
    colour = photometric == "RGB"
    return {
        0x00080008: ("CS", kind),
        0x00280002: ("US", 3 if colour else 1),
        0x00280004: ("CS", photometric),
        **({0x00280006: ("US", 0)} if colour else {}),
        0x00280010: ("US", rows),
        0x00280011: ("US", columns),
        0x00280100: ("US", bits),
        0x00280101: ("US", stored),
        0x00280102: ("US", stored - 1),
        0x00280103: ("US", 0),
        0x00280301: ("CS", "NO"),
        0x00282110: ("CS", "00"),
    }


def window(center: float, width: float, intercept: float = 0, unit: str = "US") -> Elements:
    return {
        0x00281050: ("DS", center),
        0x00281051: ("DS", width),
        0x00281052: ("DS", intercept),
        0x00281053: ("DS", 1),
        0x00281054: ("LO", unit),
    }


def plane(labels: Labels, rows: int, columns: int, spacing: float, z: float, thickness: float) -> Elements:
    """Image plane and frame of reference modules for an axial slice (PS3.3 C.7.6.2, C.7.4.1)."""
    return {
        0x00180050: ("DS", f"{thickness:.4g}"),
        0x00185100: ("CS", "HFS"),
        0x00200032: ("DS", f"{-spacing * (columns - 1) / 2:.4f}\\{-spacing * (rows - 1) / 2:.4f}\\{z:.4f}"),
        0x00200037: ("DS", "1\\0\\0\\0\\1\\0"),
        0x00200052: ("UI", stable_uid("frame of reference", labels.study)),
        0x00201040: ("LO", ""),
        0x00280030: ("DS", f"{spacing:.6g}\\{spacing:.6g}"),
    }


def synthetic_ct(
    slices: int = 120,
    rows: int = 512,
    columns: int = 512,
    seed: int = 0,
    labels: Labels | None = None,
    nodule_mm: float = 14.0,
    series: int = 1,
) -> Iterator[bytes]:
    """A chest CT, one axial slice a file of about ``2 * rows * columns`` bytes; stored value = HU + 1024."""
    labels = labels or Labels(f"synthetic CT {seed} {slices} {rows} {columns}")
    height = 2.5 * max(slices - 1, 1)
    for number, hounsfield in enumerate(thorax(slices, rows, columns, seed, nodule_mm, 380.0, height), start=1):
        elements = {
            **header(labels, CT_IMAGE, "CT", series, number, SERIES),
            **image(rows, columns, 16, 12, "DERIVED\\SECONDARY\\AXIAL"),
            **window(-500, 1500, -1024, "HU"),
            **plane(labels, rows, columns, 380.0 / columns, height / 2 - 2.5 * (number - 1), 2.5),
            0x00180060: ("DS", "120"),
            0x00200012: ("IS", 1),
            0x7FE00010: ("OW", (hounsfield + np.int16(1024)).astype("<u2").tobytes()),
        }
        yield part10(CT_IMAGE, labels.instance_uid(series, number), data_set(elements))


def synthetic_mr(
    slices: int = 60,
    rows: int = 256,
    columns: int = 256,
    seed: int = 0,
    labels: Labels | None = None,
    series: int = 1,
) -> Iterator[bytes]:
    """A head MR, one axial slice a file of about ``2 * rows * columns`` bytes."""
    labels = labels or Labels(f"synthetic MR {seed} {slices} {rows} {columns}")
    for number, signal in enumerate(head(slices, rows, columns, seed), start=1):
        elements = {
            **header(labels, MR_IMAGE, "MR", series, number, SERIES),
            **image(rows, columns, 16, 12, "DERIVED\\SECONDARY\\OTHER"),
            **window(450, 900),
            **plane(labels, rows, columns, 240.0 / columns, 3.0 * (number - 1 - slices / 2), 3.0),
            0x00180020: ("CS", "SE"),
            0x00180021: ("CS", "NONE"),
            0x00180022: ("CS", ""),
            0x00180023: ("CS", "2D"),
            0x00180080: ("DS", "500"),
            0x00180081: ("DS", "12"),
            0x00180091: ("IS", 1),
            0x7FE00010: ("OW", signal.astype("<u2").tobytes()),
        }
        yield part10(MR_IMAGE, labels.instance_uid(series, number), data_set(elements))


def synthetic_mg(rows: int = 4096, columns: int = 3072, seed: int = 0, labels: Labels | None = None) -> bytes:
    """One mammogram for presentation; 24 MB by default. Even seeds are left breasts."""
    left = seed % 2 == 0
    labels = labels or Labels(f"synthetic MG {seed} {rows} {columns}", sex="F")
    number = seed + 1
    elements = {
        **header(labels, MG_IMAGE, "MG", 1, number, SERIES),
        **image(rows, columns, 16, 12, "DERIVED\\PRIMARY"),
        **window(2048, 4096),
        0x00080068: ("CS", "FOR PRESENTATION"),
        0x00181164: ("DS", "0.05\\0.05"),
        0x00181508: ("CS", "MAMMOGRAPHIC"),
        0x00185101: ("CS", "CC"),
        0x00200020: ("CS", "A\\R" if left else "P\\L"),
        0x00200062: ("CS", "L" if left else "R"),
        0x00281040: ("CS", "LOG"),
        0x00281041: ("SS", 1),
        0x20500020: ("CS", "IDENTITY"),
        0x7FE00010: ("OW", breast(rows, columns, seed, left).astype("<u2").tobytes()),
    }
    return part10(MG_IMAGE, labels.instance_uid(1, number), data_set(elements))


def synthetic_us(
    frames: int = 60, rows: int = 480, columns: int = 640, seed: int = 0, labels: Labels | None = None
) -> bytes:
    """One ultrasound loop, RGB, 30 images a second; 55 MB by default."""
    labels = labels or Labels(f"synthetic US {seed} {frames} {rows} {columns}")
    pixels = b"".join(frame.tobytes() for frame in fan(frames, rows, columns, seed))
    elements = {
        **header(labels, US_MULTIFRAME, "US", 1, 1, SERIES),
        **image(rows, columns, 8, 8, "DERIVED\\SECONDARY", "RGB"),
        0x00181063: ("DS", "33.3"),
        0x00280008: ("IS", frames),
        0x00280009: ("AT", b"\x18\x00\x63\x10"),  # Frame Time is what counts the frames
        0x7FE00010: ("OB", pixels),
    }
    return part10(US_MULTIFRAME, labels.instance_uid(1, 1), data_set(elements))


def synthetic_enhanced_ct(
    frames: int = 200, rows: int = 512, columns: int = 512, seed: int = 0, labels: Labels | None = None
) -> bytes:
    """One Enhanced CT object of many frames, with the functional groups a viewer needs (PS3.3 A.38)."""
    labels = labels or Labels(f"synthetic enhanced CT {seed} {frames} {rows} {columns}")
    spacing, height = 380.0 / columns, 2.5 * max(frames - 1, 1)
    stacked = b"".join(
        (slice_ + np.int16(1024)).astype("<u2").tobytes()
        for slice_ in thorax(frames, rows, columns, seed, 14.0, 380.0, height)
    )
    corner = f"{-spacing * (columns - 1) / 2:.4f}\\{-spacing * (rows - 1) / 2:.4f}"
    shared: Elements = {
        0x00209116: ("SQ", [{0x00200037: ("DS", "1\\0\\0\\0\\1\\0")}]),
        0x00289110: ("SQ", [{0x00180050: ("DS", "2.5"), 0x00280030: ("DS", f"{spacing:.6g}\\{spacing:.6g}")}]),
        0x00289132: ("SQ", [{0x00281050: ("DS", "-500"), 0x00281051: ("DS", "1500")}]),
        0x00289145: ("SQ", [{0x00281052: ("DS", "-1024"), 0x00281053: ("DS", "1"), 0x00281054: ("LO", "HU")}]),
        0x00189329: ("SQ", [{0x00089007: ("CS", "DERIVED\\PRIMARY\\VOLUME\\NONE")}]),
    }
    each: list[Elements] = [
        {
            0x00209111: (
                "SQ",
                [{0x00209056: ("SH", "1"), 0x00209057: ("UL", n + 1), 0x00209157: ("UL", [1, n + 1])}],
            ),
            0x00209113: ("SQ", [{0x00200032: ("DS", f"{corner}\\{height / 2 - 2.5 * n:.4f}")}]),
        }
        for n in range(frames)
    ]
    dimension = stable_uid("dimension", labels.study)
    indices: list[Elements] = [
        {
            0x00209164: ("UI", dimension),
            0x00209165: ("AT", b"\x20\x00\x56\x90"),
            0x00209167: ("AT", b"\x20\x00\x11\x91"),
        },
        {
            0x00209164: ("UI", dimension),
            0x00209165: ("AT", b"\x20\x00\x57\x90"),
            0x00209167: ("AT", b"\x20\x00\x11\x91"),
        },
    ]
    elements = {
        **header(labels, ENHANCED_CT_IMAGE, "CT", 1, 1, SERIES),
        **image(rows, columns, 16, 12, "DERIVED\\PRIMARY\\VOLUME\\NONE"),
        0x00200052: ("UI", stable_uid("frame of reference", labels.study)),
        0x00209221: ("SQ", [{0x00209164: ("UI", dimension)}]),
        0x00209222: ("SQ", indices),
        0x00280008: ("IS", frames),
        0x52009229: ("SQ", [shared]),
        0x52009230: ("SQ", each),
        0x7FE00010: ("OW", stacked),
    }
    return part10(ENHANCED_CT_IMAGE, labels.instance_uid(1, 1), data_set(elements))


def tiny_studies(count: int, seed: int = 0) -> Iterator[bytes]:
    """``count`` studies of one 16 x 16 image each, of as many patients, on the days of ten years."""
    pixels = bytes(range(256))
    for number in range(count):
        day = 1 + number % 28
        labels = Labels(
            f"tiny {seed} {number}",
            patient_id=f"TINY{seed}-{number:07d}",
            patient_name=f"TINY{number % 997:03d}^SYNTHETIC{number % 89:02d}",
            birth_date=f"{1930 + number % 90}0{1 + number % 9}{day:02d}",
            sex="FMO"[number % 3],
            study_date=f"{2016 + number % 10}{1 + number % 12:02d}{day:02d}",
            accession_number=f"T{seed}{number:07d}",
        )
        elements = {
            **header(labels, SECONDARY_CAPTURE, "OT", 1, 1, SERIES),
            **image(16, 16, 8, 8),
            0x00080064: ("CS", "SYN"),
            0x7FE00010: ("OB", pixels),
        }
        yield part10(SECONDARY_CAPTURE, labels.instance_uid(1, 1), data_set(elements))


def synthetic_pdf_report(labels: Labels, lines: list[str], series: int = 9) -> bytes:
    """An Encapsulated PDF of one page of text (PS3.3 A.45.1)."""
    elements = {
        **header(labels, ENCAPSULATED_PDF, "DOC", series, 1, SERIES),
        0x0008002A: ("DT", labels.study_date + labels.study_time),
        0x00080064: ("CS", "WSD"),
        0x00280301: ("CS", "YES"),
        0x0040A043: ("SQ", []),
        0x00420010: ("ST", "Compte rendu (SYNTHETIC)"),
        0x00420011: ("OB", pdf_page(lines)),
        0x00420012: ("LO", "application/pdf"),
    }
    return part10(ENCAPSULATED_PDF, labels.instance_uid(series, 1), data_set(elements))


def pdf_page(lines: list[str]) -> bytes:
    """A4, one column of Helvetica; Latin-1 text only."""
    escaped = [line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)") for line in lines]
    text = "BT /F1 12 Tf 18 TL 60 780 Td " + " ".join(f"({line}) '" for line in escaped) + " ET"
    stream = text.encode("latin-1", "replace")
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    made, offsets = bytearray(b"%PDF-1.4\n"), []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(made))
        made += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    start = len(made)
    made += b"xref\n0 6\n0000000000 65535 f \n" + table
    made += b"trailer << /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % start
    return bytes(made)
