"""What the statements of conformance and integration say, computed from the tables that the server runs on.

A row of the IHE statement names what its transaction needs: SOP classes that we serve or use, routes, TLS. It is
implemented when all of that is there, whatever anybody wrote.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache

from negatoscope import servers
from negatoscope.servers import dicom_negotiation
from negatoscope.servers.dicom_negotiation import Service
from negatoscope.servers.dicom_tls import CIPHERS, LOOK_S, WARN_DAYS
from negatoscope.settings import Settings
from negatoscope.web.openapi_table import OPERATIONS

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
KEY_OBJECT = "1.2.840.10008.5.1.4.1.1.88.59"
WORKLIST_FIND = "1.2.840.10008.5.1.4.31"
PERFORMED_STEP = "1.2.840.10008.3.1.2.3.3"
COMMITMENT = "1.2.840.10008.1.20.1"
STUDY_FIND, STUDY_MOVE = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.2"
PATIENT_FIND, PATIENT_MOVE = "1.2.840.10008.5.1.4.1.2.1.1", "1.2.840.10008.5.1.4.1.2.1.2"
AVAILABILITY = "1.2.840.10008.5.1.4.33"
UPS_PUSH = "1.2.840.10008.5.1.4.34.6.1"
SEARCH = ("GET", "/dicom-web/studies")
RETRIEVE = ("GET", "/dicom-web/studies/{}")
STORE = ("POST", "/dicom-web/studies")
TLS_SETTING = "dicom_tls"

Need = str | tuple[str, str]  # a SOP class that we serve; a setting; a route


@dataclass(frozen=True, slots=True)
class Transaction:
    profile: str
    actor: str
    transaction: str
    needs: tuple[Need, ...]  # none: there is no code for it
    tested: str = ""  # with which peers
    left: str = ""  # what of it is not there all the same


IHE = (
    Transaction(
        "Scheduled Workflow (SWF.b)", "Image Manager / Image Archive", "RAD-8 Modality Images Stored", (CT_IMAGE,),
        "DCMTK, pynetdicom, dcmjs-dimse, Orthanc",
    ),
    Transaction("SWF.b", "Image Manager / Image Archive", "RAD-18 Creator Images Stored", (CT_IMAGE,), "as RAD-8"),
    Transaction(
        "SWF.b", "Image Manager / Image Archive", "RAD-10 Storage Commitment", (COMMITMENT,), "pynetdicom",
    ),
    Transaction(
        "SWF.b", "Image Manager / Image Archive", "RAD-14 Query Images", (STUDY_FIND, PATIENT_FIND),
        "DCMTK, pynetdicom, dcmjs-dimse, Orthanc",
    ),
    Transaction(
        "SWF.b", "Image Manager / Image Archive", "RAD-16 Retrieve Images", (STUDY_MOVE, PATIENT_MOVE),
        "DCMTK, pynetdicom, dcmjs-dimse, Orthanc",
    ),
    Transaction(
        "SWF.b", "Image Manager / Image Archive", "RAD-6, RAD-7 Procedure Step In Progress, Completed",
        (PERFORMED_STEP,), "pynetdicom, dcmjs-dimse", "not sent on to other actors",
    ),
    Transaction("SWF.b", "Image Manager / Image Archive", "RAD-49 Instance Availability Notification", (AVAILABILITY,)),
    Transaction("SWF.b", "Image Manager / Image Archive", "RAD-4, RAD-13 Procedure Scheduled, Updated (HL7)", ()),
    Transaction(
        "SWF.b", "Order Filler (DICOM side)", "RAD-5 Query Modality Worklist", (WORKLIST_FIND,),
        "DCMTK (compared with wlmscpfs), pynetdicom, dcmjs-dimse", "the HL7 side of the actor is not there",
    ),
    Transaction(
        "Access to Radiology Information (ARI)", "Image Manager / Image Archive", "RAD-14, RAD-16 Query, Retrieve",
        (STUDY_FIND, STUDY_MOVE), "as SWF.b",
    ),
    Transaction(
        "Key Image Note (KIN)", "Image Manager / Image Archive", "RAD-29 Key Image Note Stored",
        (KEY_OBJECT,), "as RAD-8", "none is created",
    ),
    Transaction(
        "Web-based Image Access (WIA)", "Imaging Document Responder", "RAD-107 WADO-RS Retrieve, RAD-129 QIDO-RS Query",
        (RETRIEVE, SEARCH), "dicomweb-client, Orthanc, curl", "the profile as a whole is not claimed",
    ),
    Transaction(
        "Web-based Image Capture (WIC)", "Image Manager", "RAD-108 Store Instances over the Web", (STORE,),
        "dicomweb-client, Orthanc, curl", "the profile as a whole is not claimed",
    ),
    Transaction("Post-Processing Workflow (PAWF, by UPS)", "Workitem Manager", "RAD-80 to RAD-88", (UPS_PUSH,)),
    Transaction("Imaging Object Change Management (IOCM)", "Image Manager / Image Archive", "RAD-66, RAD-74", ()),
    Transaction("Patient Information Reconciliation (PIR)", "Image Manager / Image Archive", "RAD-12", ()),
    Transaction(
        "Audit Trail and Node Authentication (ATNA)", "Secure Node", "ITI-19 Authenticate Node (DICOM)",
        (TLS_SETTING,), "DCMTK, pynetdicom, Orthanc", "HTTP and HL7 are secured by a proxy",
    ),
    Transaction("ATNA", "Secure Node", "ITI-20 Record Audit Event", ()),
    Transaction("Consistent Time (CT)", "Time Client", "ITI-1 Maintain Time", (), left="the machine's"),
)  # fmt: skip


@cache
def services() -> tuple[Service, ...]:
    """Everything that some class of the DICOM door accepts presentation contexts for."""
    return (*dicom_negotiation.SERVICES, *_of_operations())


def _of_operations() -> Iterator[Service]:
    seen: set[int] = set()
    for module in pkgutil.iter_modules(servers.__path__):
        if not module.name.startswith("dicom"):
            continue
        loaded = importlib.import_module(f"{servers.__name__}.{module.name}")
        for one in vars(loaded).values():
            offered = getattr(one, "services", None) if isinstance(one, type) else None
            if isinstance(offered, Sequence) and id(one) not in seen:
                seen.add(id(one))
                yield from (service for service in offered if isinstance(service, Service))


def served(sop_class_uid: str) -> bool:
    """Whether some service takes contexts of this SOP class."""
    return any(service.covers(sop_class_uid) for service in services())


def has(need: Need) -> bool:
    """Whether the code has what a transaction needs."""
    if isinstance(need, tuple):
        return need in OPERATIONS
    if need[0].isdigit():
        return served(need)
    return need in {field.name for field in fields(Settings)}


def state(one: Transaction) -> str:
    if not one.needs or not all(map(has, one.needs)):
        return f"not there{': ' + one.left if one.left else ''}"
    tested = f", tested with {one.tested}" if one.tested and not one.tested.startswith("as ") else ""
    alike = f", {one.tested}" if one.tested.startswith("as ") else ""
    return f"implements{tested}{alike}{'; ' + one.left if one.left else ''}"


def ihe_rows() -> list[tuple[str, str, str, str]]:
    return [(one.profile, one.actor, one.transaction, state(one)) for one in IHE]


def tls_rows() -> list[tuple[str, str]]:
    """The secure transport connection profile: PS3.15 B.12, Modified BCP 195."""
    defaults = {field.name: field.default for field in fields(Settings)}
    return [
        ("Versions", "TLS 1.2, TLS 1.3"),
        ("Cipher suites of TLS 1.2", ", ".join(f"`{name}`" for name in CIPHERS)),
        ("Cipher suites of TLS 1.3", "those of OpenSSL: AES-256-GCM, ChaCha20-Poly1305, AES-128-GCM"),
        ("Keys and signatures", "RSA of 2,048 bits or more, or elliptic curves of 224 or more; no SHA-1"),
        ("Renegotiation, compression, session tickets", "refused"),
        (
            "Peer's certificate",
            "required both ways, from an authority in `tls_authorities`; revocation list by setting",
        ),
        ("Application entity", "known by SHA-256 fingerprint of its certificate; then never in plain text"),
        ("Handshake", "within ARTIM, counted as an unfinished association"),
        ("Address", f"setting `{TLS_SETTING}`, default {defaults[TLS_SETTING] or 'none'}; customary port 2762"),
        ("Changed files", f"in effect within {LOOK_S:.0f} s"),
        ("Warning of an end", f"{WARN_DAYS:.0f} days before, in the log; metric `negatoscope_tls_certificate_days`"),
    ]
