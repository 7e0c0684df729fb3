"""Write into the documentation the tables that the code runs on, so that they cannot disagree.

A page holds ``<!-- from code: NAME -->`` ... ``<!-- end -->``; what stands between is replaced by the block
of that name, everything else is written by hand. ``--check`` changes nothing and fails on a difference.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import cast

from negatoscope import cli, conformance, metrics
from negatoscope.archive import commit
from negatoscope.archive.query_conditions import Level, known_at
from negatoscope.db.migrate import migrations
from negatoscope.dicom import charset, levels
from negatoscope.dicom.limits import DEFAULT_LIMITS, GIB, KIB, MIB, Limits
from negatoscope.dicom.pixels.encode import _DEEPEST, CODEC_TARGETS, NATIVE_TARGETS
from negatoscope.dicom.pixels.render import RENDERED_MEDIA
from negatoscope.dicom.pixels.transcode import SOURCES, TRANSCODINGS
from negatoscope.dicom.tags import keyword_of, tag_text
from negatoscope.dicom.uid import STORAGE_CLASSES, TRANSFER_SYNTAXES, uid_name
from negatoscope.errors import (
    WIRE_FORMS,
    InvalidObject,
    NegatoscopeError,
    OutOfResources,
    TooLarge,
    Unavailable,
    UnsupportedSOPClass,
)
from negatoscope.servers import dicom_negotiation as negotiation
from negatoscope.servers.dicom_commitment import COMMITMENT, PUSH_MODEL
from negatoscope.servers.dicom_mpps import MPPS, PERFORMED_STEP, PERFORMED_STEP_RETRIEVE
from negatoscope.servers.dicom_query import SOP_CLASSES
from negatoscope.servers.dicom_query_retrieve import FIND, GET, MOVE
from negatoscope.servers.dicom_worklist import MODALITY_WORKLIST, WORKLIST
from negatoscope.settings import PREFIX, Settings
from negatoscope.sharing.roles import AE_RIGHTS, ROLES
from negatoscope.web import frames
from negatoscope.web.health import health_routes
from negatoscope.web.openapi import Described, describe, document_route
from negatoscope.web.openapi_table import OPERATIONS, STUDY
from negatoscope.web.qido import qido_routes
from negatoscope.web.services import Services
from negatoscope.web.stow import stow_routes
from negatoscope.web.stow_answer import SET_ASIDE
from negatoscope.web.wado import wado_routes
from negatoscope.web.wado_uri import wado_uri_routes
from negatoscope.wire.dul.items import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from negatoscope.wire.dul.pdu import APPLICATION_CONTEXT
from negatoscope.worklist import KEYS, STEP_KEYS

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "negatoscope"
BLOCK = re.compile(r"(<!-- from code: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
TABLES_THEMSELVES = ("metrics.py", "limits.py", "settings.py")
NOT_YET = "**Not in effect yet.** "

LIMITS = {
    "pdu_accepted": "longest PDU read; a longer one is aborted at its header",
    "pdu_offered": "Maximum Length Received that we announce",
    "associate_body": "A-ASSOCIATE-RQ",
    "presentation_contexts": "presentation contexts of one association",
    "artim_s": "ARTIM timer: until an association request is complete, and until a peer closes",
    "idle_s": "silence on an open association before it is aborted",
    "dimse_answer_s": "for a peer to take the bytes of an answer",
    "associations": "associations open at once",
    "associations_per_title": "of one calling AE title",
    "associations_per_address": "of one address",
    "unfinished_associations": "connections without association; over it the oldest is dropped",
    "command_set": "DIMSE command set",
    "data_set": "one data set, C-STORE or part of STOW-RS",
    "file_meta": "file meta information, and the extra in front of it",
    "sequence_depth": "levels of nested sequences",
    "elements": "elements of one data set outside pixel data, all levels",
    "value": "one value that is no bulk data",
    "inflate_ratio": "inflated size over deflated size",
    "inflated": "inflated data set",
    "frames": "frames of one object",
    "frame_pixels": "pixels of one frame",
    "http_header": "request line and headers",
    "json_body": "request body, other than STOW-RS",
    "stow_parts": "parts of one STOW-RS request",
    "query_limit": "answers to one QIDO-RS request; the rest by `offset`",
    "find_answers": "answers to one C-FIND",
    "identifier": "identifier of a C-FIND, C-GET or C-MOVE",
    "performed_step": "attributes of one N-CREATE or N-SET of a performed procedure step",
    "wild_cards": "`*` and `?` in one key",
    "commitment": "a request or a report of storage commitment",
    "zip_entries": "entries of one ZIP",
    "zip_depth": "a ZIP within a ZIP is refused whatever this says",
}
ENDS_A_STORE = (TooLarge, UnsupportedSOPClass, OutOfResources, Unavailable, InvalidObject)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table. Bars are escaped; the rest is the caller's Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += [
        "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows
    ]
    return "\n".join(lines) + "\n"


def code(text: object) -> str:
    return f"`{text}`" if str(text) else ""


def is_used(pattern: str) -> bool:
    """Whether some code or SQL besides the table itself mentions it: what nothing reads is documented as such."""
    return any(re.search(pattern, text) for text in _sources())


@cache
def _sources() -> list[str]:
    paths = (path for path in SOURCE.rglob("*") if path.suffix in (".py", ".sql"))
    return [path.read_text(encoding="utf-8") for path in paths if path.name not in TABLES_THEMSELVES]


# Reference ----------------------------------------------------------------------------------------


def leaves(parser: argparse.ArgumentParser, help_text: str = "") -> list[tuple[str, str, argparse.ArgumentParser]]:
    """(words, help, parser) of each command that can be run."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            return [leaf for name, sub in action.choices.items() for leaf in leaves(sub, helps.get(name, ""))]
    return [(parser.prog, help_text, parser)]


