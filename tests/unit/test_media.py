"""Reading a medium: every file is accounted for, none costs more than its bounds, none is written to a path."""

from __future__ import annotations

import io
import os
import shutil
import struct
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import pydicom.data
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from negatoscope import media
from negatoscope.dicom.limits import DEFAULT_LIMITS, KIB, MIB
from negatoscope.errors import BadRequest, InvalidObject, NegatoscopeError, NotFound, TooLarge
from negatoscope.media import Kind, MediaEntry, entries, looks_like_dicom, referenced_files

SAMPLES = Path(pydicom.data.__file__).parent / "test_files"
DISC = SAMPLES / "dicomdirtests"
CT = (SAMPLES / "CT_small.dcm").read_bytes()


def kinds(found: list[MediaEntry]) -> dict[str, tuple[Kind, str]]:
    return {entry.path: (entry.kind, entry.reason) for entry in found}


def make_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def read_all(entry: MediaEntry) -> bytes:
    with entry.open() as stream:
        return stream.read()


def test_every_file_of_a_folder_is_reported_in_order(tmp_path: Path) -> None:
    (tmp_path / "B").mkdir()
    (tmp_path / "B" / "IM1").write_bytes(CT)
    (tmp_path / "A.TXT").write_bytes(b"read me first, it is not an image")
    (tmp_path / "EMPTY").touch()
    found = list(entries(tmp_path))
    assert [(entry.number, entry.path) for entry in found] == [(1, "A.TXT"), (2, "B/IM1"), (3, "EMPTY")]
    assert kinds(found) == {
        "A.TXT": (Kind.SKIPPED, "not DICOM"),
        "B/IM1": (Kind.DICOM, ""),
        "EMPTY": (Kind.SKIPPED, "empty"),
    }
    assert read_all(found[1]) == CT
    assert found[1].size == len(CT)


def test_a_label_never_holds_the_name_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "DURAND JEAN").mkdir()
    (tmp_path / "DURAND JEAN" / "IM1").write_bytes(CT)
    (entry,) = entries(tmp_path)
    assert entry.label == "file 1"


def test_symbolic_links_are_reported_and_not_followed(tmp_path: Path) -> None:
    outside, disc = tmp_path / "outside", tmp_path / "disc"
    outside.mkdir()
    disc.mkdir()
    (outside / "secret.dcm").write_bytes(CT)
    (disc / "link.dcm").symlink_to(outside / "secret.dcm")
    (disc / "folder").symlink_to(outside)
    os.mkfifo(disc / "pipe")
    assert kinds(list(entries(disc))) == {
        "folder": (Kind.REFUSED, "symbolic link, not followed"),
        "link.dcm": (Kind.REFUSED, "symbolic link, not followed"),
        "pipe": (Kind.REFUSED, "not a regular file"),
    }


def test_a_file_replaced_by_a_link_after_it_was_listed_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "IM1").write_bytes(CT)
    (entry,) = entries(tmp_path)
    (tmp_path / "IM1").rename(tmp_path / "moved")
    (tmp_path / "IM1").symlink_to(tmp_path / "moved")
    with pytest.raises(OSError, match="symbolic links"):
        entry.open()


def test_nothing_at_the_path_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        entries(tmp_path / "absent")


def test_a_single_file_is_a_medium_of_one(tmp_path: Path) -> None:
    (tmp_path / "one.dcm").write_bytes(CT)
    (entry,) = entries(tmp_path / "one.dcm")
    assert (entry.kind, read_all(entry)) == (Kind.DICOM, CT)


# DICOMDIR ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "index", ["DICOMDIR", "DICOMDIR-bigEnd", "DICOMDIR-implicit", "DICOMDIR-nooffset", "DICOMDIR-reordered"]
)
def test_the_index_is_understood_in_every_encoding_and_when_its_offsets_are_wrong(index: str) -> None:
    named = {"/".join(parts) for parts in referenced_files((DISC / index).read_bytes())}
    present = {
        path.relative_to(DISC).as_posix()
        for folder in ("77654033", "98892001", "98892003")
        for path in (DISC / folder).rglob("*")
        if path.is_file()
    }
    assert named == present


