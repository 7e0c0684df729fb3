"""Fetch the pinned browser parts from npm, check them, cut them down, put them where the server looks.

``make install`` ends with this; run alone it is ``python tools/viewer.py``. Standard library only.
Three packages, each known by its SHA-512: the OHIF viewer (a prebuilt ``dist``, never built here), htmx
and Tabler's style sheet. What was fetched once stays in a cache folder, so a second install needs no
network. A stamp beside the result says which recipe made it: nothing is done twice.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATIC = ROOT / "src" / "negatoscope" / "web" / "static"
BOOT = ROOT / "tools" / "viewer_boot.js"
STAMP = ".made-by"


@dataclass(frozen=True, slots=True)
class Pin:
    """One npm package, exactly: the name, the version, and the digest the bytes must have."""

    name: str
    version: str
    integrity: str  # SHA-512 of the .tgz, base64, as npm writes it after "sha512-"

    @property
    def file(self) -> str:
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"


OHIF = Pin(
    "@ohif/app",
    "3.13.2",
    "WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA==",
)
HTMX = Pin(
    "htmx.org",
    "4.0.1",
    "oF7JgXhDW9UXCy/k1ZYFUQgzu/rm19ORWPSPNL91vPluB2PB9+MV55tyQdH/w7o2EAbTYUG5SDW1R60mdkdqGg==",
)
TABLER = Pin(
    "@tabler/core",
    "1.6.1",
    "lgmR9gcxRp5JlLxcmRi9Rz85JrEvH6Bz71KnlcPVSa97wtwQNjgSs3g3fxwbAlulHyRMghhIV04QUuW3pqDsIg==",
)

VENDOR = {  # file in the package -> file in static/vendor
    HTMX: {"dist/htmx.min.js": "htmx.min.js", "LICENSE": "htmx.LICENSE"},
    TABLER: {
        "dist/css/tabler.min.css": "tabler.min.css",
        "dist/js/tabler.min.js": "tabler.min.js",  # its licence, MIT, stands at the head of both files
    },
}

# What of OHIF's dist is not shipped: ONNX models (136 MB), the whole-slide viewer (20 MB), whatever
# calls a third party (service worker, silent refresh, public demonstration server) and what only they
# need, data files for the customization URL that we leave off, start-up images of telephones.
DROPPED = (
    "ort/",
    "dicom-microscopy-viewer/",
    "customizations/",
    "init-service-worker.js",
    "sw.js",
    "silent-refresh.html",
    "oidc-client.min.js",
    "es6-shim.min.js",
    "polyfill.min.js",
    "google.js",
    "app-config.js",
    "index.html",
    "manifest.json",
    "serve.json",
    "_headers",
    "_redirects",
    "assets/apple-",
    "assets/android-",
    "assets/mstile-",
    "assets/coast-",
    "assets/yandex-",
    "assets/browserconfig.xml",
    "assets/firefox_",
    "assets/manifest.webapp",
)
REBASED_BUNDLES = 8  # bundles with the public path "/" baked in; another number means another OHIF
PUBLIC_PATH = re.compile(rb'(__webpack_require__\.p|\b\w\.p) = "/";')
EVALUATING = b"function compileConstructor(dtype, dimension) {"  # of the ndarray library
EVALUATING_BUNDLES = 3
CSS_URL = re.compile(rb"url\(/(?=[0-9a-f]{16}\.woff2\))")
COMPRESSED = {".js", ".css", ".wasm", ".svg", ".html", ".json"}


class Trouble(Exception):
    """Why the viewer cannot be had, and the cure, in one line."""


def cache_folder() -> Path:
    """``$NEGATOSCOPE_CACHE``, else ``negatoscope`` in the XDG cache folder."""
    if own := os.environ.get("NEGATOSCOPE_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "negatoscope"


def digest_ok(file: Path, pin: Pin) -> bool:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha512").digest() == base64.b64decode(pin.integrity)


def fetch(pin: Pin, cache: Path) -> Path:
    """The package file, from the cache or from npm, its digest checked either way.

    Raises:
        Trouble: no npm, no network, or other bytes than the pinned ones.
    """
    kept = cache / pin.file
    if kept.exists():
        if digest_ok(kept, pin):
            return kept
        kept.unlink()
    npm = shutil.which("npm")
    if npm is None:
        raise Trouble(f"npm is needed to fetch {pin.name}. Cure: sudo apt-get install npm")
    cache.mkdir(parents=True, exist_ok=True)
    fresh = cache / f"fetching-{os.getpid()}"
    fresh.mkdir(exist_ok=True)
    try:
        command = [npm, "pack", f"{pin.name}@{pin.version}", "--ignore-scripts", "--silent", "--pack-destination"]
        done = subprocess.run([*command, str(fresh)], cwd=fresh, capture_output=True, text=True, check=False)
        packed = list(fresh.glob("*.tgz"))
        if done.returncode != 0 or len(packed) != 1:
            said = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise Trouble(f"npm pack {pin.name}@{pin.version} failed ({said}). Cure: check the network, make viewer")
        if not digest_ok(packed[0], pin):
            raise Trouble(f"{pin.name}@{pin.version} is not the pinned file (SHA-512 differs). It was thrown away.")
        packed[0].replace(kept)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return kept


def members(package: Path) -> Iterator[tuple[str, bytes]]:
    """Regular files of an npm package: (path below ``package/``, content)."""
    with tarfile.open(package) as archive:
        for member in archive:
            if member.isfile() and (stream := archive.extractfile(member)) is not None:
                yield member.name.partition("/")[2], stream.read()


def recipe(*pins: Pin) -> str:
    """Names what would be made: the pinned bytes, this very file and the boot script."""
    made_from = [pin.integrity.encode() for pin in pins] + [Path(__file__).read_bytes(), BOOT.read_bytes()]
    return hashlib.sha256(b"\0".join(made_from)).hexdigest()


def is_made(folder: Path, stamp: str) -> bool:
    file = folder / STAMP
    return file.exists() and file.read_text(encoding="ascii") == stamp


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if path.suffix in COMPRESSED and len(content) > 1024:
        # mtime 0: the same input gives the same bytes, wherever it is made
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(content, compresslevel=6, mtime=0))


def replace_folder(fresh: Path, target: Path, stamp: str) -> None:
    """Put ``fresh`` in the place of ``target``; the stamp is written last."""
    (fresh / STAMP).write_text(stamp, encoding="ascii")
    shutil.rmtree(target, ignore_errors=True)
    fresh.replace(target)


def rebased(name: str, content: bytes, base: str) -> bytes:
    """The same file, made to find its neighbours below ``base`` instead of ``/``, and to evaluate no text."""
    if name.endswith(".js"):
        content = content.replace(EVALUATING, EVALUATING + b" return negatoscopeArrayView(dtype, dimension);")
        return PUBLIC_PATH.sub(lambda found: found[1] + b' = "' + base.encode() + b'";', content)
    if name.endswith(".css"):
        return CSS_URL.sub(b"url(" + base.encode(), content)
    return content


def index_page(original: bytes, base: str) -> bytes:
    """Our own page around OHIF's bundle: no inline script, no third party, French unless told otherwise.

    ``{{language}}`` and ``{{config}}`` are filled for each request by the server.
    """
    bundle = re.search(rb'src="/(app\.bundle\.[0-9a-f]{16}\.js)"', original)
    if bundle is None or b'href="/app.bundle.css"' not in original:
        raise Trouble("OHIF's index.html is not as expected: the recipe in tools/viewer.py must follow it.")
    return f"""<!doctype html>