def option_form(action: argparse.Action) -> str:
    if not action.option_strings:
        return (action.metavar if isinstance(action.metavar, str) else action.dest).upper()
    value = ""
    if action.nargs != 0:
        name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        value = " {" + ",".join(map(str, action.choices)) + "}" if action.choices else f" {name}"
    return action.option_strings[-1] + value


def commands() -> str:
    text = []
    for prog, help_text, parser in leaves(cli._parser()):
        rows = []
        for action in parser._actions:
            if isinstance(action, argparse._HelpAction):
                continue
            needed = "yes" if action.required or not action.option_strings else ""
            default = "" if action.default in (None, False, argparse.SUPPRESS) else code(action.default)
            rows.append((code(option_form(action)), needed, default, action.help or ""))
        rows.sort(key=lambda row: row[0].startswith("`-"))
        text.append(f"### `{prog}`\n\n{help_text[:1].upper()}{help_text[1:]}.\n")
        text.append(table(("argument", "needed", "default", "meaning"), rows))
    return "\n".join(text)


def settings() -> str:
    rows = []
    for field in dataclasses.fields(Settings):
        name = field.name
        default = "" if field.default is dataclasses.MISSING else field.default
        used = name == "data" or is_used(rf"settings\.{name}\b")
        variable = "" if name == "data" else code(PREFIX + name.upper())
        shown = code(default) if default != "" else ("empty" if name != "data" else "`--data`")
        meaning = ("" if used else NOT_YET) + field.metadata["help"]
        rows.append((code(name), variable, shown, field.metadata["unit"], meaning))
    return table(("setting", "variable", "default", "unit", "meaning"), rows)


def amount(name: str, value: float) -> str:
    """A limit with its unit, in the largest one that divides it."""
    if name.endswith("_s"):
        return f"{value:g} s"
    if name in ("frame_pixels", "elements", "frames") or value < KIB or value % KIB:
        return f"{value:,}"
    unit, size = next((unit, size) for unit, size in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)) if value % size == 0)
    return f"{int(value) // size} {unit}"


def limits() -> str:
    rows = []
    for field in dataclasses.fields(Limits):
        used = is_used(rf"(?i:limits)\.{field.name}\b")
        meaning = ("" if used else NOT_YET) + LIMITS[field.name]
        rows.append((code(field.name), amount(field.name, getattr(DEFAULT_LIMITS, field.name)), meaning))
    return table(("limit", "value", "of what"), rows)


def first_line(kind: type) -> str:
    return (kind.__doc__ or "").strip().split("\n", 1)[0]


def errors() -> str:
    rows = []
    for kind in all_errors():
        form = next(WIRE_FORMS[parent] for parent in kind.__mro__ if parent in WIRE_FORMS)
        problem = code(f"urn:negatoscope:problem:{form.slug}")
        rows.append((code(kind.__name__), first_line(kind), code(f"0x{form.dimse:04X}"), form.http, problem))
    return table(("error", "meaning", "DIMSE status", "HTTP", "problem type"), rows)


