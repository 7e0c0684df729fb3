"""Unique identifiers: their form, the transfer syntaxes, the storage SOP classes.

Sources: PS3.5 chapter 9 (form), PS3.5 annex A and PS3.6 table A-1 (transfer syntaxes, classes).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from negatoscope.dicom.dictionary import UIDS

_FORM = re.compile(r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))*", re.ASCII)
LONGEST_UID = 64  # characters


def is_valid_uid(text: str) -> bool:
    """Whether ``text`` is 1 to 64 digits and dots, no component empty or led by a zero (PS3.5 9.1)."""
    return len(text) <= LONGEST_UID and _FORM.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class TransferSyntax:
    """How a data set is encoded."""

    uid: str
    name: str
    explicit: bool = True  # value representations are written out
    little_endian: bool = True
    deflated: bool = False  # the whole data set is an RFC 1951 stream
    encapsulated: bool = False  # Pixel Data is a sequence of fragments
    lossy: bool = False  # pixels may have been changed by it
    video: bool = False


IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG_ENDIAN = "1.2.840.10008.1.2.2"

_BASE = "1.2.840.10008.1.2"
# Last part of the UID, name. Encapsulated, lossless unless listed as lossy.
_LOSSLESS = {
    ".1.98": "Encapsulated Uncompressed Explicit VR Little Endian",
    ".4.57": "JPEG Lossless, Non-Hierarchical (Process 14)",
    ".4.58": "JPEG Lossless, Non-Hierarchical (Process 15)",
    ".4.65": "JPEG Lossless, Hierarchical (Process 28)",
    ".4.66": "JPEG Lossless, Hierarchical (Process 29)",
    ".4.70": "JPEG Lossless, Non-Hierarchical, First-Order Prediction (Process 14 [Selection Value 1])",
    ".4.80": "JPEG-LS Lossless Image Compression",
    ".4.90": "JPEG 2000 Image Compression (Lossless Only)",
    ".4.92": "JPEG 2000 Part 2 Multi-component Image Compression (Lossless Only)",
    ".4.110": "JPEG XL Lossless",
    ".4.201": "High-Throughput JPEG 2000 Image Compression (Lossless Only)",
    ".4.202": "High-Throughput JPEG 2000 with RPCL Options Image Compression (Lossless Only)",
    ".5": "RLE Lossless",
    ".8.1": "Deflated Image Frame Compression",
}
_LOSSY = {
    ".4.50": "JPEG Baseline (Process 1)",
    ".4.51": "JPEG Extended (Process 2 and 4)",
    ".4.52": "JPEG Extended (Process 3 and 5)",
    ".4.53": "JPEG Spectral Selection, Non-Hierarchical (Process 6 and 8)",
    ".4.54": "JPEG Spectral Selection, Non-Hierarchical (Process 7 and 9)",
    ".4.55": "JPEG Full Progression, Non-Hierarchical (Process 10 and 12)",
    ".4.56": "JPEG Full Progression, Non-Hierarchical (Process 11 and 13)",
    ".4.59": "JPEG Extended, Hierarchical (Process 16 and 18)",
    ".4.60": "JPEG Extended, Hierarchical (Process 17 and 19)",
    ".4.61": "JPEG Spectral Selection, Hierarchical (Process 20 and 22)",
    ".4.62": "JPEG Spectral Selection, Hierarchical (Process 21 and 23)",
    ".4.63": "JPEG Full Progression, Hierarchical (Process 24 and 26)",
    ".4.64": "JPEG Full Progression, Hierarchical (Process 25 and 27)",
    ".4.81": "JPEG-LS Lossy (Near-Lossless) Image Compression",
    ".4.91": "JPEG 2000 Image Compression",
    ".4.93": "JPEG 2000 Part 2 Multi-component Image Compression",
    ".4.111": "JPEG XL JPEG Recompression",  # without loss, of what a JPEG had lost
    ".4.112": "JPEG XL",
    ".4.203": "High-Throughput JPEG 2000 Image Compression",
}
_VIDEO = {
    ".4.100": "MPEG2 Main Profile / Main Level",
    ".4.101": "MPEG2 Main Profile / High Level",
    ".4.102": "MPEG-4 AVC/H.264 High Profile / Level 4.1",
    ".4.103": "MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1",
    ".4.104": "MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video",
    ".4.105": "MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video",
    ".4.106": "MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2",
}
_HEVC = {
    ".4.107": "HEVC/H.265 Main Profile / Level 5.1",
    ".4.108": "HEVC/H.265 Main 10 Profile / Level 5.1",
}
_REFERENCED = {  # pixels lie elsewhere, or are streamed outside the data set
    ".4.94": "JPIP Referenced",
    ".4.204": "JPIP HTJ2K Referenced",
    ".6.1": "RFC 2557 MIME encapsulation",
    ".6.2": "XML Encoding",
    ".7.1": "SMPTE ST 2110-20 Uncompressed Progressive Active Video",
    ".7.2": "SMPTE ST 2110-20 Uncompressed Interlaced Active Video",
    ".7.3": "SMPTE ST 2110-30 PCM Digital Audio",
}


def _table() -> dict[str, TransferSyntax]:
    syntaxes = [
        TransferSyntax(IMPLICIT_LITTLE_ENDIAN, "Implicit VR Little Endian", explicit=False),
        TransferSyntax(EXPLICIT_LITTLE_ENDIAN, "Explicit VR Little Endian"),
        TransferSyntax(DEFLATED_LITTLE_ENDIAN, "Deflated Explicit VR Little Endian", deflated=True),
        TransferSyntax(EXPLICIT_BIG_ENDIAN, "Explicit VR Big Endian", little_endian=False),
        TransferSyntax(_BASE + ".4.95", "JPIP Referenced Deflate", deflated=True),
        TransferSyntax(_BASE + ".4.205", "JPIP HTJ2K Referenced Deflate", deflated=True),
        TransferSyntax("1.2.840.10008.1.20", "Papyrus 3 Implicit VR Little Endian", explicit=False),
    ]
    syntaxes += [TransferSyntax(_BASE + end, name, encapsulated=True) for end, name in _LOSSLESS.items()]
    syntaxes += [TransferSyntax(_BASE + end, name, encapsulated=True, lossy=True) for end, name in _LOSSY.items()]
    fragmentable = {end + ".1": "Fragmentable " + name for end, name in _VIDEO.items()}
    syntaxes += [
        TransferSyntax(_BASE + end, name, encapsulated=True, lossy=True, video=True)
        for end, name in (_VIDEO | fragmentable | _HEVC).items()
    ]
    syntaxes += [TransferSyntax(_BASE + end, name) for end, name in _REFERENCED.items()]
    return {syntax.uid: syntax for syntax in syntaxes}


TRANSFER_SYNTAXES: dict[str, TransferSyntax] = _table()


def transfer_syntax(uid: str) -> TransferSyntax:
    """The transfer syntax ``uid``.

    One that we do not know, private ones included, counts as explicit little endian and
    encapsulated: PS3.5 10.1 asks that of every encapsulating syntax.
    """
    known = TRANSFER_SYNTAXES.get(uid)
    return known or TransferSyntax(uid, "Unknown", encapsulated=True, lossy=True)


# SOP classes with "Storage" in their name that are no objects sent by C-STORE.
_NOT_KEPT = {
    "1.2.840.10008.1.3.10",  # Media Storage Directory: a DICOMDIR
    "1.2.840.10008.1.20.1",  # Storage Commitment Push Model
    "1.2.840.10008.1.20.2",  # Storage Commitment Pull Model
}
# Retired storage classes of which the dictionary has lost the name.
_NAMELESS = {"1.2.840.10008.5.1.4.1.1.12.77": "Retired Storage", "1.2.840.10008.5.1.4.1.1.40": "Retired Storage"}

STORAGE_CLASSES: dict[str, str] = {
    uid: name.replace(" SOP Class", "") + (" (Retired)" if retired else "")
    for uid, (name, kind, _info, retired, _keyword) in UIDS.items()
    if kind == "SOP Class" and "Storage" in name and uid not in _NOT_KEPT
} | _NAMELESS


def is_storage_class(uid: str) -> bool:
    """Whether objects of SOP class ``uid`` are kept: any well-formed UID not known as something else."""
    return uid in STORAGE_CLASSES or (uid not in UIDS and is_valid_uid(uid))


def uid_name(uid: str) -> str:
    """The name of a well-known UID as PS3.6 gives it, else ``uid`` itself."""
    if uid in STORAGE_CLASSES:
        return STORAGE_CLASSES[uid]
    if uid in TRANSFER_SYNTAXES:
        return TRANSFER_SYNTAXES[uid].name
    entry = UIDS.get(uid)
    return entry[0] if entry else uid