<html lang="{{{{language}}}}"><head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="theme-color" content="#000000">
<title>Négatoscope</title>
<link rel="icon" href="{base}assets/favicon.ico">
<script src="{{{{config}}}}"></script>
<script src="{base}{BOOT.name}"></script>
<script defer src="{base}{bundle[1].decode()}"></script>
<link href="{base}app.bundle.css" rel="stylesheet">
</head><body>
<noscript>JavaScript est nécessaire pour afficher les images. JavaScript is needed to show images.</noscript>
<div id="react-portal"></div>
<div id="root"></div>
</body></html>
""".encode()


def make_viewer(cache: Path, target: Path) -> bool:
    """``static/ohif``: index.html, LICENSE, and one folder named by version and recipe with all the rest.

    That folder's name is in every address, so its files may be cached for ever, although bundles that
    we rebased keep the names OHIF gave them. Returns whether anything was done.
    """
    stamp = recipe(OHIF)
    if is_made(target, stamp):
        return False
    folder = f"{OHIF.version}-{stamp[:8]}"
    base = f"/viewer/{folder}/"
    fresh = target.with_name(target.name + ".fresh")
    shutil.rmtree(fresh, ignore_errors=True)
    rebased_bundles, freed_bundles, index = 0, 0, b""
    for name, content in members(fetch(OHIF, cache)):
        if name == "LICENSE":
            write(fresh / "LICENSE", content)
        kept = name.removeprefix("dist/")
        if kept == "index.html":
            index = content
        if not name.startswith("dist/") or kept.startswith(DROPPED):
            continue
        made = rebased(kept, content, base)
        rebased_bundles += kept.endswith(".js") and PUBLIC_PATH.search(content) is not None
        freed_bundles += EVALUATING in content
        write(fresh / folder / kept, made)
    if (rebased_bundles, freed_bundles) != (REBASED_BUNDLES, EVALUATING_BUNDLES):
        raise Trouble(f"OHIF {OHIF.version} is not as the recipe in tools/viewer.py expects it.")
    write(fresh / folder / BOOT.name, BOOT.read_bytes())
    (fresh / "index.html").write_bytes(index_page(index, base))
    replace_folder(fresh, target, stamp)
    return True


def make_vendor(cache: Path, target: Path) -> bool:
    """``static/vendor``: htmx and Tabler, the files the pages name and their licences."""
    stamp = recipe(*VENDOR)
    if is_made(target, stamp):
        return False
    fresh = target.with_name(target.name + ".fresh")
    shutil.rmtree(fresh, ignore_errors=True)
    for pin, wanted in VENDOR.items():
        missing = set(wanted)
        for name, content in members(fetch(pin, cache)):
            if name in missing:
                # the source map stays behind: a reference to it would be a 404 in every console
                write(fresh / wanted[name], re.sub(rb"\n?/[/*]# sourceMappingURL=[^\n]*\n?", b"\n", content))
                missing.discard(name)
        if missing:
            raise Trouble(f"{pin.name}@{pin.version} has no {sorted(missing)[0]}: see tools/viewer.py.")
    replace_folder(fresh, target, stamp)
    return True


def main() -> int:
    cache, failed = cache_folder() / "npm", False
    for make, target in ((make_vendor, STATIC / "vendor"), (make_viewer, STATIC / "ohif")):
        try:
            if make(cache, target):
                print(f"made {target.relative_to(ROOT)}", flush=True)
        except Trouble as trouble:
            print(f"{target.name} is missing: {trouble}", file=sys.stderr)
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