def all_errors(kind: type[NegatoscopeError] = NegatoscopeError) -> list[type[NegatoscopeError]]:
    """Those of the one table's module: which others are loaded depends on what ran before."""
    children = [child for child in kind.__subclasses__() if child.__module__ == kind.__module__]
    return [kind, *(below for child in children for below in all_errors(child))]


def metric_table() -> str:
    rows = []
    for name, metric in metrics.METRICS.items():
        used = is_used(rf'"{name}"|\bAS {name}\b')
        rows.append((code(f"negatoscope_{name}"), metric.kind, ("" if used else NOT_YET) + metric.help))
    return table(("metric", "kind", "meaning"), rows)


def described() -> list[Described]:
    services = cast(Services, None)  # making routes asks it nothing
    routes = [
        *qido_routes(services), *wado_routes(services), *stow_routes(services), *wado_uri_routes(services),
    ]  # fmt: skip
    return describe([*routes, document_route(routes), *health_routes(services)])


def routes() -> str:
    rows = []
    for one in described():
        operation = one.operation
        answers = ", ".join(map(code, operation.answers))
        rows.append((one.method, code(one.path), operation.summary, operation.source, answers))
    return table(("method", "path", "what", "standard", "answers"), rows)


def search_parameters() -> str:
    query = OPERATIONS[("GET", "/dicom-web/studies")].query
    return table(("parameter", "meaning"), ((code(one.name), one.text) for one in query))


def roles() -> str:
    rows = [
        (code(role), ", ".join(sorted(powers.rights)), "yes" if powers.reads_images else "no")
        for role, powers in ROLES.items()
    ]
    return table(("role", "rights", "studies of the establishment are visible"), rows)


_CREATE = re.compile(
    r"(?P<above>(?:^--[^\n]*\n)*)^CREATE TABLE (?P<name>\w+) "
    r"\((?:(?P<line>[^\n]*)\);$|(?P<beside>[^\n]*)\n(?P<body>.*?)^\);)",
    re.MULTILINE | re.DOTALL,
)
_COLUMN = re.compile(r"^    ([a-z]\w*) ([a-z]+(?:\[\])?)[^\n]*?(?:-- *(.*))?$", re.MULTILINE)
_BARE_COLUMN = re.compile(r"(\w+) (text|int|bigint)\b")


def tables() -> str:
    """Tables of the migrations: columns with what their comments say."""
    text = []
    for _, _, statements in migrations():
        for found in _CREATE.finditer(statements):
            about = " ".join(line.lstrip("- ") for line in found["above"].splitlines())
            about = about or (found["beside"] or "").partition("--")[2].strip()
            columns = _COLUMN.findall(found["body"] or "")
            columns += [(*column, "") for column in _BARE_COLUMN.findall(found["line"] or "")]
            text.append(f"### `{found['name']}`\n" + (f"\n{about[:1].upper()}{about[1:]}\n" if about else ""))
            text.append(table(("column", "type", "meaning"), ((code(c), kind, note) for c, kind, note in columns)))
    return "\n".join(text)


# DICOM conformance --------------------------------------------------------------------------------


def storage_classes() -> str:
    return table(("SOP class", "UID"), ((name, code(uid)) for uid, name in sorted(STORAGE_CLASSES.items())))


def transfer_syntaxes() -> str:
    rows = []
    for uid, syntax in TRANSFER_SYNTAXES.items():
        kept = "video" if syntax.video else "lossy" if syntax.lossy else ""
        rows.append((syntax.name, code(uid), kept, "yes" if uid in SOURCES else ""))
    return table(("transfer syntax", "UID", "", "there is a decoder for its pixels"), rows)


