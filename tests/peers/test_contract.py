"""The command-line contract, its part on what is answered: rights, conflicts, broken objects, errors in one line."""

from __future__ import annotations

import hashlib
import json
import re
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from harness import synthetic
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian

from negatoscope.dicom.part10 import read_file_meta, write_file_meta
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN as EXPLICIT
from negatoscope.dicom.uid import IMPLICIT_LITTLE_ENDIAN as IMPLICIT
from negatoscope.errors import UnsupportedSOPClass
from negatoscope.servers.dicom_client import AssociationRefused, PeerUnavailable, Proposal, associate
from peers.corpus import SET_ASIDE, Answer, Archive
from reliability.traffic import CT
from system import System, system
from unit.dicom.samples import nested

pytestmark = pytest.mark.slow
STORED, ASIDE = Answer(200, None, None), Answer(202, SET_ASIDE, None)
MISMATCH, TRUNCATED, TOO_DEEP = 0xA900, 0xC002, 0xC003
BOTH = ((CT, (EXPLICIT,)), (CT, (IMPLICIT,)))


@pytest.fixture(scope="module")
def built() -> Iterator[System]:
    with system(NEGATOSCOPE_QUIET_S="86400") as one:
        one.start()
        yield one


@pytest.fixture(scope="module")
def archive(built: System) -> Iterator[Archive]:
    with Archive(built.url, built.token("reader", "--ttl", "2h")) as one:
        yield one


def file_of(data: bytes, sop: str, syntax: str = EXPLICIT) -> bytes:
    return write_file_meta(CT, sop, syntax) + data


def send(built: System, data: bytes, sop: str, syntax: str = EXPLICIT, title: str = "MODALITY") -> int:
    """C-STORE of one object; its status."""
    with associate(built.dicom, Proposal("NEGATOSCOPE", title, BOTH)) as sender:
        return sender.store(CT, sop, syntax, data).status


def quarantined(built: System, sop: str) -> list[dict[str, str]]:
    rows = [json.loads(line) for line in built.run("quarantine", "list").stdout.splitlines()]
    return [row for row in rows if row["sop_instance_uid"] == sop]


def listed(archive: Archive, level: str, **keys: str) -> list[dict[str, dict[str, list[str]]]]:
    answer = archive.get(f"/dicom-web/{level}", "application/dicom+json", **keys)
    assert answer.status_code in (200, 204)
    return answer.json() if answer.status_code == 200 else []


def address(study: str, sop: str, series: str = "2.25.200") -> str:
    return f"/dicom-web/studies/{study}/series/{series}/instances/{sop}"


# Who may come in ----------------------------------------------------------------------------------


def test_dicomweb_and_wado_answer_401_without_a_valid_token(built: System) -> None:
    short = built.token("reader", "--ttl", "1s")
    time.sleep(1.3)
    tokens = ["", "Bearer", "Bearer nonsense", f"Bearer {short}", f"Basic {short}"]
    paths = ["/dicom-web/studies", "/dicom-web/series", "/dicom-web/instances", "/dicom-web/studies/1.2/metadata"]
    paths += ["/dicom-web/studies/1.2/rendered", "/dicom-web/nothing", "/dicom-web", "/dicom-web/"]
    paths += ["/dicom-web/studies/", "/dicom-webs", "/wado/"]
    paths += ["/wado", "/wado?requestType=WADO&studyUID=1&seriesUID=2&objectUID=3"]
    with httpx.Client(base_url=built.url) as client:
        for token in tokens:
            headers = {"Authorization": token} if token else {}
            for path in paths:
                assert client.get(path, headers=headers).status_code == 401, path
            for path in ("/dicom-web/studies", "/dicom-web/studies/1.2"):
                assert client.post(path, headers=headers, content=b"x").status_code == 401
        for path in ("/health/live", "/health/ready", "/metrics"):
            assert client.get(path).status_code == 200