def test_a_disc_is_read_by_its_index_and_all_its_images_are_found(tmp_path: Path) -> None:
    shutil.copytree(DISC / "98892001", tmp_path / "98892001")
    shutil.copytree(DISC / "98892003", tmp_path / "98892003")
    shutil.copytree(DISC / "77654033", tmp_path / "77654033")
    shutil.copy(DISC / "DICOMDIR", tmp_path)
    found = list(entries(tmp_path / "DICOMDIR"))
    assert [entry.path for entry in found if entry.kind is not Kind.DICOM] == ["DICOMDIR"]
    assert sum(entry.kind is Kind.DICOM for entry in found) == 31
    assert kinds(found)["DICOMDIR"] == (Kind.SKIPPED, "index of the medium")


def test_files_that_the_index_names_and_the_disc_lacks_are_refused(tmp_path: Path) -> None:
    shutil.copytree(DISC / "98892001", tmp_path / "98892001")
    shutil.copy(DISC / "DICOMDIR", tmp_path)
    missing = [entry for entry in entries(tmp_path) if entry.reason == "missing from media"]
    assert len(missing) == 24
    assert all(entry.kind is Kind.REFUSED for entry in missing)
    with pytest.raises(NotFound):
        missing[0].open()


def test_the_index_of_a_disc_copied_in_lower_case_names_its_files(tmp_path: Path) -> None:
    (tmp_path / "pt000000").mkdir()
    (tmp_path / "pt000000" / "im000000.").write_bytes(CT)
    (tmp_path / "dicomdir").write_bytes(b"\x04\x00\x00\x15CS\x12\x00PT000000\\IM000000 ")
    assert kinds(list(entries(tmp_path))) == {
        "dicomdir": (Kind.SKIPPED, "index of the medium"),
        "pt000000/im000000.": (Kind.DICOM, ""),
    }


def test_images_that_the_index_forgot_are_still_found(tmp_path: Path) -> None:
    (tmp_path / "FORGOT").write_bytes(CT)
    (tmp_path / "DICOMDIR").write_bytes((DISC / "DICOMDIR-empty.dcm").read_bytes())
    assert kinds(list(entries(tmp_path)))["FORGOT"] == (Kind.DICOM, "")


@given(st.binary(max_size=400))
def test_no_bytes_make_the_index_reader_or_the_sniffer_fail(data: bytes) -> None:
    looks_like_dicom(data)
    assert all(parts and all(parts) for parts in referenced_files(data + b"\x04\x00\x00\x15CS\x04\x00AB\\C"))


def test_files_without_the_part_10_mark_are_recognised() -> None:
    for name in ("ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm", "rtstruct.dcm"):
        assert looks_like_dicom((SAMPLES / name).read_bytes()[:512]), name
    for other in (b"", b"MZ\x90\x00" + bytes(600), b"%PDF-1.7 " + bytes(600), b"\xff\xd8\xff\xe0" + bytes(600)):
        assert not looks_like_dicom(other[:512])


# ZIP ---------------------------------------------------------------------------------------------


def test_a_zip_is_read_like_a_folder(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "disc.zip", {"DIR/": b"", "DIR/IM1": CT, "README": b"viewer inside", "X\\IM2": CT})
    found = []
    for entry in entries(archive):
        found.append(entry)
        if entry.kind is Kind.DICOM:
            assert read_all(entry) == CT
    assert kinds(found) == {
        "DIR/IM1": (Kind.DICOM, ""),
        "README": (Kind.SKIPPED, "not DICOM"),
        "X/IM2": (Kind.DICOM, ""),
    }


def test_the_index_within_a_zip_names_what_is_missing(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "disc.zip", {"CD/DICOMDIR": (DISC / "DICOMDIR").read_bytes()})
    found = list(entries(archive))
    assert sum(entry.reason == "missing from media" for entry in found) == 31
    assert all(entry.path.startswith("CD/") for entry in found)