def services() -> str:
    rows = []
    for service in negotiation.SERVICES:
        verification = service.covers(negotiation.VERIFICATION)
        right = "none: any known application entity" if service.right is None else code(service.right)
        name = "Verification" if verification else f"Storage: the {len(STORAGE_CLASSES)} classes below and private ones"
        rows.append((name, code(negotiation.VERIFICATION) if verification else "", "SCP", right))
    for service, verb in ((FIND, "FIND"), (MOVE, "MOVE"), (GET, "GET")):
        for uid, (_, model) in SOP_CLASSES.items():
            if service.covers(uid):
                rows.append((f"{model.name} Query/Retrieve, {verb}", code(uid), "SCP", code(cast(str, service.right))))
    worklist = code(cast(str, WORKLIST.right))
    rows.append(("Modality Worklist Information Model, FIND", code(MODALITY_WORKLIST), "SCP", worklist))
    rows.append(("Modality Performed Procedure Step", code(PERFORMED_STEP), "SCP", code(cast(str, MPPS.right))))
    rows.append(("Modality Performed Procedure Step Retrieve", code(PERFORMED_STEP_RETRIEVE), "SCP", worklist))
    rows.append(("Storage Commitment Push Model", code(PUSH_MODEL), "SCP and SCU", code(cast(str, COMMITMENT.right))))
    rows.append(("Storage of what C-MOVE, C-GET and deliveries send", "", "SCU", ""))
    return table(("service", "UID", "role", "right the peer needs"), rows)


def query_keys() -> str:
    """Keys that C-FIND answers, and the levels at which it does."""
    at = {level: known_at(level, detailed=True) for level in Level}
    rows = []
    for key in sorted(frozenset().union(*at.values()) - {"00080005"}):
        tag = int(key, 16)
        shown = ("yes" if key in known else "" for known in at.values())
        rows.append((tag_text(tag), keyword_of(tag), *shown))
    return table(("tag", "attribute", *(level.value for level in Level)), rows)


def worklist_keys() -> str:
    """Keys that the modality worklist matches and answers: those of the entry, then those of its scheduled step."""
    rows = []
    for where, keys in (("", KEYS), ("of the Scheduled Procedure Step Sequence", STEP_KEYS)):
        rows += [(tag_text(int(key, 16)), keyword_of(int(key, 16)), where) for key in sorted(keys)]
    return table(("tag", "attribute", ""), rows)


def association_policy() -> str:
    store = negotiation.STORAGE_INFORMATION
    rows = [
        ("Application context", code(APPLICATION_CONTEXT)),
        ("Implementation class UID", code(IMPLEMENTATION_CLASS_UID)),
        ("Implementation version name", code(IMPLEMENTATION_VERSION_NAME)),
        ("Maximum length received, offered", amount("", DEFAULT_LIMITS.pdu_offered)),
        ("Longest PDU read", amount("", DEFAULT_LIMITS.pdu_accepted)),
        ("Associations at once", DEFAULT_LIMITS.associations),
        ("... of one calling title", DEFAULT_LIMITS.associations_per_title),
        ("... of one address", DEFAULT_LIMITS.associations_per_address),
        ("Presentation contexts", DEFAULT_LIMITS.presentation_contexts),
        ("Asynchronous operations, performed", f"as proposed, {negotiation.LARGEST_WINDOW} at most"),
        ("Storage extended negotiation", f"level {store[0]}, signature level {store[2]}, coercion {store[4]}"),
        ("ARTIM timer", amount("artim_s", DEFAULT_LIMITS.artim_s)),
        ("Idle association", amount("idle_s", DEFAULT_LIMITS.idle_s)),
    ]
    return table(("parameter", "value"), rows)


def store_statuses() -> str:
    failures = sorted(
        (form.dimse, form.http, first_line(kind)) for kind, form in WIRE_FORMS.items() if _ends_a_store(kind)
    )
    rows: list[tuple[object, ...]] = [
        ("Success", "`0x0000`", 200, "Kept, or held already byte for byte, or in quarantine")
    ]
    rows += [("Failure", code(f"0x{status:04X}"), http, meaning) for status, http, meaning in failures]
    return table(("status", "DIMSE, and Failure Reason (0008,1197)", "HTTP when all failed so", "meaning"), rows)


def _ends_a_store(kind: type[NegatoscopeError]) -> bool:
    return kind is NegatoscopeError or issubclass(kind, ENDS_A_STORE)


def stow_statuses() -> str:
    rows: list[tuple[object, object]] = [(200, "All instances were stored")]
    rows += list(OPERATIONS[("POST", STUDY)].statuses.items())
    warning = f"Warning Reason (0008,1196) `0x{SET_ASIDE:04X}`: kept whole in quarantine, not in the study."
    return table(("status", "meaning"), rows) + f"\n{warning}\n"


