"""Which attributes belong to which level of the hierarchy, and are kept in the index or answered to queries.

Sources: PS3.18 tables 10.6.3-3, 10.6.3-4, 10.6.3-5 (what QIDO-RS returns) and PS3.4 C.6.2.1 (C-FIND),
plus what viewers and worklists commonly ask for. Computed ones (counts, Modalities in Study,
Retrieve URL, Instance Availability) are not listed: whoever answers adds them.
"""

from __future__ import annotations

STUDY_LEVEL: tuple[int, ...] = (
    0x00080005,  # Specific Character Set, as ISO_IR 192
    0x00080020,  # Study Date
    0x00080030,  # Study Time
    0x00080050,  # Accession Number
    0x00080051,  # Issuer of Accession Number Sequence
    0x00080090,  # Referring Physician's Name
    0x00080201,  # Timezone Offset From UTC
    0x00081030,  # Study Description
    0x00081032,  # Procedure Code Sequence
    0x00081048,  # Physician(s) of Record
    0x00081060,  # Name of Physician(s) Reading Study
    0x00081080,  # Admitting Diagnoses Description
    0x00100010,  # Patient's Name
    0x00100020,  # Patient ID
    0x00100021,  # Issuer of Patient ID
    0x00100024,  # Issuer of Patient ID Qualifiers Sequence
    0x00100030,  # Patient's Birth Date
    0x00100032,  # Patient's Birth Time
    0x00100040,  # Patient's Sex
    0x00101000,  # Other Patient IDs
    0x00101001,  # Other Patient Names
    0x00101002,  # Other Patient IDs Sequence
    0x00101010,  # Patient's Age
    0x00101020,  # Patient's Size
    0x00101030,  # Patient's Weight
    0x00102160,  # Ethnic Group
    0x00102180,  # Occupation
    0x001021B0,  # Additional Patient History
    0x00104000,  # Patient Comments
    0x0020000D,  # Study Instance UID
    0x00200010,  # Study ID
    0x00321032,  # Requesting Physician
    0x00321033,  # Requesting Service
    0x00380010,  # Admission ID
)

SERIES_LEVEL: tuple[int, ...] = (
    0x00080021,  # Series Date
    0x00080031,  # Series Time
    0x00080060,  # Modality
    0x00080070,  # Manufacturer
    0x00080080,  # Institution Name
    0x00081010,  # Station Name
    0x0008103E,  # Series Description
    0x00081040,  # Institutional Department Name
    0x00081050,  # Performing Physician's Name
    0x00081070,  # Operators' Name
    0x00081090,  # Manufacturer's Model Name
    0x00180015,  # Body Part Examined
    0x00181000,  # Device Serial Number
    0x00181030,  # Protocol Name
    0x00185100,  # Patient Position
    0x0020000E,  # Series Instance UID
    0x00200011,  # Series Number
    0x00200052,  # Frame of Reference UID
    0x00200060,  # Laterality
    0x00400244,  # Performed Procedure Step Start Date
    0x00400245,  # Performed Procedure Step Start Time
    0x00400253,  # Performed Procedure Step ID
    0x00400254,  # Performed Procedure Step Description
    0x00400275,  # Request Attributes Sequence
)

INSTANCE_LEVEL: tuple[int, ...] = (
    0x00080005,  # Specific Character Set
    0x00080008,  # Image Type
    0x00080016,  # SOP Class UID
    0x00080018,  # SOP Instance UID
    0x00080022,  # Acquisition Date
    0x00080023,  # Content Date
    0x0008002A,  # Acquisition DateTime
    0x00080032,  # Acquisition Time
    0x00080033,  # Content Time
    0x00180050,  # Slice Thickness
    0x00200012,  # Acquisition Number
    0x00200013,  # Instance Number
    0x00200032,  # Image Position (Patient)
    0x00200037,  # Image Orientation (Patient)
    0x00204000,  # Image Comments
    0x00280002,  # Samples per Pixel
    0x00280004,  # Photometric Interpretation
    0x00280008,  # Number of Frames
    0x00280010,  # Rows
    0x00280011,  # Columns
    0x00280030,  # Pixel Spacing
    0x00280100,  # Bits Allocated
    0x00280101,  # Bits Stored
    0x00280103,  # Pixel Representation
    0x0040A043,  # Concept Name Code Sequence
    0x0040A491,  # Completion Flag
    0x0040A493,  # Verification Flag
    0x0040A496,  # Preliminary Flag
    0x00420010,  # Document Title
    0x00420012,  # MIME Type of Encapsulated Document
    0x00700080,  # Content Label
    0x00700081,  # Content Description
)