def test_a_token_is_alone_on_its_line_and_works_at_once(built: System) -> None:
    done = built.run("token", "create", "--user", "reader")
    assert re.fullmatch(r"\S+\n", done.stdout)
    assert done.stderr == ""
    with Archive(built.url, done.stdout.strip()) as archive:
        assert archive.get("/dicom-web/studies", "application/dicom+json").status_code in (200, 204)


def refused(built: System, called: str, calling: str) -> tuple[int, int, int]:
    with pytest.raises(AssociationRefused) as caught:
        associate(built.dicom, Proposal(called, calling))
    reject = caught.value.reject
    return (reject.result, reject.source, reject.reason)


def test_unknown_calling_and_wrong_called_titles_are_rejected(built: System) -> None:
    assert refused(built, "NEGATOSCOPE", "STRANGER") == (1, 1, 3)
    assert refused(built, "OTHER", "MODALITY") == (1, 1, 7)


def test_a_new_title_works_from_the_next_association_on(built: System) -> None:
    assert refused(built, "NEGATOSCOPE", "NEWCOMER") == (1, 1, 3)
    built.run("ae", "add", "NEWCOMER", "--establishment", "HX")
    with associate(built.dicom, Proposal("NEGATOSCOPE", "NEWCOMER")) as sender:
        assert sender.echo() == 0


def test_a_title_may_call_from_its_host_alone(built: System) -> None:
    built.run("ae", "add", "AFAR", "--establishment", "HX", "--host", "192.0.2.7", "--port", "104")
    built.run("ae", "add", "NEAR", "--establishment", "HX", "--host", "127.0.0.1", "--port", "104")
    assert refused(built, "NEGATOSCOPE", "AFAR") == (1, 1, 3)
    with associate(built.dicom, Proposal("NEGATOSCOPE", "NEAR")) as sender:
        assert sender.echo() == 0


def test_a_missing_right_is_a_rejected_context_or_not_authorized(built: System, archive: Archive) -> None:
    built.run("ae", "add", "ASKER", "--establishment", "HX", "--rights", "query,retrieve")
    try:
        assert send(built, synthetic(sop="2.25.31", study="2.25.310"), "2.25.31", title="ASKER") == 0x0124
    except (UnsupportedSOPClass, PeerUnavailable):
        pass
    assert listed(archive, "studies", StudyInstanceUID="2.25.310") == []


@pytest.mark.parametrize("role", ["radiographer", "radiologist"])
def test_radiographers_and_radiologists_store_and_read_in_their_establishment(built: System, role: str) -> None:
    built.run("establishment", "add", f"E{role}", "--name", role, "--oid", f"2.25.80{len(role)}")
    built.run("user", "add", f"u{role}", "--role", role, "--establishment", f"E{role}")
    data = synthetic(sop="2.25.32", study="2.25.320")
    with Archive(built.url, built.token(f"u{role}")) as theirs:
        assert theirs.store_one(file_of(data, "2.25.32")) == STORED
        assert theirs.data_set(address("2.25.320", "2.25.32")) == (data, EXPLICIT)


def test_an_administrator_reads_no_image(built: System, archive: Archive) -> None:
    archive.store_one(file_of(synthetic(sop="2.25.33", study="2.25.330"), "2.25.33"))
    built.run("user", "add", "boss", "--role", "admin", "--establishment", "HX")
    with Archive(built.url, built.token("boss")) as theirs:
        answer = theirs.get(address("2.25.330", "2.25.33"), "application/dicom")
        assert answer.status_code in (403, 404)


