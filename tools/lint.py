"""All static checks, each run even when one before it failed; the exit code says whether all passed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"

CHECKS = {
    "ruff check": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "mypy --strict": ["mypy"],
    "import-linter": ["lint-imports"],
    "codespell": ["codespell", "src", "tests", "tools", "docs", "README.md"],
}


def main() -> int:
    failed = []
    for name, command in CHECKS.items():
        print(f"== {name}", flush=True)
        if subprocess.run([str(BIN / command[0]), *command[1:]], cwd=ROOT, check=False).returncode != 0:
            failed.append(name)
    print("failed: " + ", ".join(failed) if failed else "all checks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
