"""The description of each public operation: one row each, keyed by method and nameless path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.web.media_types import DICOM, DICOM_JSON, DICOM_XML, JSON, MULTIPART, OCTET_STREAM


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter."""

    name: str
    text: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True, slots=True)
class Operation:
    summary: str
    source: str = ""  # the paragraph of the standard
    tag: str = ""
    query: tuple[Parameter, ...] = ()
    takes: tuple[str, ...] = ()  # media types of the request body
    answers: tuple[str, ...] = ()  # media types of the success
    success: int = 200
    statuses: Mapping[int, str] = field(default_factory=dict)  # of failures
    public: bool = False  # needs no login
    body: str = ""  # schema of a JSON request body
    answer: str = ""  # schema of a JSON success


PARTS_DICOM = f'{MULTIPART}; type="{DICOM}"'
PARTS_BYTES = f'{MULTIPART}; type="{OCTET_STREAM}"'
PARTS_XML = f'{MULTIPART}; type="{DICOM_XML}"'
PARTS_JPEG = f'{MULTIPART}; type="image/jpeg"'

SCHEMAS: dict[str, Any] = {
    "Problem": {
        "type": "object",
        "description": "RFC 9457",
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
        },
    },
    "DicomJson": {
        "type": "array",
        "description": "DICOM JSON model, PS3.18 annex F",
        "items": {"type": "object", "additionalProperties": {"type": "object"}},
    },
}

_READ = {
    400: "A parameter or header is not well formed",
    401: "A token or session is needed",
    404: "Not there, or not yours: the answer is the same",
    406: "None of the media types asked for can be had",
}
_SEARCH_STATUSES = {status: _READ[status] for status in (400, 401, 406)} | {
    403: "The role does not search",
    503: "The index or the audit trail cannot be reached",
}
_ACCEPT = Parameter("accept", "Stands in for the Accept header")
_CHARSET = Parameter("charset", "Must allow utf-8")
_SEARCH = (
    Parameter(
        "{attribute}",
        "PatientName, 00100010 or, through sequences, RequestAttributesSequence.RequestedProcedureID."
        " Wild cards * and ?, ranges a-b of dates and times, lists of UIDs",
    ),
    Parameter(
        "includefield",
        "Keyword, tag or all; repeated or separated by commas",
        {"type": "array", "items": {"type": "string"}},
    ),
    Parameter("fuzzymatching", "true: each word begins a word of the person's name", {"type": "boolean"}),
    Parameter(
        "limit",
        "Answers at most",
        {"type": "integer", "minimum": 1, "maximum": DEFAULT_LIMITS.query_limit, "default": DEFAULT_LIMITS.query_limit},
    ),
    Parameter("offset", "Answers to skip", {"type": "integer", "minimum": 0, "default": 0}),
    Parameter("emptyvaluematching", "true: an empty value matches absent ones", {"type": "boolean"}),
    Parameter("multiplevaluematching", "true: comma or backslash separate alternatives", {"type": "boolean"}),
    _ACCEPT,
    _CHARSET,
)
_RENDERING = (
    Parameter("window", "center,width,function (linear, linear-exact or sigmoid)"),
    Parameter("viewport", "vw,vh[,sx,sy,sw,sh]"),
    Parameter("quality", "JPEG quality", {"type": "integer", "minimum": 1, "maximum": 100}),
    Parameter("annotation", "patient and technique"),
    Parameter("iccprofile", "no, yes, srgb, adobergb or rommrgb"),
    _ACCEPT,
)
_IMAGES = ("image/jpeg", "image/png")


def _search(what: str) -> Operation:
    return Operation(
        f"Search for {what}",
        "QIDO-RS, PS3.18 10.6",
        "Search",
        _SEARCH,
        answers=(DICOM_JSON, JSON, PARTS_XML),
        statuses=_SEARCH_STATUSES,
    )


def _retrieve(what: str, *answers: str) -> Operation:
    return Operation(
        f"Retrieve {what}", "WADO-RS, PS3.18 10.4", "Retrieve", (_ACCEPT,), answers=answers, statuses=_READ
    )


def _rendered(what: str) -> Operation:
    return Operation(
        f"Retrieve {what}", "WADO-RS, PS3.18 10.4", "Retrieve", _RENDERING, answers=_IMAGES, statuses=_READ
    )


def _store(what: str) -> Operation:
    return Operation(
        f"Store instances{what}",
        "STOW-RS, PS3.18 10.5",
        "Store",
        takes=(PARTS_DICOM, f'{MULTIPART}; type="{DICOM_JSON}"', f'{MULTIPART}; type="{DICOM_XML}"', DICOM),
        answers=(DICOM_JSON, DICOM_XML),
        statuses={
            202: "Some instances were not stored; the body says which",
            400: "No instance could be read from the body",
            401: _READ[401],
            403: "The role does not store",
            409: "None of the instances was stored; the body says why",
            413: "The body or its number of parts is over its limit",
            415: "Not a media type of this route",
            507: "No room left",
        },
    )


STUDY = "/dicom-web/studies/{}"
SERIES = STUDY + "/series/{}"
INSTANCE = SERIES + "/instances/{}"
FRAMES = INSTANCE + "/frames/{}"
WORKITEMS = "/dicom-web/workitems"
WORKITEM = WORKITEMS + "/{}"


