"""PS3.6 as tables: pydicom's data files, read without importing pydicom.

The package itself brings numpy and much else: 45 MB of memory in each of our processes, for two dictionaries.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any


def _data_file(name: str) -> ModuleType:
    package = importlib.util.find_spec("pydicom")  # of a top-level package: found, not imported
    if package is None or package.origin is None:
        raise ImportError("pydicom is not installed")
    spec = importlib.util.spec_from_file_location(
        f"negatoscope.dicom.{name}", Path(package.origin).parent / f"{name}.py"
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"pydicom has no {name}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_elements: Any = _data_file("_dicom_dict")
_uids: Any = _data_file("_uid_dict")

# tag -> (VR, VM, name, "Retired" or "", keyword)
ELEMENTS: dict[int, tuple[str, str, str, str, str]] = _elements.DicomDictionary
# tag with x for any digit -> the same
REPEATERS: dict[str, tuple[str, str, str, str, str]] = _elements.RepeatersDictionary
# UID -> (name, type, information, "Retired" or "", keyword)
UIDS: dict[str, tuple[str, str, str, str, str]] = _uids.UID_dictionary

TAG_OF_KEYWORD: dict[str, int] = {entry[4]: tag for tag, entry in ELEMENTS.items() if entry[4]}
