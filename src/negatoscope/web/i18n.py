"""Languages of the pages: which one a request gets, its catalogue, and how it writes dates and sizes.

Message identifiers are English. Both catalogues are complete ``.po`` files beside this module, compiled
in memory at start: there is no generated file to forget. French comes first.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from functools import cache
from importlib import resources

from babel import Locale
from babel.dates import format_date, format_datetime, format_time, format_timedelta
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal
from babel.support import Translations

LANGUAGES = ("fr", "en")  # the first is what an unknown visitor gets
LANGUAGE_COOKIE = "negatoscope_language"
DOMAIN = "messages"
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def _(message: str) -> str:
    """Mark a message for extraction; it is translated where it is shown."""
    return message


# Units are messages too: "1,4 Go" is not "1.4 GB".
UNIT_NAMES = {"B": _("B"), "kB": _("kB"), "MB": _("MB"), "GB": _("GB"), "TB": _("TB"), "PB": _("PB")}


def choose_language(chosen: str | None, accepted: str | None) -> str:
    """The language of one request.

    Args:
        chosen: value of the language cookie: an explicit choice wins (signing in sets it to the account's).
        accepted: the Accept-Language header, RFC 9110 section 12.5.4.
    """
    if chosen in LANGUAGES:
        return chosen
    return _best_accepted(accepted or "") or LANGUAGES[0]


def _best_accepted(header: str) -> str | None:
    """The language of highest weight in an Accept-Language header; the earlier one on a tie."""
    best, best_weight = None, 0.0
    for choice in header[:1024].split(","):  # no honest header is longer
        tag, _sep, parameters = choice.strip().partition(";")
        name, _equals, value = parameters.strip().partition("=")
        try:
            weight = float(value) if name.strip() == "q" else 1.0
        except ValueError:
            continue
        language = tag.strip().lower().split("-")[0]
        if language in LANGUAGES and best_weight < weight <= 1.0:
            best, best_weight = language, weight
    return best


@cache
def catalogue(language: str) -> Translations:
    """The compiled catalogue of a language of :data:`LANGUAGES`, read once."""
    text = resources.files("negatoscope.web").joinpath("locales", language, "LC_MESSAGES", f"{DOMAIN}.po").read_bytes()
    compiled = io.BytesIO()
    write_mo(compiled, read_po(io.BytesIO(text), locale=language, domain=DOMAIN))
    compiled.seek(0)
    return Translations(compiled, domain=DOMAIN)


@dataclass(frozen=True, slots=True)
class Speech:
    """One language, with everything a template says in it."""

    language: str

    @property
    def locale(self) -> Locale:
        return Locale.parse(self.language)

    def gettext(self, message: str) -> str:
        # An empty identifier would give the catalogue's header.
        return str(catalogue(self.language).gettext(message)) if message else ""

    def ngettext(self, singular: str, plural: str, number: int) -> str:
        return str(catalogue(self.language).ngettext(singular, plural, number))

    def dicom_date(self, value: str) -> str:
        """A DICOM date (DA, ``YYYYMMDD``) as people write it; what is no date is shown as it came."""
        parsed = parse_date(value)
        return format_date(parsed, "medium", locale=self.locale) if parsed else value

    def dicom_time(self, value: str) -> str:
        """A DICOM time (TM, ``HHMMSS.FFFFFF``) to the minute; ``""`` when it cannot be read."""
        if len(value) < 4 or not value[:4].isdecimal():
            return ""
        hour, minute = int(value[:2]), int(value[2:4])
        if hour > 23 or minute > 59:
            return ""
        return format_time(time(hour, minute), "HH:mm", locale=self.locale)

    def moment(self, value: datetime | None) -> str:
        return format_datetime(value, "medium", locale=self.locale) if value else ""

    def ago(self, value: datetime | None, now: datetime) -> str:
        """How long before ``now``: "il y a 3 minutes"."""
        return format_timedelta(value - now, add_direction=True, locale=self.locale) if value else ""

    def number(self, value: float) -> str:
        return format_decimal(value, locale=self.locale)

    def size(self, value: float) -> str:
        """Bytes in decimal units, three significant figures at most."""
        step = 0
        while value >= 999.5 and step < len(_UNITS) - 1:
            value, step = value / 1000, step + 1
        digits = "#,##0" if value >= 99.95 or step == 0 else "#,##0.#"
        return f"{format_decimal(value, digits, locale=self.locale)}\u00a0{self.gettext(UNIT_NAMES[_UNITS[step]])}"

    def callables(self) -> Mapping[str, object]:
        """What templates find by name, besides ``_`` and ``ngettext``."""
        return {
            "dicom_date": self.dicom_date,
            "dicom_time": self.dicom_time,
            "moment": self.moment,
            "ago": self.ago,
            "number": self.number,
            "size": self.size,
        }


def parse_date(value: str) -> date | None:
    """``YYYYMMDD`` (PS3.5 table 6.2-1) or ``None``."""
    if len(value) != 8 or not value.isdecimal():
        return None
    try:
        return date(int(value[:4]), int(value[4:6]), int(value[6:]))
    except ValueError:
        return None


def age_years(birth_date: str, on: date) -> int | None:
    """Completed years on a day, ``None`` without a usable birth date or before birth."""
    born = parse_date(birth_date)
    if born is None or born > on:
        return None
    return on.year - born.year - ((on.month, on.day) < (born.month, born.day))
