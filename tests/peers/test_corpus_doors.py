"""The whole corpus through the other doors: sent by DCMTK, and imported from a folder."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from negatoscope.dicom.scan import scan
from negatoscope.errors import NegatoscopeError
from peers.corpus import REFUSED, Archive, fates, name_of, sample_of
from system import System, free_port, run_peer, system
from unit.dicom.samples import CORPUS, need_corpus, read

DCMSEND, STORESCP = Path("/usr/bin/dcmsend"), Path("/usr/bin/storescp")
pytestmark = [pytest.mark.corpus, pytest.mark.slow, pytest.mark.timeout(600)]
SEND = [str(DCMSEND), "-v", "-nuc", "-nh", "-dn", "+f", "-aet", "MODALITY", "-aec", "NEGATOSCOPE", "127.0.0.1"]
AT_ONCE = 16  # senders; DCMTK's receiver waits 80 ms for each object, for nothing

# The SOP class of their file meta is not that of their data set; DCMTK sends the second on a presentation
# context of the first. PS3.7 9.1.1: they must agree, so that is refused (0x0122).
ON_ANOTHER_CONTEXT = {
    "data/test_files/rtdose_rle.dcm",
    "data/test_files/rtdose_rle_1frame.dcm",
    "data_store/data/explicit_VR-UN.dcm",
}


@pytest.fixture(scope="module")
def built() -> Iterator[System]:
    with system(NEGATOSCOPE_QUIET_S="86400") as running:
        running.run("establishment", "add", "HY", "--name", "Hôpital Y", "--oid", "2.25.5002")
        running.run("user", "add", "other", "--role", "radiologist", "--establishment", "HY")
        running.start()
        yield running


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    """SHA-256 of each data set as DCMTK's own receiver writes it, bit for bit, when DCMTK sends the corpus.

    Only those that can be indexed. (DCMTK re-encodes what it sends, so the files cannot tell.)
    """
    if not STORESCP.exists():
        pytest.skip("DCMTK is not installed (apt install dcmtk)")
    folder, port, files = tmp_path_factory.mktemp("storescp"), free_port(), need_corpus()
    receiver = subprocess.Popen(
        [str(STORESCP), "+B", "+uf", "+xa", "-pm", "--fork", str(port)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(0.5)
        parts = [[*SEND, str(port), *map(str, files[number::AT_ONCE])] for number in range(AT_ONCE)]
        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(run_peer, parts))
    finally:
        receiver.terminate()
        receiver.wait(10)
    return Counter(
        hashlib.sha256(data).hexdigest() for data, syntax in map(read, folder.iterdir()) if fits(data, syntax)
    )


def fits(data: bytes, syntax: str) -> bool:
    try:
        scan(data, syntax)
    except NegatoscopeError:
        return False
    return True


def everything_kept(built: System, user: str, codes: list[dict[str, str]]) -> Counter[str]:
    """SHA-256 of every data set: instances found by QIDO-RS page by page, and ``codes``, those in quarantine."""
    kept = Counter(row["sha256"] for row in codes)
    with Archive(built.url, built.token(user)) as archive:
        offset = 0
        while page := archive.get("/dicom-web/instances", "application/dicom+json", offset=str(offset), limit="200"):
            if page.status_code == 204:
                break
            found = page.json()
            for one in found:
                study, series, sop = (one[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018"))
                data, _ = archive.data_set(f"/dicom-web/studies/{study}/series/{series}/instances/{sop}")
                kept[hashlib.sha256(data).hexdigest()] += 1
            offset += len(found)
            if not found:
                break
    return kept


def quarantined(built: System) -> list[dict[str, str]]:
    return [json.loads(line) for line in built.run("quarantine", "list").stdout.splitlines()]


def test_what_dcmsend_sends_is_kept_bit_for_bit(built: System, reference: Counter[str], tmp_path: Path) -> None:
    """Every data set that DCMTK's receiver got is here, stored or aside; what is not was refused with a status."""
    report = tmp_path / "report.txt"
    need = [str(path) for path in need_corpus()]
    done = run_peer([*SEND[:-1], "+crf", str(report), SEND[-1], str(built.dicom_port), *need])
    assert done.returncode == 0, done.stderr[-500:]
    kept = everything_kept(built, "reader", quarantined(built))
    told = statuses(report)
    assert {name for name, status in told.items() if status == 0x0122} == ON_ANOTHER_CONTEXT
    assert {name for name, status in told.items() if status not in (0, 0x0122)} <= set(REFUSED)
    assert set(kept) <= set(reference)
    assert len(set(reference) - set(kept)) == len(ON_ANOTHER_CONTEXT)
    assert len(kept) > 580


def statuses(report: Path) -> dict[str, int]:
    """DIMSE status of each file that was sent."""
    found = re.findall(
        r"Filename +: (.*)\n(?:.+\n)*?DIMSE Status +: 0x([0-9a-f]{4})", report.read_text(errors="replace")
    )
    return {name_of(Path(path)): int(status, 16) for path, status in found}


def test_an_import_accounts_for_every_file_of_the_folder(built: System) -> None:
    """One line with a reason for each file that is not simply stored, and the sums."""
    done = built.run("import", str(CORPUS), "--establishment", "HY", check=False)
    *lines, sums = done.stdout.splitlines()
    found = [re.fullmatch(r"dev/(.*?): (\w+): .+", line) for line in lines]
    told = {match[1]: match[2] for match in found if match}
    assert len(told) == len(lines)
    due = {}
    files = fates([sample_of(path) for path in need_corpus()])
    for fate in files:
        name = fate.sample.name
        if fate.kind == "aside":
            due[name] = "quarantined"
        elif fate.kind == "refused":
            due[name] = "skipped" if "DICOMDIR" in name else "refused"
    assert told == due
    counts = Counter(due.values()) + Counter({"stored": 0})
    of = Counter(fate.kind for fate in files)
    assert sums == (
        f"{of['stored']} stored, {of['known']} already stored, {of['aside']} quarantined, "
        f"{counts['skipped']} skipped, {counts['refused']} refused"
    )
    assert done.returncode == 1, "what was refused needs somebody's eyes"
    assert done.stderr.splitlines() == [f"negatoscope: {counts['refused']} files were refused"]
    again = built.run("import", str(CORPUS), "--establishment", "HY", check=False).stdout.splitlines()[-1]
    assert again == sums.replace(f"{of['stored']} stored, {of['known']}", f"0 stored, {of['stored'] + of['known']}")


def test_a_disc_is_imported_by_its_index(built: System, tmp_path: Path) -> None:
    need_corpus()
    source = CORPUS / "dev/data/test_files/dicomdirtests"
    disc = tmp_path / "disc"
    shutil.copytree(source, disc)
    (disc / "77654033" / "CR1" / "6154").unlink()
    done = built.run("import", str(disc / "DICOMDIR"), "--establishment", "HY", check=False)
    assert "77654033/CR1/6154: refused: missing from media" in done.stdout
    assert done.returncode == 1
