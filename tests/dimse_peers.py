"""Real objects to send, and what was received read back by pydicom."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pydicom.data
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from dimse_fakes import Kept

SAMPLES = Path(pydicom.data.__file__).parent / "test_files"


def sample(name: str) -> Path:
    """A file of the pydicom wheel."""
    path = SAMPLES / name
    assert path.exists(), name
    return path


def read_back(kept: Kept) -> Dataset:
    """The object as received, under the announcement it came with."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(kept.announced.sop_class_uid or "")
    meta.MediaStorageSOPInstanceUID = UID(kept.announced.sop_instance_uid or "")
    meta.TransferSyntaxUID = UID(kept.announced.transfer_syntax_uid)
    meta.ImplementationClassUID = UID("1.2.3")
    file = DicomBytesIO()
    file.write(bytes(128) + b"DICM")
    write_file_meta_info(file, meta)
    file.write(kept.data)
    file.seek(0)
    return pydicom.dcmread(file)


def same(kept: Kept, path: Path) -> bool:
    """Whether every element arrived. Peers re-encode: lengths, padding and trailing filler may differ.

    So may one representation: some samples have encapsulated pixels as OW, which PS3.5 A.4 does
    not allow, and DCMTK sends OB. (What we kept is byte for byte what its storescp keeps.)
    """
    sent, received = pydicom.dcmread(path), read_back(kept)
    for dataset in (sent, received):
        dataset.pop(0xFFFCFFFC, None)
        if UID(kept.announced.transfer_syntax_uid).is_encapsulated and "PixelData" in dataset:
            dataset["PixelData"].VR = "OB"
    return bool(sent == received)
