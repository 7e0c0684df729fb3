"""Importing by the browser: files, archives, and a reason for each that is not kept."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from playwright.sync_api import FilePayload, expect

from negatoscope.demo import tiny_studies
from visits import Visit

DONE = "#queue[data-finished]"


def file(name: str, data: bytes) -> FilePayload:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": data}


def studies(count: int, seed: int) -> list[bytes]:
    return list(tiny_studies(count, seed=seed))


def with_other_pixels(data: bytes) -> bytes:
    """The same object by name, with other content."""
    dataset = pydicom.dcmread(BytesIO(data))
    dataset.PixelData = bytes(len(dataset.PixelData))
    changed = BytesIO()
    dataset.save_as(changed)
    return changed.getvalue()


def test_files_are_stored_and_what_is_no_image_is_named(visit: Visit) -> None:
    page = visit().enter("demo-manip", "/import")
    first, second = studies(2, seed=301)
    page.set_input_files("#files", [file("a.dcm", first), file("b.dcm", second), file("notes.txt", b"bonjour " * 40)])
    page.wait_for_selector(DONE)
    expect(page.locator("#summary")).to_have_text("2 enregistrés, 0 mis de côté, 0 refusés, 1 ignorés, sur 3")
    expect(page.locator(".upload", has_text="notes.txt")).to_contain_text("Ce n’est pas un fichier DICOM")
    page.goto(page.url.replace("/import", "/worklist?q=TINY301"))
    expect(page.locator("#rows tr")).to_have_count(2)


def test_a_zip_archive_is_opened_in_the_browser(visit: Visit) -> None:
    page = visit().enter("demo-manip", "/import")
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number, data in enumerate(studies(3, seed=302)):
            method = zipfile.ZIP_DEFLATED if number else zipfile.ZIP_STORED
            archive.writestr(f"examen/{number}.dcm", data, compress_type=method)
        archive.writestr("DICOMDIR", b"index")
    page.set_input_files("#files", [file("disque.zip", packed.getvalue())])
    page.wait_for_selector(DONE)
    expect(page.locator("#summary")).to_have_text("3 enregistrés, 0 mis de côté, 0 refusés, 1 ignorés, sur 4")


def test_an_archive_that_would_inflate_without_end_is_refused(visit: Visit) -> None:
    page = visit().enter("demo-manip", "/import")
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bombe.dcm", bytes(20 << 20))
    page.set_input_files("#files", [file("bombe.zip", packed.getvalue())])
    page.wait_for_selector(DONE)
    expect(page.locator(".upload")).to_contain_text("se décompresse au-delà de la limite")


@pytest.mark.parametrize("name", ["cassee.zip", "vide.zip"])
def test_a_broken_archive_is_refused_with_its_reason(visit: Visit, name: str) -> None:
    page = visit().enter("demo-manip", "/import")
    page.set_input_files("#files", [file(name, b"PK\x03\x04" + bytes(200) if name == "cassee.zip" else b"")])
    page.wait_for_selector(DONE)
    expect(page.locator(".upload")).to_contain_text("Ce n’est pas une archive ZIP")


def test_a_truncated_object_is_refused_with_its_reason(visit: Visit) -> None:
    page = visit().enter("demo-manip", "/import")
    page.set_input_files("#files", [file("coupe.dcm", studies(1, seed=303)[0][:-40])])
    page.wait_for_selector(DONE)
    expect(page.locator("#summary")).to_contain_text("1 refusés")
    expect(page.locator(".upload .why")).to_have_text("Le fichier s’arrête trop tôt.")


def test_a_contradiction_is_set_aside_and_a_referent_resolves_it(visit: Visit, tmp_path: Path) -> None:
    original = studies(1, seed=304)[0]
    changed = with_other_pixels(original)
    page = visit().enter("demo-manip", "/import")
    page.set_input_files("#files", [file("premier.dcm", original)])
    page.wait_for_selector(DONE)
    page.set_input_files("#files", [file("second.dcm", changed)])
    expect(page.locator(".upload", has_text="second.dcm")).to_contain_text("Mis de côté")

    desk = visit().enter("demo-referent", "/administration/quarantine")
    uid = str(pydicom.dcmread(BytesIO(original)).SOPInstanceUID)
    row = desk.locator("tr", has_text=uid)
    expect(row).to_contain_text("même identifiant, autre contenu")
    with desk.expect_download() as download:
        row.get_by_role("link", name="Télécharger").click()
    download.value.save_as(tmp_path / "aside.dcm")
    kept, sent = pydicom.dcmread(tmp_path / "aside.dcm"), pydicom.dcmread(BytesIO(changed))
    assert kept.PixelData == sent.PixelData
    row.get_by_role("button", name="Résoudre").click()
    expect(desk.get_by_role("status")).to_contain_text("résolu")
    expect(desk.locator("tr", has_text=uid)).to_have_count(0)