def test_names_that_climb_out_of_the_archive_reach_no_path(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    inside = tmp_path / "in"
    inside.mkdir()
    names = ["../victim", f"{victim}", "..\\victim", "a/../../victim"]
    archive = make_zip(inside / "evil.zip", dict.fromkeys(names, CT))
    assert [read_all(entry) for entry in entries(archive)] == [CT] * len(names)
    assert victim.read_bytes() == b"untouched"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["evil.zip", "in", "victim"]


def test_an_encrypted_entry_says_so(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "locked.zip", {"IM1": CT, "IM2": CT})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # general purpose bit 0 in the central directory, APPNOTE 4.4.4
    path.write_bytes(data)
    first, second = entries(path)
    assert first.kind is Kind.REFUSED
    assert first.reason.startswith("encrypted")
    assert second.kind is Kind.DICOM


def test_an_unusual_compression_method_is_refused_by_number(tmp_path: Path) -> None:
    (entry,) = entries(make_zip(tmp_path / "z.zip", {"IM1": CT}, zipfile.ZIP_LZMA))
    assert (entry.kind, entry.reason) == (Kind.REFUSED, "ZIP compression method 14 is not supported")


def test_a_zip_within_a_zip_is_refused_not_opened(tmp_path: Path) -> None:
    inner = make_zip(tmp_path / "inner.zip", {"IM1": CT}).read_bytes()
    outer = make_zip(tmp_path / "outer.zip", {"inner.zip": inner, "IM1": CT})
    assert kinds(list(entries(outer)))["inner.zip"][0] is Kind.REFUSED
    assert kinds(list(entries(outer)))["IM1"] == (Kind.DICOM, "")


@pytest.mark.parametrize(("count", "taken"), [(19_999, True), (20_000, True), (20_001, False)])
def test_twenty_thousand_entries_are_taken_and_no_more(tmp_path: Path, count: int, taken: bool) -> None:
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            archive.writestr(zipfile.ZipInfo(f"{number}"), b"")
    assert DEFAULT_LIMITS.zip_entries == 20_000
    if taken:
        assert sum(1 for _ in entries(path)) == count
    else:
        with pytest.raises(TooLarge, match="20000"):
            entries(path)


def test_a_count_that_lies_is_not_believed(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "lie.zip", {str(number): b"" for number in range(20)})
    data = bytearray(path.read_bytes())
    struct.pack_into("<HH", data, data.rindex(b"PK\x05\x06") + 8, 1, 1)
    path.write_bytes(data)
    with pytest.raises(TooLarge):
        entries(path, replace(DEFAULT_LIMITS, zip_entries=19))


def test_a_zip64_archive_is_counted_and_read(tmp_path: Path) -> None:
    path = tmp_path / "long.zip"
    with zipfile.ZipFile(path, "w") as archive, archive.open("IM1", "w", force_zip64=True) as stream:
        stream.write(CT)
    data = path.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    size, offset = struct.unpack_from("<II", data, end + 12)
    record = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, size, offset)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    closing = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(data[:end] + record + locator + closing)
    (entry,) = entries(path)
    assert entry.kind is Kind.DICOM
    with pytest.raises(TooLarge):
        entries(path, replace(DEFAULT_LIMITS, zip_entries=0))


def test_an_entry_that_inflates_beyond_its_ratio_is_cut_off_with_flat_memory(tmp_path: Path) -> None:
    bomb = CT + bytes(200 * MIB)
    path = make_zip(tmp_path / "bomb.zip", {"IM1": bomb})
    del bomb
    assert path.stat().st_size < MIB
    for entry in entries(path):
        tracemalloc.start()
        with pytest.raises(TooLarge, match="bomb"), entry.open() as stream:
            while stream.read(MIB):
                pass
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
        tracemalloc.stop()


