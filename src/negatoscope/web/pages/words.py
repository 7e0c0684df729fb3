"""How DICOM values are written for people: names, ages, modalities. Pure: no request, no clock, no store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from negatoscope.web.i18n import Speech, age_years, parse_date


def _(message: str) -> str:
    """Mark a message for extraction; it is translated where it is shown."""
    return message


@dataclass(frozen=True, slots=True)
class Modality:
    """A value of Modality (0008,0060): its plain name and the tint of its badge."""

    label: str
    tint: str  # suffix of a class of app.css; a received value never becomes a class


# PS3.3 C.7.3.1.1.1, those that people meet; any other code is shown bare.
MODALITIES = {
    "CT": Modality(_("Computed tomography"), "scan"),
    "MR": Modality(_("Magnetic resonance"), "mr"),
    "US": Modality(_("Ultrasound"), "us"),
    "IVUS": Modality(_("Intravascular ultrasound"), "us"),
    "CR": Modality(_("Radiography"), "xray"),
    "DX": Modality(_("Digital radiography"), "xray"),
    "RF": Modality(_("Fluoroscopy"), "xray"),
    "XA": Modality(_("Angiography"), "xray"),
    "PX": Modality(_("Panoramic dental radiography"), "xray"),
    "IO": Modality(_("Intra-oral radiography"), "xray"),
    "MG": Modality(_("Mammography"), "breast"),
    "BDUS": Modality(_("Bone densitometry by ultrasound"), "us"),
    "BMD": Modality(_("Bone densitometry"), "xray"),
    "NM": Modality(_("Nuclear medicine"), "nuclear"),
    "PT": Modality(_("Positron emission tomography"), "nuclear"),
    "SM": Modality(_("Slide microscopy"), "visible"),
    "GM": Modality(_("Microscopy"), "visible"),
    "XC": Modality(_("Photography"), "visible"),
    "ES": Modality(_("Endoscopy"), "visible"),
    "OP": Modality(_("Ophthalmic photography"), "visible"),
    "OPT": Modality(_("Ophthalmic tomography"), "visible"),
    "ECG": Modality(_("Electrocardiography"), "plain"),
    "SC": Modality(_("Secondary capture"), "plain"),
    "OT": Modality(_("Other"), "plain"),
    "SR": Modality(_("Structured report"), "plain"),
    "DOC": Modality(_("Document"), "plain"),
    "KO": Modality(_("Key images"), "plain"),
    "PR": Modality(_("Presentation state"), "plain"),
    "SEG": Modality(_("Segmentation"), "plain"),
    "REG": Modality(_("Registration"), "plain"),
    "RTSTRUCT": Modality(_("Radiotherapy structures"), "plain"),
    "RTPLAN": Modality(_("Radiotherapy plan"), "plain"),
    "RTDOSE": Modality(_("Radiotherapy dose"), "plain"),
    "RTIMAGE": Modality(_("Radiotherapy image"), "plain"),
    "ANN": Modality(_("Annotations"), "plain"),
}

# What the worklist's filter offers as a button, most used first.
FILTER_MODALITIES = ("CT", "MR", "US", "DX", "CR", "MG", "XA", "PT", "NM", "SR")

# Objects of these modalities have no picture of their own.
WITHOUT_PICTURES = frozenset({"SR", "KO", "PR", "REG", "RTSTRUCT", "RTPLAN", "DOC", "ECG", "ANN", "AU", "PLAN"})

SEX = {"F": _("Female"), "M": _("Male"), "O": _("Other sex")}
SEX_SHORT = {"F": _("F"), "M": _("M"), "O": _("O")}


@dataclass(frozen=True, slots=True)
class WrittenName:
    """A person's name (PN, PS3.5 6.2.1) as it is written: "DURAND Émilie"."""

    family: str  # upper case, as French identity rules show it
    given: str
    other: str = ""  # ideographic or phonetic group, when it differs

    def __bool__(self) -> bool:
        return bool(self.family or self.given or self.other)

    @property
    def plain(self) -> str:
        return " ".join(part for part in (self.family, self.given) if part) or self.other


def written_name(value: str) -> WrittenName:
    """Read a PN: groups parted by ``=``, components by ``^`` (family, given, middle, prefix, suffix)."""
    groups = value.split("=")
    components = [component.strip() for component in groups[0].split("^")] + [""] * 5
    family, given, middle, _prefix, suffix = components[:5]
    others = " ".join(" ".join(group.replace("^", " ").split()) for group in groups[1:3]).strip()
    return WrittenName(
        family=" ".join(part for part in (family.upper(), suffix) if part),
        given=" ".join(part for part in (given, middle) if part),
        other=others,
    )


def written_age(speech: Speech, birth_date: str, study_date: str, today: date) -> str:
    """Age at the study (today when it has no date): years, months under three years, days under a month."""
    on = parse_date(study_date) or today
    born, years = parse_date(birth_date), age_years(birth_date, on)
    if born is None or years is None:
        return ""
    if years >= 3:
        return speech.ngettext("%(num)d year", "%(num)d years", years) % {"num": years}
    months = (on.year - born.year) * 12 + on.month - born.month - (on.day < born.day)
    if months >= 1:
        return speech.ngettext("%(num)d month", "%(num)d months", months) % {"num": months}
    days = (on - born).days
    return speech.ngettext("%(num)d day", "%(num)d days", days) % {"num": days}


@dataclass(frozen=True, slots=True)
class WindowPreset:
    """A window people ask for by name. Center and width in the modality's unit (HU for CT)."""

    key: str
    label: str
    center: float | None = None
    width: float | None = None

    @property
    def value(self) -> str:
        """The ``window`` parameter of the rendered resource (PS3.18 8.3.5.1.4), ``""`` for the image's own."""
        return "" if self.center is None or self.width is None else f"{self.center:g},{self.width:g},linear"


OWN_WINDOW = WindowPreset("own", _("Default"))
CT_WINDOWS = (
    OWN_WINDOW,
    WindowPreset("soft", _("Soft tissue"), 50, 400),
    WindowPreset("lung", _("Lung"), -600, 1500),
    WindowPreset("mediastinum", _("Mediastinum"), 40, 350),
    WindowPreset("bone", _("Bone"), 500, 2000),
    WindowPreset("brain", _("Brain"), 40, 80),
    WindowPreset("liver", _("Liver"), 60, 160),
)


def window_presets(modality: str) -> tuple[WindowPreset, ...]:
    """Only CT has a unit that makes a window mean the same everywhere."""
    return CT_WINDOWS if modality == "CT" else (OWN_WINDOW,)


ROLES = {
    "admin": _("Administrator"),
    "referent": _("RIS-PACS referent"),
    "radiographer": _("Radiographer"),
    "radiologist": _("Radiologist"),
    "clinician": _("Clinician"),
    "secretary": _("Secretary"),
    "dpo": _("Data protection officer"),
}

RIGHTS = {
    "store": _("Store images"),
    "query": _("Query"),
    "retrieve": _("Retrieve"),
    "worklist": _("Worklist and procedure steps"),
}

# Completion (0040,A491) and Verification Flag (0040,A493) of a structured report.
REPORT_FLAGS = {
    "COMPLETE": _("complete"),
    "PARTIAL": _("partial"),
    "VERIFIED": _("verified"),
    "UNVERIFIED": _("not verified"),
}
