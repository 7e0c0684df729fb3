"""Fetching the viewer: only the pinned bytes, once, offline the second time, and never a third party."""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.util
import io
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load_tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tools_{name}", ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


tool = load_tool("viewer")

RUNTIME = b'__webpack_require__.p = "/";\nlet x = "/assets";\n'
ARRAYS = b"\tfunction compileConstructor(dtype, dimension) {\n\t  eval(1)\n\t}\n"
PAGE = b'<script>inline()</script><script src="/app.bundle.0123456789abcdef.js"></script><link href="/app.bundle.css">'


def dist(bundles: int = 8, evaluating: int = 3) -> dict[str, bytes]:
    files = {f"dist/{n}.bundle.{n:016x}.js": RUNTIME + (ARRAYS if n < evaluating else b"") for n in range(bundles)}
    return files | {
        "LICENSE": b"MIT",
        "dist/index.html": PAGE,
        "dist/app-config.js": b"window.config = {dataSources: ['https://elsewhere.test']}",
        "dist/init-service-worker.js": b"importScripts('https://storage.elsewhere.test/workbox.js')",
        "dist/silent-refresh.html": b"<script src='https://cdn.elsewhere.test/x.js'></script>",
        "dist/sw.js": b"https://storage.elsewhere.test",
        "dist/ort/model.wasm": b"0" * 100,
        "dist/dicom-microscopy-viewer/x.js": b"0",
        "dist/app.bundle.css": b"@font-face{src:url(/0123456789abcdef.woff2)}" + b" " * 2000,
        "dist/0123456789abcdef.woff2": b"font",
        "dist/assets/images/CT.png": b"png",
        "package.json": b"{}",
    }


