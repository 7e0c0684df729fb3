"""Bring the pages' catalogues up to date with the sources: ``python tools/catalogues.py``.

New messages are added (English says what the identifier says, French waits for its translator), those no
longer used go. With ``--check`` nothing is written; the exit code says whether the files are up to date and complete.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

WEB = Path(__file__).resolve().parent.parent / "src" / "negatoscope" / "web"
METHODS = [("pages/**.py", "python"), ("i18n.py", "python"), ("templates/**.html", "jinja2")]
KEYWORDS = {"_": None, "gettext": None, "ngettext": (1, 2)}
LANGUAGES = ("en", "fr")


def file_of(language: str) -> Path:
    return WEB / "locales" / language / "LC_MESSAGES" / "messages.po"


def extracted() -> Catalog:
    """Every message of code and templates, sorted, without places (they would change with each edit)."""
    found = Catalog(project="negatoscope", charset="utf-8")
    for _file, _line, message, _comments, _context in extract_from_dir(str(WEB), METHODS, keywords=KEYWORDS):
        found.add(message)
    return found


def catalogue(language: str) -> Catalog:
    file = file_of(language)
    if not file.exists():
        return Catalog(locale=language, charset="utf-8")
    return read_po(io.BytesIO(file.read_bytes()), locale=language)


def updated(language: str, template: Catalog) -> Catalog:
    """The catalogue with exactly the messages of ``template``; nothing is guessed from similar ones."""
    old = catalogue(language)
    fresh = Catalog(locale=language, project="negatoscope", charset="utf-8", fuzzy=False)
    for message in template:
        if not message.id:
            continue
        known = old.get(message.id)
        translation = known.string if known and known.string and not known.fuzzy else None
        fresh.add(message.id, translation or (message.id if language == "en" else None))
    return fresh


def text_of(made: Catalog) -> bytes:
    stream = io.BytesIO()
    write_po(stream, made, sort_output=True, no_location=True, omit_header=True, width=120)
    head = (
        f'msgid ""\nmsgstr ""\n"Language: {made.locale}\\n"\n"MIME-Version: 1.0\\n"\n'
        '"Content-Type: text/plain; charset=utf-8\\n"\n"Content-Transfer-Encoding: 8bit\\n"\n'
        f'"Plural-Forms: {made.plural_forms}\\n"\n\n'
    )
    return head.encode() + stream.getvalue()


def missing(made: Catalog) -> list[str]:
    """Identifiers without a complete translation."""
    return [
        str(message.id)
        for message in made
        if message.id and not (all(message.string) if isinstance(message.string, tuple) else message.string)
    ]


def main(arguments: list[str]) -> int:
    template, wrong = extracted(), 0
    for language in LANGUAGES:
        made, file = updated(language, template), file_of(language)
        text = text_of(made)
        if "--check" in arguments:
            wrong += not file.exists() or file.read_bytes() != text
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text)
        for identifier in missing(made):
            wrong += 1
            print(f"{language}: no translation of {identifier}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
