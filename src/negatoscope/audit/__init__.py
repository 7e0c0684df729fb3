"""Who did what: events (PS3.15 A.5), the hash chain, the trail, its verification and export."""

from negatoscope.audit.chain import Finding, Flaw, Head, Verification
from negatoscope.audit.events import Disclosure
from negatoscope.audit.heads import HEADS_FILE, export_head, read_heads, verify_trail
from negatoscope.audit.message import to_xml
from negatoscope.audit.reading import AuditLine, AuditSearch, search_trail
from negatoscope.audit.refusals import Refusals
from negatoscope.audit.trail import Trail

__all__ = [
    "HEADS_FILE",
    "AuditLine",
    "AuditSearch",
    "Disclosure",
    "Finding",
    "Flaw",
    "Head",
    "Refusals",
    "Trail",
    "Verification",
    "export_head",
    "read_heads",
    "search_trail",
    "to_xml",
    "verify_trail",
]
