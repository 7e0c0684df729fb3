"""The command line: parse, call a use case, print."""

from __future__ import annotations


def main() -> int:
    raise SystemExit("not yet")