# Conflicts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", ["DIMSE", "STOW"])
def test_a_conflicting_object_is_acknowledged_and_waits_in_quarantine(
    built: System, archive: Archive, tmp_path: Path, door: str
) -> None:
    sop, study = ("2.25.41", "2.25.410") if door == "DIMSE" else ("2.25.42", "2.25.420")
    first, second = (synthetic(sop=sop, study=study, series=f"{study}1", pixels=bytes([n]) * 128) for n in (1, 2))
    before = counted(built)
    if door == "DIMSE":
        assert [send(built, data, sop) for data in (first, first, second)] == [0, 0, 0]
    else:
        assert [archive.store_one(file_of(data, sop)) for data in (first, first, second)] == [STORED, STORED, ASIDE]
    [row] = quarantined(built, sop)
    assert set(row) == {
        "id", "sop_instance_uid", "study_instance_uid", "patient_id", "reason", "sha256", "received_at"
    }  # fmt: skip
    assert (row["study_instance_uid"], row["patient_id"]) == (study, "P1")
    assert row["sha256"] == hashlib.sha256(second).hexdigest()
    built.run("quarantine", "get", str(row["id"]), "--out", str(tmp_path / "out.dcm"))
    content = (tmp_path / "out.dcm").read_bytes()
    assert content[read_file_meta(content)[1] :] == second
    assert archive.data_set(address(study, sop, f"{study}1")) == (first, EXPLICIT), "the first is served"
    assert counted(built) == before + 1


def counted(built: System) -> float:
    with urllib.request.urlopen(f"{built.url}/metrics") as answer:
        text = answer.read().decode()
    found = re.search(r"^negatoscope_quarantined_total(?:\{[^}]*\})? ([0-9.e+]+)$", text, re.MULTILINE)
    assert found, text[:500]
    return float(found[1])


def test_another_transfer_syntax_is_other_bytes(built: System, archive: Archive) -> None:
    sop, study = "2.25.43", "2.25.430"
    first = synthetic(sop=sop, study=study, series=f"{study}1")
    assert send(built, first, sop) == 0
    assert send(built, implicit(file_of(first, sop)), sop, IMPLICIT) == 0
    [row] = quarantined(built, sop)
    assert row["sha256"] == hashlib.sha256(implicit(file_of(first, sop))).hexdigest()
    assert archive.data_set(address(study, sop, f"{study}1")) == (first, EXPLICIT)


def implicit(file: bytes) -> bytes:
    dataset = dcmread(BytesIO(file))
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    out = BytesIO()
    dataset.save_as(out)
    content = out.getvalue()
    return content[read_file_meta(content)[1] :]


@pytest.mark.parametrize("second", ["P2", ""])
def test_two_patient_ids_in_one_study_are_two_rows_or_one_waits(built: System, archive: Archive, second: str) -> None:
    study = f"2.25.44{len(second)}0"
    sops = [f"{study}.1", f"{study}.2"]
    objects = [
        synthetic(sop=sop, study=study, series=f"{study}.9{n}", patient=patient)
        for n, (sop, patient) in enumerate(zip(sops, ("P1", second), strict=True))
    ]
    assert [send(built, data, sop) for data, sop in zip(objects, sops, strict=True)] == [0, 0]
    rows = listed(archive, "studies", StudyInstanceUID=study)
    patients = [row["00100020"].get("Value", [""])[0] for row in rows]
    assert len(rows) == len(set(patients)), "never two patients in one row"
    if patients == ["P1"]:
        assert [row["sha256"] for row in quarantined(built, sops[1])] == [hashlib.sha256(objects[1]).hexdigest()]


BAD_UIDS = ["", "1.2.", ".1", "1..2", "1.02", "1.2.x", "../../../etc/passwd", "1." * 33 + "1", " ", "1.2\\1.3"]


@pytest.mark.parametrize("uid", BAD_UIDS)
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
def test_missing_or_malformed_uids_are_refused_at_both_doors(
    built: System, archive: Archive, keyword: str, uid: str
) -> None:
    data = with_uid(keyword, uid)
    assert send(built, data, "2.25.45") in (MISMATCH, 0x0122, 0xC000)
    answer = archive.store_one(file_of(data, "2.25.45"))
    assert answer.status == 409
    assert answer.failure in (MISMATCH, 0x0122, 0xC000)
    assert listed(archive, "studies", PatientID="BADUID") == []
    assert listed(archive, "instances", PatientID="BADUID") == []