def _workitem(summary: str, paragraph: str, success: int = 200, query: tuple[Parameter, ...] = ()) -> Operation:
    return Operation(
        summary,
        f"UPS-RS, PS3.18 {paragraph}",
        "Workitems",
        query,
        takes=(DICOM_JSON, JSON, DICOM_XML),
        success=success,
        statuses={
            400: "The body is no such data set, or the Transaction UID is missing or incorrect",
            401: _READ[401],
            403: "The role has no worklist",
            404: _READ[404],
            409: "Not in the state that the workitem is in; Warning says why",
            415: "Not a media type of this route",
        },
    )


OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "/dicom-web/studies"): _search("studies"),
    ("GET", "/dicom-web/series"): _search("series"),
    ("GET", "/dicom-web/instances"): _search("instances"),
    ("GET", STUDY + "/series"): _search("series of a study"),
    ("GET", STUDY + "/instances"): _search("instances of a study"),
    ("GET", SERIES + "/instances"): _search("instances of a series"),
    ("GET", "/dicom-web/series/{}/instances"): _search("instances of a series whose study is not named"),
    ("POST", "/dicom-web/studies"): _store(""),
    ("POST", STUDY): _store(" of one study"),
    ("GET", WORKITEMS): replace(_search("workitems"), source="UPS-RS, PS3.18 11.9"),
    ("GET", WORKITEM): replace(
        _retrieve("a workitem", DICOM_JSON, JSON, DICOM_XML, PARTS_XML), source="UPS-RS, PS3.18 11.5"
    ),
    ("POST", WORKITEMS): _workitem(
        "Create a workitem", "11.4", 201, (Parameter("workitem", "Its UID; also written ?UID. Without: one of ours"),)
    ),
    ("POST", WORKITEM): _workitem(
        "Update a workitem",
        "11.6",
        query=(Parameter("transaction", "Transaction UID of the claim; also written ?UID, or in the body"),),
    ),
    ("PUT", WORKITEM + "/state"): _workitem("Claim, complete or cancel a workitem", "11.7"),
    ("POST", WORKITEM + "/cancelrequest"): _workitem("Ask for a workitem to be canceled", "11.8", 202),
    ("GET", "/wado"): Operation(
        "Retrieve one object",
        "WADO-URI, PS3.18 9",
        "Retrieve",
        (
            Parameter("requestType", "WADO"),
            Parameter("studyUID", "Study Instance UID"),
            Parameter("seriesUID", "Series Instance UID"),
            Parameter("objectUID", "SOP Instance UID"),
            Parameter("contentType", "Media type asked for"),
            Parameter("transferSyntax", "Transfer syntax UID, application/dicom only"),
            Parameter("frameNumber", "Frame, from 1", {"type": "integer", "minimum": 1}),
            Parameter("imageQuality", "JPEG quality", {"type": "integer", "minimum": 1, "maximum": 100}),
            Parameter("windowCenter", "With windowWidth", {"type": "number"}),
            Parameter("windowWidth", "With windowCenter", {"type": "number"}),
            Parameter("rows", "Rows of the viewport", {"type": "integer"}),
            Parameter("columns", "Columns of the viewport", {"type": "integer"}),
            Parameter("region", "xmin,ymin,xmax,ymax, from 0 to 1"),
        ),
        answers=(DICOM, *_IMAGES),
        statuses=_READ,
    ),
    ("GET", "/openapi.json"): Operation("This document", "OpenAPI 3.1", "Server", answers=(JSON,), public=True),
    ("GET", "/health/live"): Operation("The process runs", tag="Server", public=True),
    ("GET", "/health/ready"): Operation(
        "The server takes requests", tag="Server", statuses={503: "Not now"}, public=True
    ),
    ("GET", "/metrics"): Operation(
        "Counters and gauges, OpenMetrics text", tag="Server", answers=("text/plain",), public=True
    ),
}
for _path, _what in ((STUDY, "a study"), (SERIES, "a series"), (INSTANCE, "an instance")):
    OPERATIONS[("GET", _path)] = _retrieve(_what, PARTS_DICOM, "application/zip", *((DICOM,) * (_path == INSTANCE)))
    OPERATIONS[("GET", _path + "/metadata")] = _retrieve(f"the metadata of {_what}", DICOM_JSON, JSON, PARTS_XML)
    OPERATIONS[("GET", _path + "/rendered")] = _rendered(f"{_what} as pictures")
    OPERATIONS[("GET", _path + "/thumbnail")] = _rendered(f"a small picture of {_what}")
    OPERATIONS[("GET", _path + "/bulkdata")] = _retrieve(f"all bulk data of {_what}", PARTS_BYTES)
    OPERATIONS[("GET", _path + "/pixeldata")] = _retrieve(f"all pixel data of {_what}", PARTS_BYTES)
OPERATIONS |= {
    ("GET", INSTANCE + "/bulkdata/{}"): _retrieve("one bulk data value", PARTS_BYTES, OCTET_STREAM),
    ("GET", FRAMES): _retrieve("frames", PARTS_BYTES, PARTS_JPEG, OCTET_STREAM),
    ("GET", FRAMES + "/rendered"): _rendered("frames as pictures"),
    ("GET", FRAMES + "/thumbnail"): _rendered("a small picture of frames"),
}
