"""Person names as they are searched: folded words, each the beginning of a word of the name."""

from __future__ import annotations

from negatoscope.dicom.charset import fold
from negatoscope.errors import BadRequest

# Where the words of a name end; the column patient.name_words is made with the same characters.
BREAKS = "^=,-'’.;:/\\()[]{}\"_*?!&|<>+#@~`"
MAX_TEXT = 200  # characters; a person name of PS3.5 6.2 has 64 a component group
_MAX_WORD = 64  # characters of a folded word that are compared; PostgreSQL takes 2,046 bytes

_TO_SPACES = str.maketrans(BREAKS, " " * len(BREAKS))


def words(text: str) -> list[str]:
    """The folded words of ``text``, in order.

    Raises:
        BadRequest: over ``MAX_TEXT`` characters.
    """
    if len(text) > MAX_TEXT:
        raise BadRequest(f"a text to search for has at most {MAX_TEXT} characters")
    visible = "".join(character if character.isprintable() else " " for character in text)
    return fold(visible).translate(_TO_SPACES).split()


def prefix_query(text: str) -> str | None:
    """``to_tsquery('simple', ...)`` text: every word of ``text`` begins a word of the name; None without words.

    No word holds a quote or a backslash (they are breaks), so quoting is all that is needed.
    """
    return " & ".join(f"'{word[:_MAX_WORD]}':*" for word in words(text)) or None


def end_of_prefix(prefix: str) -> str:
    """The first text, bytewise in UTF-8, after all that begin with ``prefix``: an index range's upper end."""
    return prefix + "\U0010ffff"