def quarantine_reasons() -> str:
    meanings = {
        commit.OTHER_BYTES: "the same SOP Instance UID with other bytes (another transfer syntax is other bytes)",
        commit.OTHER_SERIES: "the same SOP Instance UID in another series or study",
        commit.OTHER_PATIENT: "the study is held under another Patient ID",
        commit.OTHER_STUDY: "the series is held under another study",
        commit.FIRST_DAMAGED: "the same bytes as an object whose kept copy is damaged: these may be the only good ones",
    }
    return table(("reason", "meaning"), ((code(reason), text) for reason, text in meanings.items()))


def qido_attributes() -> str:
    rows: list[tuple[str, ...]] = []
    for level in ("STUDY_LEVEL", "SERIES_LEVEL", "INSTANCE_LEVEL"):
        for tag in cast(tuple[int, ...], getattr(levels, level)):
            rows.append((level.removesuffix("_LEVEL").lower(), tag_text(tag), code(keyword_of(tag))))
    return table(("level", "tag", "keyword"), rows)


def frame_media() -> str:
    rows = [
        (code(media), ", ".join(f"{uid_name(uid)} (`{uid}`)" for uid in syntaxes))
        for media, syntaxes in frames.COMPRESSED.items()
    ]
    return table(("media type of frames", "transfer syntaxes, the default first"), rows)


def retrieve_media() -> str:
    rows = []
    for one in described():
        if one.operation.tag == "Retrieve":
            rows.append((code(one.path), ", ".join(map(code, one.operation.answers))))
    pictures = ", ".join(map(code, RENDERED_MEDIA))
    return table(("resource", "media types"), rows) + f"\nRendered pictures: {pictures}.\n"


def transcodings() -> str:
    targets = sorted(NATIVE_TARGETS | CODEC_TARGETS)
    assert all(TRANSCODINGS[uid] == frozenset(targets) - {uid} for uid in SOURCES), "say it source by source then"
    return table(
        ("to", "UID", "most bits allocated"), ((uid_name(uid), code(uid), _DEEPEST.get(uid, "any")) for uid in targets)
    )


def character_sets() -> str:
    rows = [(code(f"ISO_IR {no}"), code(f"ISO 2022 IR {no}"), codec) for no, codec in charset._SINGLE.items()]
    whole = [(code(term), "", codec) for term, codec in charset._WHOLE.items()]
    escapes = [
        (code("ESC " + " ".join(chr(byte) for byte in sequence)), f"G{element}", chosen.codec)
        for sequence, (element, chosen) in charset._ESCAPES.items()
    ]
    return (
        table(("defined term", "with code extensions", "decoded as"), rows + whole)
        + "\nDesignated by escape sequences (ISO 2022):\n\n"
        + table(("escape sequence", "code element", "decoded as"), escapes)
    )


BLOCKS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "settings": settings,
    "limits": limits,
    "errors": errors,
    "metrics": metric_table,
    "routes": routes,
    "search-parameters": search_parameters,
    "roles": roles,
    "application-entity-rights": lambda: ", ".join(code(right) for right in sorted(AE_RIGHTS)) + "\n",
    "tables": tables,
    "services": services,
    "tls": lambda: table(("", "DICOM over TLS"), conformance.tls_rows()),
    "ihe": lambda: table(("profile", "actor", "transaction", "state"), conformance.ihe_rows()),
    "query-keys": query_keys,
    "worklist-keys": worklist_keys,
    "association-policy": association_policy,
    "storage-classes": storage_classes,
    "transfer-syntaxes": transfer_syntaxes,
    "store-statuses": store_statuses,
    "stow-statuses": stow_statuses,
    "quarantine-reasons": quarantine_reasons,
    "qido-attributes": qido_attributes,
    "frame-media": frame_media,
    "retrieve-media": retrieve_media,
    "transcodings": transcodings,
    "character-sets": character_sets,
}


def pages() -> list[Path]:
    """Every page that may hold blocks."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def filled(text: str) -> str:
    """``text`` with its blocks made anew. Raises KeyError for a block that there is not."""
    return BLOCK.sub(lambda found: f"{found[1]}{BLOCKS[found[2]]()}{found[3]}", text)


def blocks_of(text: str) -> list[str]:
    return [found[2] for found in BLOCK.finditer(text)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the generated parts of the documentation.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail on a difference")
    check = parser.parse_args(arguments).check
    stale: list[str] = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if (new := filled(text)) != text:
            stale.append(str(page.relative_to(ROOT)))
            if not check:
                page.write_text(new, encoding="utf-8")
    for name in stale:
        print(("out of date: " if check else "written: ") + name)
    if check and stale:
        print("cure: .venv/bin/python tools/docs.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