def tarball(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def pinned(monkeypatch: pytest.MonkeyPatch, name: str, package: Path) -> object:
    """Pin ``package`` as the tool's ``name``, with the digest it has."""
    digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
    pin = tool.Pin(getattr(tool, name).name, "1.0.0", digest)
    monkeypatch.setattr(tool, name, pin)
    package.replace(package.with_name(pin.file))
    return pin


def fake_npm(folder: Path, package: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An npm that copies one file where ``npm pack`` would put it, and notes each call."""
    folder.mkdir()
    calls = folder / "calls"
    npm = folder / "npm"
    npm.write_text(f'#!/bin/sh\necho "$@" >> {calls}\nfor last; do :; done\ncp {package} "$last/package.tgz"\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return calls


def test_the_viewer_is_rebased_trimmed_and_calls_no_third_party(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned(monkeypatch, "OHIF", tarball(tmp_path / "p.tgz", dist()))
    target = tmp_path / "ohif"
    assert tool.make_viewer(tmp_path, target)
    (folder,) = [path for path in target.iterdir() if path.is_dir()]
    base = f"/viewer/{folder.name}/"
    names = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.suffix != ".gz"
    }
    bundles = {f"{n}.bundle.{n:016x}.js" for n in range(8)}
    assert names == bundles | {"app.bundle.css", "0123456789abcdef.woff2", "assets/images/CT.png", "viewer_boot.js"}
    for path in folder.rglob("*.js"):
        assert b"elsewhere.test" not in path.read_bytes()
    for name in bundles:
        assert f'__webpack_require__.p = "{base}"'.encode() in (folder / name).read_bytes()
    assert f"url({base}0123456789abcdef.woff2)".encode() in (folder / "app.bundle.css").read_bytes()
    assert (target / "LICENSE").read_bytes() == b"MIT"


def test_the_page_that_is_made_has_no_inline_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned(monkeypatch, "OHIF", tarball(tmp_path / "p.tgz", dist()))
    tool.make_viewer(tmp_path, tmp_path / "ohif")
    made = (tmp_path / "ohif" / "index.html").read_text()
    assert "inline()" not in made
    assert all(part.startswith((" src=", " defer src=")) for part in made.split("<script")[1:])
    assert "{{language}}" in made
    assert "{{config}}" in made
    assert "app.bundle.0123456789abcdef.js" in made


def test_array_classes_are_asked_for_instead_of_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned(monkeypatch, "OHIF", tarball(tmp_path / "p.tgz", dist()))
    tool.make_viewer(tmp_path, tmp_path / "ohif")
    freed = [
        b"{ return negatoscopeArrayView(dtype, dimension);" in p.read_bytes() for p in (tmp_path / "ohif").rglob("*.js")
    ]
    assert sum(freed) == 3


@pytest.mark.parametrize(("bundles", "evaluating"), [(7, 3), (9, 3), (8, 2)])
def test_another_ohif_than_the_recipe_knows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundles: int, evaluating: int
) -> None:
    pinned(monkeypatch, "OHIF", tarball(tmp_path / "p.tgz", dist(bundles, evaluating)))
    with pytest.raises(tool.Trouble, match="recipe"):
        tool.make_viewer(tmp_path, tmp_path / "ohif")
    assert not (tmp_path / "ohif").exists()


def test_what_is_made_is_not_made_again_until_the_recipe_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned(monkeypatch, "OHIF", tarball(tmp_path / "p.tgz", dist()))
    target = tmp_path / "ohif"
    assert tool.make_viewer(tmp_path, target)
    first = {path.name for path in target.iterdir()}
    assert not tool.make_viewer(tmp_path, target)
    boot = tmp_path / "viewer_boot.js"
    boot.write_bytes(tool.BOOT.read_bytes() + b"// changed\n")
    monkeypatch.setattr(tool, "BOOT", boot)
    assert tool.make_viewer(tmp_path, target)
    assert {path.name for path in target.iterdir()} != first  # another folder: nothing stale in a browser


def test_compressed_twins_are_the_same_bytes_and_always_the_same(tmp_path: Path) -> None:
    content = b"body { color: black }\n" * 100
    tool.write(tmp_path / "a.css", content)
    tool.write(tmp_path / "b" / "a.css", content)
    assert gzip.decompress((tmp_path / "a.css.gz").read_bytes()) == content
    assert (tmp_path / "a.css.gz").read_bytes() == (tmp_path / "b" / "a.css.gz").read_bytes()
    tool.write(tmp_path / "small.js", b"1")
    assert not (tmp_path / "small.js.gz").exists()


def test_vendor_files_keep_their_licence_and_lose_their_source_maps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tarball(
        tmp_path / "p.tgz", {"dist/x.min.js": b"x=1;\n//# sourceMappingURL=x.min.js.map\n", "LICENSE": b"0BSD"}
    )
    pin = pinned(monkeypatch, "HTMX", package)
    monkeypatch.setattr(tool, "VENDOR", {pin: {"dist/x.min.js": "x.js", "LICENSE": "x.LICENSE"}})
    assert tool.make_vendor(tmp_path, tmp_path / "vendor")
    assert (tmp_path / "vendor" / "x.js").read_bytes() == b"x=1;\n"
    assert (tmp_path / "vendor" / "x.LICENSE").read_bytes() == b"0BSD"


def test_npm_is_asked_once_and_runs_no_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin = pinned(monkeypatch, "HTMX", tarball(tmp_path / "p.tgz", {"LICENSE": b""}))
    package = tmp_path / tool.HTMX.file
    calls = fake_npm(tmp_path / "bin", package, monkeypatch)
    cache = tmp_path / "cache"
    assert tool.fetch(pin, cache).read_bytes() == package.read_bytes()
    tool.fetch(pin, cache)
    assert calls.read_text().count("pack htmx.org@1.0.0 --ignore-scripts") == 1
    monkeypatch.setenv("PATH", "/nowhere")  # the second install needs neither npm nor a network
    tool.fetch(pin, cache)


def test_other_bytes_than_the_pinned_ones_are_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin = pinned(monkeypatch, "HTMX", tarball(tmp_path / "p.tgz", {"LICENSE": b""}))
    other = tarball(tmp_path / "other.tgz", {"LICENSE": b"another"})
    fake_npm(tmp_path / "bin", other, monkeypatch)
    cache = tmp_path / "cache"
    with pytest.raises(tool.Trouble, match="not the pinned file"):
        tool.fetch(pin, cache)
    assert list(cache.iterdir()) == []


def test_a_damaged_cache_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin = pinned(monkeypatch, "HTMX", tarball(tmp_path / "p.tgz", {"LICENSE": b""}))
    package = tmp_path / tool.HTMX.file
    fake_npm(tmp_path / "bin", package, monkeypatch)
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / tool.HTMX.file).write_bytes(b"half a file")
    assert tool.fetch(pin, cache).read_bytes() == package.read_bytes()


def test_a_machine_without_npm_is_told_the_cure_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("NEGATOSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tool, "STATIC", tmp_path / "static")
    assert tool.main() == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2  # one a part
    assert all("Cure: sudo apt-get install npm" in line for line in said)


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEGATOSCOPE_CACHE", str(tmp_path / "own"))
    assert tool.cache_folder() == tmp_path / "own"
    monkeypatch.delenv("NEGATOSCOPE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tool.cache_folder() == tmp_path / "negatoscope"


def test_no_file_of_the_project_names_a_registry() -> None:
    for name in ("package-lock.json", "package.json", ".npmrc"):
        text = (ROOT / name).read_text()
        assert '"resolved"' not in text
        assert "registry." not in text.replace("omit-lockfile-registry-resolved", "")
