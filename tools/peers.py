"""Install what the tests need and this machine lacks: peers, a browser, tracing. Standard library only.

Debian packages by apt (as root, or by sudo where it asks no password), npm packages by the lock file. When
nothing is missing it takes a fraction of a second; when something cannot be had it prints the command that
cures it and fails.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PACKAGES = {  # Debian package -> why
    "chromium": "the browser of the page and viewer tests",
    "dcmtk": "storescu, findscu, dcm2json and others: the reference peer",
    "fuse3": "mounts the file system that loses power",
    "libfuse2": "that file system's library",
    "nodejs": "dcmjs-dimse, a peer that shares no code with the others",
    "npm": "fetches dcmjs-dimse and axe-core",
    "orthanc": "the server that we are measured against",
    "orthanc-dicomweb": "its DICOMweb",
    "strace": "the order of system calls",
}


def missing_packages() -> list[str]:
    """Those of ``PACKAGES`` that dpkg does not show as installed; a node of another origin counts."""
    shown = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *PACKAGES],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    installed = {line.split()[0] for line in shown.splitlines() if line.endswith(" installed")}
    installed |= {package for package, command in (("nodejs", "node"), ("npm", "npm")) if shutil.which(command)}
    return sorted(set(PACKAGES) - installed)


def install_packages(packages: list[str]) -> bool:
    """With apt, updating its lists only when a first attempt fails."""
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = [*as_root, "apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *packages]
    print("installing " + ", ".join(packages), flush=True)
    for attempt in (install, [*as_root, "apt-get", "update", "--quiet"], install):
        try:
            done = subprocess.run(attempt, env=environment, stdout=subprocess.DEVNULL, check=False).returncode == 0
        except FileNotFoundError:  # no sudo
            return False
        if attempt is install and done:
            return True
    return False


def node_modules_made() -> bool:
    stamp = ROOT / "node_modules" / ".made-from"
    return stamp.exists() and stamp.read_text(encoding="ascii") == _lock_digest()


def make_node_modules() -> bool:
    """``npm ci``: exactly the lock file, no script of any package run."""
    command = ["npm", "ci", "--ignore-scripts", "--prefer-offline", "--silent"]
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        return False
    (ROOT / "node_modules" / ".made-from").write_text(_lock_digest(), encoding="ascii")
    return True


def corpus() -> None:
    """Unpack the shared test images into the cache where the tests look; without them those tests are skipped."""
    folder = Path(os.environ.get("NEGATOSCOPE_CORPUS", Path.home() / ".cache" / "negatoscope" / "corpus"))
    shared = Path(os.environ.get("NEGATOSCOPE_SHARED", ROOT.parent / "shared"))
    archive = shared / "corpus" / "dev.tar.xz"
    if folder.exists() or not archive.exists():
        return
    print("unpacking the shared test images", flush=True)
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    with tarfile.open(archive) as packed:
        packed.extractall(partial, filter="data")
    partial.rename(folder)


def _lock_digest() -> str:
    return hashlib.sha256((ROOT / "package-lock.json").read_bytes()).hexdigest()


def main() -> int:
    if shutil.which("dpkg-query") is None:
        print("The peers come from Debian packages and this is no Debian: " + ", ".join(PACKAGES), file=sys.stderr)
        return 1
    missing = missing_packages()
    if missing and not (install_packages(missing) and not missing_packages()):
        print(f"Test peers are missing. Cure: sudo apt-get install {' '.join(missing)}", file=sys.stderr)
        return 1
    if not node_modules_made() and not make_node_modules():
        print("The npm test packages are missing. Cure: npm ci --ignore-scripts", file=sys.stderr)
        return 1
    corpus()
    return 0


if __name__ == "__main__":
    sys.exit(main())