@pytest.mark.parametrize(("beyond", "taken"), [(-1, True), (0, True), (1, False)])
def test_the_absolute_bound_of_an_entry_is_exact(tmp_path: Path, beyond: int, taken: bool) -> None:
    path = make_zip(tmp_path / "z.zip", {"IM1": CT + os.urandom(64 * KIB - len(CT) + beyond)})
    bounds = replace(DEFAULT_LIMITS, inflated=64 * KIB)
    for entry in entries(path, bounds):
        if taken:
            assert len(read_all(entry)) == 64 * KIB + beyond
        else:
            with pytest.raises(TooLarge):
                read_all(entry)


@pytest.mark.parametrize(("beyond", "taken"), [(-1, True), (0, True), (1, False)])
def test_the_ratio_of_an_entry_is_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beyond: int, taken: bool
) -> None:
    monkeypatch.setattr(media, "RATIO_COUNTS_FROM", 0)
    size = 4 * len(CT)
    for _ in range(10):  # the size that is just 4 times its compressed one, by approach
        path = make_zip(tmp_path / "z.zip", {"IM1": CT + bytes(size - len(CT))})
        with zipfile.ZipFile(path) as archive:
            size, before = 4 * archive.getinfo("IM1").compress_size + beyond, size
        if size == before:
            break
    assert size == before
    for entry in entries(path, replace(DEFAULT_LIMITS, inflate_ratio=4)):
        if taken:
            assert len(read_all(entry)) == size
        else:
            with pytest.raises(TooLarge):
                read_all(entry)


def test_entries_that_share_their_compressed_bytes_share_one_allowance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The overlapping bomb: many directory entries of one compressed run."""
    monkeypatch.setattr(media, "RATIO_COUNTS_FROM", 0)
    path = make_zip(tmp_path / "z.zip", {"IM1": CT + bytes(MIB)})
    data = path.read_bytes()
    start, end = data.index(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
    closing = bytearray(data[end:])
    struct.pack_into("<HHI", closing, 8, 500, 500, 500 * (end - start))
    path.write_bytes(data[:start] + data[start:end] * 500 + closing)
    produced = 0
    with pytest.raises(NegatoscopeError):
        for entry in entries(path, replace(DEFAULT_LIMITS, inflate_ratio=40)):
            produced += len(read_all(entry))
    assert produced < 500 * MIB / 4


def test_a_declared_size_over_the_bound_of_a_data_set_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "z.zip", {"IM1": CT})
    for size, kind in ((len(CT) - 1, Kind.REFUSED), (len(CT), Kind.DICOM), (len(CT) + 1, Kind.DICOM)):
        (entry,) = entries(path, replace(DEFAULT_LIMITS, data_set=size))
        assert entry.kind is kind


def test_damage_is_reported_file_by_file(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "z.zip", {"IM1": CT, "IM2": CT}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(CT) + 20_000] ^= 1
    path.write_bytes(data)
    outcome = []
    for entry in entries(path):
        try:
            outcome.append(len(read_all(entry)))
        except InvalidObject:
            outcome.append(-1)
    assert outcome == [-1, len(CT)]


@given(st.integers(0, 2_000), st.binary(min_size=1, max_size=8))
@example(415, b"\x00")  # an entry without a name
def test_a_damaged_archive_raises_only_our_errors(
    tmp_path_factory: pytest.TempPathFactory, at: int, new: bytes
) -> None:
    path = make_zip(tmp_path_factory.mktemp("zip") / "z.zip", {"IM1": CT[:600], "IM2": bytes(900)})
    data = bytearray(path.read_bytes())
    at %= len(data)
    data[at : at + len(new)] = new
    path.write_bytes(data)
    try:
        for entry in entries(path):
            if entry.kind is Kind.DICOM:
                read_all(entry)
    except NegatoscopeError:
        pass


def test_what_is_not_a_zip_after_all_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "z.zip"
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(BadRequest):
        entries(path)


def test_an_image_with_a_zip_behind_it_is_an_image(tmp_path: Path) -> None:
    behind = io.BytesIO()
    with zipfile.ZipFile(behind, "w") as archive:
        archive.writestr("hidden", b"x")
    (tmp_path / "both.dcm").write_bytes(CT + behind.getvalue())
    (entry,) = entries(tmp_path / "both.dcm")
    assert entry.kind is Kind.DICOM
