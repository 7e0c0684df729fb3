"""Make ``.venv`` from the hashed lock file, then the package itself in place. Standard library only."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"


def complain(what: str, cure: str) -> int:
    print(f"{what} Cure: {cure}", file=sys.stderr)
    return 1


def main() -> int:
    if sys.version_info < (3, 11):
        print(
            f"Python 3.11 or later is needed, this is {sys.version.split()[0]}. Cure: make PYTHON=python3.12 install",
            file=sys.stderr,
        )
        return 1
    if not (VENV / "bin" / "python").exists():
        print("making the virtual environment .venv", flush=True)
        try:
            venv.create(VENV, with_pip=True)
        except (subprocess.CalledProcessError, SystemExit):
            print("Python's venv module is incomplete. Cure: sudo apt-get install python3-venv", file=sys.stderr)
            return 1
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", "--quiet"]  # errors only
    print("installing the locked packages (hashes checked)", flush=True)
    for step in (
        ["--require-hashes", "-r", "requirements.lock"],
        ["--no-deps", "--no-build-isolation", "-e", "."],
    ):
        if subprocess.run([*pip, *step], cwd=ROOT, check=False).returncode != 0:
            return complain("pip failed; its own message stands above.", "for a network fault, make install again")
    (VENV / ".installed").touch()
    return 0


if __name__ == "__main__":
    sys.exit(main())
