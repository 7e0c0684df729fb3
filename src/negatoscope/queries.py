"""SQL in files: ``-- name --`` over each statement of a package's ``queries.sql``."""

from __future__ import annotations

import re
from importlib import resources
from typing import LiteralString, cast

_NAME = re.compile(r"^-- ([a-z][a-z0-9_]*) --$", re.MULTILINE)


def load_queries(package: str, file: str = "queries.sql") -> dict[str, LiteralString]:
    """The statements of ``file`` in ``package`` by name. Raises ValueError on a name used twice.

    The cast is the promise psycopg asks for: these texts come from our own files, never from a peer.
    """
    text = resources.files(package).joinpath(file).read_text(encoding="utf-8")
    pieces = _NAME.split(text)
    names, bodies = pieces[1::2], pieces[2::2]
    if len(set(names)) != len(names):
        raise ValueError(f"{package}/{file}: a query name stands twice")
    return {name: cast(LiteralString, body.strip().rstrip(";")) for name, body in zip(names, bodies, strict=True)}