def with_uid(keyword: str, uid: str) -> bytes:
    """An object whose one UID is ``uid``, written as it stands."""
    data = synthetic(sop="2.25.45", study="2.25.450", series="2.25.4501", patient="BADUID")
    tags = {
        "StudyInstanceUID": b"\x20\0\x0d\0",
        "SeriesInstanceUID": b"\x20\0\x0e\0",
        "SOPInstanceUID": b"\x08\0\x18\0",
    }
    tag = tags.get(keyword, b"\x08\0\x16\0")
    at = data.index(tag + b"UI")
    length = int.from_bytes(data[at + 6 : at + 8], "little")
    value = uid.encode() + b"\0" * (len(uid) % 2)
    return data[:at] + tag + b"UI" + len(value).to_bytes(2, "little") + value + data[at + 8 + length :]


# Broken objects -----------------------------------------------------------------------------------


def deep(depth: int, sop: str, study: str) -> bytes:
    """An image with ``depth`` sequences, one in the other, before its pixels."""
    data = synthetic(sop=sop, study=study, series=f"{study}1", patient=f"DEEP{depth}")
    at = data.index(b"\xe0\x7f\x10\0")
    return data[:at] + nested(depth, undefined=True) + data[at:]


@pytest.mark.parametrize("depth", [63, 64])
@pytest.mark.parametrize("door", ["DIMSE", "STOW"])
def test_sequences_nested_to_64_are_kept_and_served_in_every_representation(
    built: System, archive: Archive, door: str, depth: int
) -> None:
    sop = study = f"2.25.5{depth}{len(door)}"
    data = deep(depth, sop, study)
    if door == "DIMSE":
        assert send(built, data, sop) == 0
    else:
        assert archive.store_one(file_of(data, sop)) == STORED
    at = address(study, sop, f"{study}1")
    assert archive.data_set(at) == (data, EXPLICIT)
    [document] = archive.json(f"{at}/metadata")
    found = 0
    while "00400275" in document:
        found, document = found + 1, document["00400275"]["Value"][0]
    assert found == depth
    xml = archive.get(f"{at}/metadata", 'multipart/related; type="application/dicom+xml"')
    assert xml.text.count('tag="00400275"') == depth
    for path, accept in [
        (f"{at}/rendered", "image/png"),
        (f"{at}/thumbnail", "image/jpeg"),
        (f"{at}/frames/1", 'multipart/related; type="application/octet-stream"'),
        (f"{at}/bulkdata/7FE00010", 'multipart/related; type="application/octet-stream"'),
        (at, f'multipart/related; type="application/dicom"; transfer-syntax={IMPLICIT}'),
        (at, 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.80'),
        (f"/dicom-web/studies/{study}", "application/zip"),
    ]:
        answer = archive.get(path, accept)
        assert answer.status_code in (200, 406 if "zip" in accept or IMPLICIT in accept else 200), (path, answer.text)
    wado = {"requestType": "WADO", "studyUID": study, "seriesUID": f"{study}1", "objectUID": sop}
    assert archive.get("/wado", "*/*", contentType="application/dicom", **wado).status_code == 200
    assert len(listed(archive, "instances", StudyInstanceUID=study, includefield="all")) == 1


@pytest.mark.parametrize("depth", [65, 100_000])
def test_deeper_sequences_are_refused_within_a_second(built: System, archive: Archive, depth: int) -> None:
    data = deep(depth, "2.25.57", "2.25.570")
    began = time.monotonic()
    assert send(built, data, "2.25.57") == TOO_DEEP
    middle = time.monotonic()
    assert archive.store_one(file_of(data, "2.25.57")) == Answer(409, None, TOO_DEEP)
    assert middle - began < 1.0
    assert time.monotonic() - middle < 1.0
    assert listed(archive, "studies", PatientID=f"DEEP{depth}") == []


@pytest.mark.parametrize("left", [1, 64, 128, 300])
def test_a_truncated_data_set_gets_a_status_never_silence(built: System, archive: Archive, left: int) -> None:
    data = synthetic(sop="2.25.58", study="2.25.580", patient="CUT")[:-left]
    began = time.monotonic()
    assert send(built, data, "2.25.58") in (TRUNCATED, MISMATCH)
    answer = archive.store_one(file_of(data, "2.25.58"))
    assert answer.status == 409
    assert time.monotonic() - began < 2.0
    assert listed(archive, "studies", PatientID="CUT") == []


# Commands -----------------------------------------------------------------------------------------

WRONG: list[list[str]] = [
    ["establishment", "add", "HX", "--name", "again", "--oid", "2.25.5001"],
    ["establishment", "add", "HQ", "--name", "no OID", "--oid", "not an oid"],
    ["ae", "add", "LOST", "--establishment", "NOWHERE"],
    ["ae", "add", "MODALITY", "--establishment", "HX"],
    ["ae", "add", "A" * 17, "--establishment", "HX"],
    ["ae", "add", "FLY", "--establishment", "HX", "--rights", "fly"],
    ["user", "add", "reader", "--role", "radiologist", "--establishment", "HX"],
    ["user", "add", "someone", "--role", "wizard", "--establishment", "HX"],
    ["user", "add", "someone", "--role", "dpo", "--establishment", "NOWHERE"],
    ["token", "create", "--user", "nobody"],
    ["token", "create", "--user", "reader", "--ttl", "soon"],
    ["token", "create", "--user", "demo"],
    ["import", "/nowhere/at/all", "--establishment", "HX"],
    ["import", "/etc/hostname", "--establishment", "NOWHERE"],
    ["quarantine", "get", "999999", "--out", "/tmp/never"],
    ["rebuild-index"],
    ["fly"],
    [],
]


@pytest.mark.parametrize("words", WRONG, ids=lambda words: " ".join(words)[:40])
def test_a_command_that_fails_exits_non_zero_with_one_line(built: System, archive: Archive, words: list[str]) -> None:
    archive.store_one(file_of(synthetic(sop="2.25.61", study="2.25.610"), "2.25.61"))
    done = built.run(*words, check=False)
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("negatoscope: ")
    assert done.stdout == ""


def test_import_takes_a_file_a_folder_and_a_zip(built: System, archive: Archive, tmp_path: Path) -> None:
    files = {f"2.25.6{n}": synthetic(sop=f"2.25.6{n}", study=f"2.25.6{n}0", series=f"2.25.6{n}1") for n in (2, 3, 4)}
    paths = {sop: tmp_path / f"{sop}.dcm" for sop in files}
    for sop, data in files.items():
        paths[sop].write_bytes(file_of(data, sop))
    folder = tmp_path / "folder"
    folder.mkdir()
    paths["2.25.63"].rename(folder / "IM1")
    with zipfile.ZipFile(tmp_path / "disc.zip", "w", zipfile.ZIP_DEFLATED) as archived:
        archived.write(paths["2.25.64"], "DICOM/IM1")
    for path in (paths["2.25.62"], folder, tmp_path / "disc.zip"):
        done = built.run("import", str(path), "--establishment", "HX")
        assert done.stdout == "1 stored, 0 already stored, 0 quarantined, 0 skipped, 0 refused\n"
    for sop, data in files.items():
        assert archive.data_set(address(f"{sop}0", sop, f"{sop}1")) == (data, EXPLICIT)


def test_audit_and_store_are_sound_after_all_that(built: System) -> None:
    assert re.fullmatch(r"\d+ audit events verified\n", built.run("verify-audit").stdout)
    assert built.run("scrub").stdout.endswith(" 0 damaged\n")
    log = built.log.read_text(errors="replace")
    assert "Traceback" not in log
    assert " ERROR " not in log
